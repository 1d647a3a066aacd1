// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/ops/summary: each byte is counted once, in its part and of its kind, whatever the
// sizes are; against a summary that looks at every sector of the map.

#include "common/ops/summary.h"

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

MapEntry EntryOf(uint64_t start, uint64_t length, DiskKind kind, bool in_image = false) {
  const bool data = kind != DiskKind::kHole;
  in_image = in_image || kind == DiskKind::kImage;
  return {.start = start,
          .length = length,
          .depth = kind == DiskKind::kBacking ? 1 : 0,
          .present = in_image || data,
          .zero = !data,
          .data = data};
}

KindBytes KindsOf(uint64_t image, uint64_t partial, uint64_t backing, uint64_t hole) {
  return {{image, partial, backing, hole}};
}

TEST(DiskSummary, PutsRunsIntoTheirParts) {
  DiskSummary summary(10 * kC, kC, 4 * kC);
  summary.Add(EntryOf(0, 3 * kC, DiskKind::kImage));
  summary.Add(EntryOf(3 * kC, 2 * kC, DiskKind::kBacking));
  summary.Add(EntryOf(5 * kC, 5 * kC, DiskKind::kHole));
  ASSERT_EQ(summary.parts().size(), 3u);
  EXPECT_EQ(summary.parts()[0], KindsOf(3 * kC, 0, kC, 0));
  EXPECT_EQ(summary.parts()[1], KindsOf(0, 0, kC, 3 * kC));
  EXPECT_EQ(summary.parts()[2], KindsOf(0, 0, 0, 2 * kC));
  EXPECT_EQ(summary.Total(), KindsOf(3 * kC, 0, 2 * kC, 5 * kC));
}

TEST(DiskSummary, ClusterThatIsInTheImageInPartIsPartial) {
  DiskSummary summary(4 * kC, kC, kC);
  summary.Add(EntryOf(0, kC + kS, DiskKind::kBacking));
  summary.Add(EntryOf(kC + kS, kS, DiskKind::kImage));
  summary.Add(EntryOf(kC + 2 * kS, 2 * kC - 2 * kS, DiskKind::kBacking));
  // All of it is in the image file, some of it as a hole; and of the last, which ends it,
  // the image file has a hole and nobody the rest.
  summary.Add(EntryOf(3 * kC, kC - kS, DiskKind::kHole, true));
  summary.Add(EntryOf(4 * kC - kS, kS, DiskKind::kHole));
  ASSERT_EQ(summary.parts().size(), 4u);
  EXPECT_EQ(summary.parts()[0], KindsOf(0, 0, kC, 0));
  EXPECT_EQ(summary.parts()[1], KindsOf(0, kC, 0, 0));
  EXPECT_EQ(summary.parts()[2], KindsOf(0, 0, kC, 0));
  EXPECT_EQ(summary.parts()[3], KindsOf(0, kC, 0, 0));
}

TEST(DiskSummary, ClusterOfDataAndHolesInTheImageIsNotPartial) {
  DiskSummary summary(kC, kC, kC);
  summary.Add(EntryOf(0, kS, DiskKind::kImage));
  summary.Add(EntryOf(kS, kC - kS, DiskKind::kHole, true));
  EXPECT_EQ(summary.Total(), KindsOf(kS, 0, 0, kC - kS));
}

TEST(DiskSummary, AnySizeHasItsBytesAndItsParts) {
  for (const uint64_t size : {uint64_t{1}, uint64_t{512}, kC - 1, kC, kC + 512, kMiB, kGiB - 1,
                              64 * kTiB, 64 * 1024 * kTiB, kMaxOffset}) {
    for (const uint64_t part :
         {uint64_t{1}, uint64_t{512}, kC, DivideUp(size, 51), size, kMaxOffset, UINT64_MAX}) {
      DiskSummary summary(size, kC, part);
      const uint64_t half = RoundDown(size / 2, kC);
      if (half > 0) summary.Add(EntryOf(0, half, DiskKind::kBacking));
      summary.Add(EntryOf(half, size - half, DiskKind::kImage));
      EXPECT_EQ(summary.Total(), KindsOf(size - half, 0, half, 0)) << size << " " << part;
      ASSERT_EQ(summary.parts().size(), DivideUp(size, summary.part_size()));
      EXPECT_LE(summary.parts().size(), DiskSummary::kMostParts);
      for (size_t i = 0; i + 1 < summary.parts().size(); i++)
        ASSERT_EQ(summary.parts()[i].total(), summary.part_size()) << size << " " << part;
    }
  }
}

