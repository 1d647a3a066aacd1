// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: extents. The table of docs/architecture.md row by row, the
// end of the backing file, and the shape of what is reported.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"

namespace addcow {

// For gtest's messages.
void PrintTo(const Extent& extent, std::ostream* out) {
  const char* sources[] = {"image", "backing", "none"};
  *out << extent.offset << "+" << extent.length << " "
       << sources[static_cast<size_t>(extent.source)] << (extent.data ? " data" : " zero");
}

namespace {

using Extents = std::vector<Extent>;
constexpr auto kImage = Extent::Source::kImage;
constexpr auto kBacking = Extent::Source::kBacking;
constexpr auto kNone = Extent::Source::kNone;

class ImageMap : public ImageFixture {
 protected:
  Extents Map(uint64_t offset, uint64_t length) {
    Extents extents;
    EXPECT_OK(image_->Map(offset, length, [&](const Extent& extent) {
      extents.push_back(extent);
      return true;
    }));
    return extents;
  }
  Extents Map() { return Map(0, image_->virtual_size()); }
};

TEST_F(ImageMap, AllocatedDataIsData) {
  Make({.size = kC, .backing_size = kC, .allocated = {0}});
  EXPECT_EQ(Map(), (Extents{{0, kC, kImage, true}}));
}

TEST_F(ImageMap, AllocatedHoleIsZero) {
  Make({.size = kC, .backing_size = kC, .garbage = false, .allocated = {0}});
  EXPECT_EQ(Map(), (Extents{{0, kC, kImage, false}}));
}

TEST_F(ImageMap, UnallocatedBackingDataIsData) {
  Make({.size = kC, .backing_size = kC});
  EXPECT_EQ(Map(), (Extents{{0, kC, kBacking, true}}));
}

TEST_F(ImageMap, UnallocatedBackingHoleIsZeroWhateverTheImageFileHolds) {
  Make({.size = kC, .backing_size = kC, .backing_data = {std::vector<ByteRange>{}}});
  EXPECT_EQ(Map(), (Extents{{0, kC, kBacking, false}}));
}

TEST_F(ImageMap, UnallocatedIsDataWhereTheBackingFileCannotTell) {
  Make({.size = kC, .backing_size = kC, .backing_data = {std::vector<ByteRange>{}}});
  Inode(kBackingPath).SetAbilities({.seek = false});
  EXPECT_EQ(Map(), (Extents{{0, kC, kBacking, true}}));
}

TEST_F(ImageMap, WithoutABackingFileUnallocatedIsZero) {
  Make({.size = kC, .backing_size = {}});
  EXPECT_EQ(Map(), (Extents{{0, kC, kNone, false}}));
}

TEST_F(ImageMap, PastTheBackingFileUnallocatedIsZero) {
  Make({.size = 3 * kC, .backing_size = kC});
  EXPECT_EQ(Map(), (Extents{{0, kC, kBacking, true}, {kC, 2 * kC, kNone, false}}));
}

TEST_F(ImageMap, SplitsInsideAClusterAtTheBackingFilesEnd) {
  Make({.size = 2 * kC, .backing_size = kC + 1024});
  EXPECT_EQ(Map(),
            (Extents{{0, kC + 1024, kBacking, true}, {kC + 1024, kC - 1024, kNone, false}}));
}

TEST_F(ImageMap, BackingDataIsRoundedUpToASector) {
  Make({.size = 2 * kC, .backing_size = kC + 1});
  EXPECT_EQ(Map(),
            (Extents{{0, kC + 512, kBacking, true}, {kC + 512, kC - 512, kNone, false}}));
}

TEST_F(ImageMap, RoundingUpStopsAtTheDisksEnd) {
  Make({.size = 100, .backing_size = 50});
  EXPECT_EQ(Map(), (Extents{{0, 100, kBacking, true}}));
}

TEST_F(ImageMap, LastPartialClusterEndsWithTheDisk) {
  Make({.size = kC + 10, .backing_size = {}, .allocated = {1}});
  EXPECT_EQ(Map(), (Extents{{0, kC, kNone, false}, {kC, 10, kImage, true}}));
}

TEST_F(ImageMap, HolesInsideAClusterAreShown) {
  Make({.size = kC, .backing_size = kC, .backing_data = {{{0, 4096}, {20480, 4096}}}});
  EXPECT_EQ(Map(), (Extents{{0, 4096, kBacking, true},
                            {4096, 16384, kBacking, false},
                            {20480, 4096, kBacking, true},
                            {24576, kC - 24576, kBacking, false}}));
}

TEST_F(ImageMap, AllocatedAndUnallocatedDataAreApart) {
  Make({.size = 3 * kC, .backing_size = 3 * kC, .allocated = {1}});
  EXPECT_EQ(
      Map(),
      (Extents{{0, kC, kBacking, true}, {kC, kC, kImage, true}, {2 * kC, kC, kBacking, true}}));
}

TEST_F(ImageMap, NeighboursThatAreAlikeAreOne) {
  Make({.size = 20 * kC, .backing_size = {}, .allocated = {3, 4, 5, 6, 7, 8, 9, 10}});
  EXPECT_EQ(Map(), (Extents{{0, 3 * kC, kNone, false},
                            {3 * kC, 8 * kC, kImage, true},
                            {11 * kC, 9 * kC, kNone, false}}));
}

TEST_F(ImageMap, ExtentsAreClippedToTheRequest) {
  Make({.size = 4 * kC, .backing_size = 4 * kC});
  EXPECT_EQ(Map(100, 200), (Extents{{100, 200, kBacking, true}}));
  EXPECT_EQ(Map(kC - 1, 2), (Extents{{kC - 1, 2, kBacking, true}}));
}

TEST_F(ImageMap, HoleThatBeginsBeforeTheRequestIsClipped) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .backing_data = {{{3 * kC, kC}}}});
  EXPECT_EQ(Map(kC + 1, kC), (Extents{{kC + 1, kC, kBacking, false}}));
}

