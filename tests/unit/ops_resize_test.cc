// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow resize in every form: what is new reads as zeroes, what was cut off does not come
// back, and the files are sound. What is refused is in ops_resize_refusals_test.cc; what
// failures and crashes leave in tests/fault and tests/crash.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/support/resize_fixture.h"

namespace addcow {
namespace {

class ResizeForms : public ResizeFixture, public testing::WithParamInterface<Form> {
 protected:
  uint64_t cluster() const { return GetParam().cluster_size; }

  // Ends inside a subcluster, and so inside a cluster; the backing file goes on.
  ImageSpec LongBacking() const {
    return InForm({.size = 3 * cluster() - cluster() / 2 - 100, .backing_size = 9 * cluster()},
                  GetParam());
  }
  // Some subclusters of the first cluster and of the last.
  static std::vector<uint64_t> SomeSubclusters(const ImageSpec& spec) {
    if (spec.cluster_size == kSubclusterSize) return {};
    return {1, (spec.size - 1) / kSubclusterSize};
  }
};

INSTANTIATE_TEST_SUITE_P(, ResizeForms,
                         testing::Values(kVersion1Form, k4kForm, k8kForm, k64kForm, k2MForm),
                         [](const testing::TestParamInfo<Form>& one) {
                           return std::string(one.param.name);
                         });

TEST_P(ResizeForms, WhatIsNewIsZeroOverALongerBackingFile) {
  for (const bool subclusters : {false, true}) {
    ImageSpec spec = LongBacking();
    if (subclusters) spec.subclusters = SomeSubclusters(spec);
    for (const uint64_t size :
         {spec.size + 1, spec.size + 100, 3 * cluster() - 1, 3 * cluster(), 7 * cluster() + 5,
          9 * cluster(), 11 * cluster() + kSubclusterSize}) {
      Make(spec);
      Resize(size);
      ExpectDisk();
    }
  }
}

// Then nothing has to be copied, nor to be allocated.
TEST_P(ResizeForms, PastTheBackingFileNothingIsAllocated) {
  ImageSpec spec = LongBacking();
  spec.backing_size = spec.size;
  Make(spec);
  Resize(9 * cluster() - 3);
  ExpectDisk();
  ASSERT_OK_AND_ASSIGN(const CheckReport report, CheckImage(fake_, kAddCowPath, Repair::kNone));
  EXPECT_EQ(report.allocated_clusters + report.partial_clusters, 0u);
}

TEST_P(ResizeForms, WithoutABackingFile) {
  ImageSpec spec = LongBacking();
  spec.backing_size.reset();
  Make(spec);
  Resize(9 * cluster() - 3);
  ExpectDisk();
  Resize(cluster() + 1);
  ExpectDisk();
}

TEST_P(ResizeForms, AllAllocatedStaysSo) {
  ImageSpec spec = LongBacking();
  spec.all_allocated = true;
  Make(spec);
  for (const uint64_t size : {9 * cluster() - 3, cluster() + 1, 4 * cluster()}) {
    Resize(size);
    EXPECT_TRUE(TestHeader(fake_).all_allocated);
    ExpectDisk();
  }
}

TEST_P(ResizeForms, WhatWasCutOffDoesNotComeBack) {
  for (const bool subclusters : {false, true}) {
    ImageSpec spec = LongBacking();
    spec.allocated = {0, 2};
    if (subclusters) spec.subclusters = {(cluster() + 100) / kSubclusterSize};
    if (cluster() == kSubclusterSize) spec.subclusters.clear();
    const uint64_t size = spec.size;
    for (const uint64_t cut : {size - 1, 2 * cluster() + 1, 2 * cluster(), cluster() + 1,
                               cluster() + 101, cluster() - 1, uint64_t{1}}) {
      Make(spec);
      Resize(cut);
      ExpectDisk();
      Resize(size);
      ExpectDisk();
    }
  }
}

// A bit that stays would be one of a larger disk, also of one that is made so by hand.
TEST_P(ResizeForms, NoBitIsLeftPastTheEnd) {
  ImageSpec spec = LongBacking();
  spec.allocated = {1, 2};
  Make(spec);
  Resize(cluster());
  ASSERT_TRUE(AddCow().Truncate(TestLayout(fake_).bitmap().padded_end()));
  const BitmapPlace place = TestLayout(fake_).bitmap();
  EXPECT_EQ(AddCow().Bytes(place.offset, place.padding), Repeat(0, place.padding));
}

TEST_P(ResizeForms, SizeThatItHasFinishesWhatAKilledOneLeft) {
  ImageSpec spec = LongBacking();
  Make(spec);
  ASSERT_TRUE(ImageFile().Truncate(cluster() + 5));
  disk_.resize(cluster() + 5);
  SetRawBit(fake_, TestLayout(fake_).bitmap(), 2);
  SetRawBit(fake_, TestLayout(fake_).bitmap(), 9);
  Resize(cluster() + 5);
  ExpectDisk();
  const auto before = fake_.Clone();
  Resize(cluster() + 5);
  EXPECT_EQ(fake_.DifferenceFrom(*before), "");
}

// Old bits past the end of the disk are none of the larger one's.
TEST_P(ResizeForms, StrayBitsAreNotTakenOver) {
  ImageSpec spec = LongBacking();
  spec.backing_size = spec.size;
  Make(spec);
  SetRawBit(fake_, TestLayout(fake_).bitmap(), 4);
  Resize(8 * cluster());
  ExpectDisk();
  ASSERT_OK_AND_ASSIGN(const CheckReport report, CheckImage(fake_, kAddCowPath, Repair::kNone));
  EXPECT_EQ(report.allocated_clusters, 0u);
}

TEST_P(ResizeForms, HolesTakeNoStorage) {
  ImageSpec spec = LongBacking();
  spec.garbage = false;
  spec.size = 2 * cluster();
  Make(spec);
  ASSERT_OK_AND_ASSIGN(const FileInfo before,
                       (*fake_.Open(kImagePath, OpenMode::kReadOnly))->Info());
  Resize(9 * cluster());
  ExpectDisk();
  ASSERT_OK_AND_ASSIGN(const FileInfo after,
                       (*fake_.Open(kImagePath, OpenMode::kReadOnly))->Info());
  EXPECT_EQ(after.allocated_bytes, before.allocated_bytes);
}

// What nobody has to change: names, identity, what is not known.
TEST_P(ResizeForms, TheHeaderStays) {
  Make(LongBacking());
  Header header = TestHeader(fake_);
  header.optional_features = uint64_t{1} << 40;
  header.no_subclusters = true;
  header.backing_identity = {.size = 9 * cluster(), .modified = FileTime{77, 5}};
  WriteTestHeader(fake_, header);
  Resize(7 * cluster());
  Resize(2 * cluster() + 9);
  EXPECT_EQ(TestHeader(fake_), header);
  ExpectDisk();
}

// Against a reference: any sizes, with requests in between, through the engine.
TEST_P(ResizeForms, RandomSequencesReadAsTheReference) {
  Random random(TestSeed());
  std::printf("# seed %llu\n", static_cast<unsigned long long>(TestSeed()));
  const uint64_t most = 6 * cluster();
  const int runs = cluster() > kC ? 3 : 12;
  for (int run = 0; run < runs; run++) {
    ImageSpec spec = InForm({.size = random.Between(1, most),
                             .backing_size = random.Between(1, most),
                             .seed = random.Next()},
                            GetParam());
    if (random.OneIn(5)) spec.backing_size.reset();
    if (random.OneIn(2) && cluster() > kSubclusterSize)
      SetUnits(spec, RandomUnits(spec.size, cluster() / kSubclusterSize, random));
    Make(spec);
    std::string done = fmt::format("{} over {}", spec.size, spec.backing_size.value_or(0));
    for (int step = 0; step < 16; step++) {
      if (random.OneIn(2)) {
        // Now and then where a boundary is.
        uint64_t size = random.Between(1, most);
        if (random.OneIn(3)) size = std::max(RoundDown(size, cluster()), cluster());
        if (random.OneIn(4)) size = RoundDown(size, kSubclusterSize) + 1;
        done += fmt::format(", resize {}", size);
        SCOPED_TRACE(done);
        Resize(size);
        ASSERT_FALSE(HasFailure());
        ExpectDisk();
        ASSERT_FALSE(HasFailure());
        continue;
      }
      ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(fake_));
      for (uint64_t i = random.Between(1, 3); i > 0; i--) {
        const uint64_t offset = random.Below(disk_.size());
        const uint64_t length =
            random.Between(1, std::min<uint64_t>(disk_.size() - offset, 9000));
        const auto part = std::span(disk_).subspan(offset, length);
        if (random.OneIn(4)) {
          ASSERT_OK(image->Zero(offset, length, {.may_punch = random.OneIn(2)}));
          std::ranges::fill(part, std::byte{0});
        } else {
          random.Fill(part);
          ASSERT_OK(image->Write(part, offset));
        }
        done += fmt::format(", {}+{}", offset, length);
      }
      ASSERT_OK(random.OneIn(3) ? image->Flush() : image->Close());
    }
    SCOPED_TRACE(done);
    ExpectDisk();
  }
}

// The place or the length of the second bitmap would be another one: with clusters of
// 8 KiB every 256 MiB. What it said is in the clusters' own bits then.
class ResizeFar : public ResizeFixture {
 protected:
  static constexpr uint64_t kFar = 256 * kMiB;