class SummaryOfImage : public ImageFixture {
 protected:
  // By each sector of the map, and the bits of the subclusters by those of its cluster.
  std::vector<KindBytes> Slowly(uint64_t size, uint64_t part_size) {
    struct Sector {
      bool in_image;
      DiskKind kind;
    };
    std::vector<Sector> sectors;
    EXPECT_OK(MapImage(fake_, kAddCowPath, nullptr, [&](const MapEntry& entry) {
      for (uint64_t at = 0; at < entry.length; at += kSectorSize)
        sectors.push_back({entry.present && entry.depth == 0, entry.zero ? DiskKind::kHole
                                                              : entry.depth == 0
                                                                  ? DiskKind::kImage
                                                                  : DiskKind::kBacking});
      return true;
    }));
    std::vector<KindBytes> parts(DivideUp(size, part_size));
    for (uint64_t at = 0; at < size; at += kSectorSize) {
      const auto begin = sectors.begin() + static_cast<long>(RoundDown(at, kC) / kSectorSize);
      const auto end = sectors.begin() +
                       static_cast<long>(std::min(RoundDown(at, kC) + kC, size) / kSectorSize);
      const auto in_image = std::count_if(begin, end, [](auto s) { return s.in_image; });
      const bool partial = in_image > 0 && in_image < end - begin;
      const DiskKind kind = partial ? DiskKind::kPartial : sectors[at / kSectorSize].kind;
      parts[at / part_size][kind] += kSectorSize;
    }
    return parts;
  }

  Result<ImageSummary> Summary(uint64_t part_size) {
    return SummarizeImage(fake_, {.add_cow_path = kAddCowPath}, nullptr,
                          [=](uint64_t) { return part_size; });
  }
};

TEST_F(SummaryOfImage, IsThatOfEverySectorOfItsMap) {
  for (int round = 0; round < 20; round++) {
    const uint64_t clusters = random_.Between(1, 60);
    const uint64_t size = clusters * kC - random_.Below(kC / kSectorSize) * kSectorSize;
    const uint64_t backing = random_.Between(1, size);
    Make({.size = size,
          .backing_size = backing,
          .backing_data = {{{0, std::min(backing, 3 * kC)}}},
          .garbage = false});
    for (int i = 0; i < 30; i++) {
      const uint64_t offset = random_.Below(size);
      const uint64_t most = random_.Below(3) == 0 ? 2 * kC : 2 * kS;
      const uint64_t length = random_.Between(1, std::min(size - offset, most));
      if (random_.Below(3) == 0)
        Zero(offset, length);
      else
        Write(offset, length);
    }
    ASSERT_OK(image_->Close());
    image_.reset();
    const uint64_t part_size = random_.Between(1, 8 * kC / kSectorSize) * kSectorSize;
    ASSERT_OK_AND_ASSIGN(const ImageSummary summary, Summary(part_size));
    EXPECT_EQ(summary.disk.parts(), Slowly(size, part_size)) << size << " in " << part_size;
    EXPECT_EQ(summary.image_path, kImagePath);
    EXPECT_EQ(summary.backing_path, kBackingPath);
    EXPECT_EQ(summary.disk.size(), size);
  }
}

TEST_F(SummaryOfImage, DiskOf64PebibytesIsNotWalkedByClusters) {
  constexpr uint64_t kHuge = 64 * 1024 * kTiB;
  Make({.size = 4 * kC, .garbage = false});
  image_.reset();
  ASSERT_OK(FakeFile("disk.raw", fake_.Find(kImagePath)).Truncate(kHuge));
  ASSERT_OK(
      FakeFile("x.add-cow", fake_.Find(kAddCowPath)).Truncate(kBitmapOffset + kHuge / kC / 8));
  log_.Clear();
  ASSERT_OK_AND_ASSIGN(const ImageSummary summary,
                       SummarizeImage(seam_, {.add_cow_path = kAddCowPath}, nullptr,
                                      [](uint64_t size) { return size / 512; }));
  EXPECT_EQ(summary.disk.Total(), KindsOf(0, 0, 4 * kC, kHuge - 4 * kC));
  EXPECT_EQ(summary.disk.parts().size(), 512u);
  // Of 2^40 clusters; the map looks at a TiB at a time.
  EXPECT_LT(log_.Records([](const Operation&) { return true; }).size(), 200000u);
}

TEST_F(SummaryOfImage, FailsWithoutTheBackingFile) {
  Make({.size = 4 * kC});
  image_.reset();
  ASSERT_OK(fake_.Remove(kBackingPath));
  EXPECT_FALSE(Summary(kC));
}

}  // namespace
}  // namespace addcow