TEST_F(ImageMap, EmptyRequestHasNoExtents) {
  Make({});
  EXPECT_EQ(Map(100, 0), Extents{});
}

TEST_F(ImageMap, PastTheEndIsAnError) {
  Make({.size = 65537});
  const auto visit = [](const Extent&) { return true; };
  EXPECT_TRUE(FailsWith(image_->Map(65536, 2, visit), EINVAL));
  EXPECT_TRUE(FailsWith(image_->Map(UINT64_MAX, 2, visit), EINVAL));
}

TEST_F(ImageMap, StopsWhenTheVisitorHasEnough) {
  Make({.size = 4 * kC, .backing_size = {}, .allocated = {1, 3}});
  int visited = 0;
  EXPECT_OK(image_->Map(0, 4 * kC, [&](const Extent&) { return ++visited < 2; }));
  EXPECT_EQ(visited, 2);
}

TEST_F(ImageMap, AsksTheBackingFileForEachHoleOnceHoweverManyRunsItSpans) {
  std::vector<uint64_t> every_other;
  for (uint64_t i = 0; i < 1000; i += 2) every_other.push_back(i);
  Make({.size = 1000 * kC,
        .backing_size = 1000 * kC,
        .backing_data = {std::vector<ByteRange>{}},
        .garbage = false,
        .allocated = every_other});
  log_.Clear();
  EXPECT_EQ(Map().size(), 1000u);
  const auto asked = log_.Lines([](const Operation& operation) {
    return operation.path == kBackingPath &&
           (operation.kind == OpKind::kSeekData || operation.kind == OpKind::kSeekHole);
  });
  EXPECT_LE(asked.size(), 2u);
}

TEST_F(ImageMap, SubclustersAreTheImageFiles) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .backing_data = {{{0, 8192}}}});
  Write(4096, 512);
  Write(kC - 512, 1024);
  EXPECT_EQ(Map(), (Extents{{0, 4096, kBacking, true},
                            {4096, 4096, kImage, true},
                            {8192, kC - 4096 - 8192, kBacking, false},
                            {kC - 4096, 8192, kImage, true},
                            {kC + 4096, kC - 4096, kBacking, false}}));
  Write(0, 512);
  EXPECT_EQ(Map().front(), (Extent{0, 8192, kImage, true}));
}