  static ImageSpec Far(uint64_t size) {
    return InForm({.size = size,
                   .backing_size = 4 * kMiB,
                   .garbage = false,
                   .subclusters = {1, 7, (size - 1) / kSubclusterSize}},
                  k8kForm);
  }

  // Of the whole disk that would take too long.
  static std::vector<std::byte> Pieces(FakeFileSystem& files, uint64_t offset) {
    std::vector<std::byte> bytes(5 * kMiB);
    const auto image = OpenTestImage(files, kDirectory, OpenMode::kReadOnly);
    EXPECT_OK(image);
    if (!image) return {};
    const uint64_t end = std::min((*image)->virtual_size(), offset + bytes.size());
    EXPECT_OK((*image)->Read(std::span(bytes).first(end - offset), offset));
    return bytes;
  }
};

TEST_F(ResizeFar, ClustersThatAreThereInPartAreCompletedFirst) {
  for (const auto& [from, to] : {std::pair{kFar - 10 * kMiB - 5, kFar + kMiB},
                                 std::pair{kFar + kMiB + 5, kFar - kMiB}}) {
    Make(Far(from));
    ASSERT_TRUE(TestHeader(fake_).subclusters);
    const auto first = Pieces(fake_, 0);
    const auto last = Pieces(fake_, std::min(from, to) - 4 * kMiB);
    ASSERT_OK_AND_ASSIGN(const ResizeResult result, ResizeTestImage(fake_, ResizeTo(to)));
    EXPECT_GT(result.copied, 8 * kKiB);
    EXPECT_FALSE(TestHeader(fake_).subclusters);
    EXPECT_EQ(Difference(Pieces(fake_, 0), first), "");
    auto expected = last;
    if (to < from) std::fill(expected.begin() + 4 * kMiB, expected.end(), std::byte{0});
    EXPECT_EQ(Difference(Pieces(fake_, std::min(from, to) - 4 * kMiB), expected), "");
    ASSERT_OK_AND_ASSIGN(const CheckReport report,
                         CheckImage(fake_, kAddCowPath, Repair::kNone));
    EXPECT_EQ(report.corruptions() + report.check_errors + report.stray_bits, 0u);
    EXPECT_EQ(AddCow().size(), TestLayout(fake_).bitmap().padded_end());
  }
}

TEST_F(ResizeFar, OtherwiseTheyStayAsTheyAre) {
  Make(Far(kFar - 10 * kMiB));
  const auto first = Pieces(fake_, 0);
  ASSERT_OK_AND_ASSIGN(const ResizeResult result, ResizeTestImage(fake_, ResizeTo(kFar)));
  EXPECT_EQ(result.copied, 0u);
  EXPECT_TRUE(TestHeader(fake_).subclusters);
  EXPECT_EQ(Difference(Pieces(fake_, 0), first), "");
  // What lies past the new end is no bit of anything any more.
  ASSERT_OK(ResizeTestImage(fake_, ResizeTo(kMiB)));
  ASSERT_OK_AND_ASSIGN(const CheckReport report, CheckImage(fake_, kAddCowPath, Repair::kNone));
  EXPECT_EQ(report.stray_bits, 0u);
  EXPECT_EQ(report.partial_clusters, 2u);
}

}  // namespace
}  // namespace addcow