TEST_F(ImageMap, ZeroedSubclustersAreHolesOfTheImageFile) {
  Make({.size = kC, .backing_size = kC});
  Zero(4096, 8192, {.may_punch = true});
  EXPECT_EQ(Map(), (Extents{{0, 4096, kBacking, true},
                            {4096, 8192, kImage, false},
                            {12288, kC - 12288, kBacking, true}}));
}

TEST_F(ImageMap, SubclustersPastTheBackingFileAreTheImageFiles) {
  Make({.size = 2 * kC, .backing_size = 1000});
  Write(8192, 512);
  EXPECT_EQ(Map(), (Extents{{0, 1024, kBacking, true},
                            {1024, 7168, kNone, false},
                            {8192, 4096, kImage, true},
                            {12288, 2 * kC - 12288, kNone, false}}));
}

TEST_F(ImageMap, SeekErrorIsAnErrorNotAGuess) {
  Make({});
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& op) {
                 return op.kind == OpKind::kSeekData;
               }});
  EXPECT_TRUE(FailsWith(image_->Map(0, 4 * kC, [](const Extent&) { return true; }), EIO));
}

// What is reported must be true, in order, without gaps, neighbours different,
// whatever the state of the disk and the request.
TEST_F(ImageMap, RandomStatesAndRequestsAreReportedTruly) {
  for (int round = 0; round < 30; round++) {
    const uint64_t size = random_.Between(1, 6 * kC);
    const uint64_t backing_size = random_.Between(1, 7 * kC);
    std::vector<ByteRange> data;
    for (uint64_t at = 0; at < backing_size; at += 12288)
      if (random_.OneIn(2)) data.push_back({at, std::min<uint64_t>(8192, backing_size - at)});
    Make({.size = size,
          .backing_size = backing_size,
          .backing_data = data,
          .garbage = random_.OneIn(2),
          .seed = random_.Next()});
    for (int i = 0; i < 6; i++) {
      // Every other one ends between sectors.
      const uint64_t grain = random_.OneIn(2) ? 1 : kSectorSize;
      const uint64_t offset = RoundDown(random_.Below(size), grain);
      const uint64_t any = random_.Between(1, std::min<uint64_t>(size - offset, kC));
      const uint64_t length = std::min(RoundUp(any, grain), size - offset);
      if (random_.OneIn(2))
        Write(offset, length);
      else
        Zero(offset, length);
    }
    for (int i = 0; i < 20; i++) {
      const uint64_t offset = random_.Below(size);
      const uint64_t length = random_.Between(1, size - offset);
      uint64_t position = offset;
      const Extent* before = nullptr;
      const Extents extents = Map(offset, length);
      for (const Extent& extent : extents) {
        ASSERT_EQ(extent.offset, position);
        ASSERT_GT(extent.length, 0u);
        if (before != nullptr) {
          ASSERT_FALSE(before->source == extent.source && before->data == extent.data);
        }
        if (!extent.data) {
          ASSERT_EQ(Difference(reference_->Range(extent.offset, extent.length),
                               Repeat(0, extent.length), extent.offset),
                    "");
        }
        for (uint64_t cluster = extent.offset / kC;
             cluster * kC < extent.offset + extent.length; cluster++) {
          // Of a cluster that is not allocated, subclusters may be there.
          if (IsAllocated(cluster)) {
            ASSERT_EQ(extent.source, kImage) << cluster;
          }
        }
        if (extent.source != kNone) {
          const char* path = extent.source == kImage ? kImagePath : kBackingPath;
          ASSERT_EQ(
              reference_->Check(Inode(path).Bytes(extent.offset, extent.length), extent.offset),
              "");
        }
        position += extent.length;
        before = &extent;
      }
      ASSERT_EQ(position, offset + length);
    }
  }
}

}  // namespace
}  // namespace addcow
