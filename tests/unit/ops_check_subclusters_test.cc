// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/ops: check of an image with subclusters, and both raw bitmaps. Whatever is
// found and repaired, what is read stays.

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "common/ops/raw_bitmap.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/operation_log.h"
#include "tests/support/random.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

TEST(RawBitmap, RunsAreThoseOfTheBits) {
  Random random(TestSeed());
  for (int round = 0; round < 200; round++) {
    const uint64_t bytes = 1 + random.Below(3 * 4096);
    const BitmapPlace place{kBitmapOffset + 4096 * random.Below(3), 8 * bytes};
    auto inode = std::make_shared<FakeInode>();
    ASSERT_TRUE(inode->Truncate(place.offset + bytes).has_value());
    FakeFile file("f", inode);
    std::vector<bool> bits(8 * bytes);
    for (uint64_t fill = random.Below(20); fill > 0; fill--) {
      const uint64_t first = random.Below(bits.size());
      const uint64_t count = random.Below(bits.size() - first + 1);
      const bool value = random.Below(3) != 0;
      ASSERT_OK(FillRawBits(file, place, {first, count}, value));
      for (uint64_t bit = first; bit < first + count; bit++) bits[bit] = value;
    }
    uint64_t position = 0;
    std::optional<bool> last;
    ASSERT_OK(VisitRawBits(file, place, [&](const ClusterRun& run) -> Status {
      EXPECT_EQ(run.range.first, position);
      EXPECT_NE(last, run.allocated);
      EXPECT_GT(run.range.count, 0u);
      for (; position < run.range.end() && position < bits.size(); position++)
        if (bits[position] != run.allocated) ADD_FAILURE() << "bit " << position;
      last = run.allocated;
      return {};
    }));
    EXPECT_EQ(position, bits.size());
    EXPECT_EQ(inode->size(), place.offset + bytes);
  }
}

TEST(RawBitmap, CanBeReadInAnyOrder) {
  const BitmapPlace place{kBitmapOffset, 8 * 4 * kMiB};
  auto inode = std::make_shared<FakeInode>();
  ASSERT_TRUE(inode->Truncate(place.offset + place.bytes()));
  FakeFile file("f", inode);
  ASSERT_OK(FillRawBits(file, place, {5, 2}, true));
  ASSERT_OK(FillRawBits(file, place, {8 * 3 * kMiB + 9, 1}, true));
  RawBitmap bitmap(file, place);
  for (int round = 0; round < 2; round++) {
    ASSERT_OK_AND_ASSIGN(const ClusterRun late, bitmap.RunAt({8 * 3 * kMiB + 9, 9}));
    EXPECT_TRUE(late.allocated && late.range.count == 1);
    ASSERT_OK_AND_ASSIGN(const ClusterRun early, bitmap.RunAt({5, 9}));
    EXPECT_TRUE(early.allocated && early.range.count == 2);
    ASSERT_OK_AND_ASSIGN(const ClusterRun hole, bitmap.RunAt({7, place.bits - 7}));
    EXPECT_TRUE(!hole.allocated && hole.range.end() == 8 * 3 * kMiB + 9);
  }
}

class CheckSubclusters : public testing::Test {
 protected:
  CheckSubclusters() { fake_.MakeDirectory(kDirectory); }

  // In place of the files of an earlier Make.
  void Make(const ImageSpec& spec, const std::vector<uint64_t>& subclusters) {
    for (const char* path : {kAddCowPath, kImagePath, kBackingPath}) (void)fake_.Remove(path);
    auto disk = MakeTestImage(fake_, kDirectory, spec);
    ASSERT_OK(disk);
    disk_ = std::move(*disk);
    AddSubclusters(fake_, subclusters, &disk_);
  }
  CheckReport Check(Repair repair = Repair::kNone, bool force = false) {
    log_.Clear();
    auto report = CheckImage(seam_, kAddCowPath, repair, {}, force);
    EXPECT_OK(report);
    return report ? *report : CheckReport();
  }
  void Data(uint64_t offset, uint64_t length) {
    ASSERT_TRUE(fake_.Find(kImagePath)->Write(Repeat(1, length), offset).has_value());
  }
  BitmapPlace Place() const { return TestLayout(fake_).subcluster_bitmap(); }
  void ExpectDiskUnchanged() {
    auto image = OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly);
    ASSERT_OK(image);
    EXPECT_EQ(Difference(ReadAll(**image), disk_), "");
  }
  static void ExpectLeaks(const CheckReport& report, uint64_t clusters, uint64_t subclusters) {
    EXPECT_EQ(report.check_errors, 0u);
    EXPECT_EQ(report.corruptions(), 0u);
    EXPECT_EQ(report.leaked_clusters, clusters);
    EXPECT_EQ(report.leaked_subclusters, subclusters);
  }

  FakeFileSystem fake_;
  OperationLog log_;
  ForwardingFileSystem seam_{fake_, log_};
  std::vector<std::byte> disk_;
};

TEST_F(CheckSubclusters, WhatIsInTheImageFileIsNoLeak) {
  Make({.size = 10 * kC, .garbage = false, .allocated = {2}}, {0, 15, 16, 17, 159});
  for (const uint64_t subcluster : {0u, 15u, 16u, 17u, 159u}) Data(subcluster * kS, kS);
  const CheckReport report = Check();
  ExpectLeaks(report, 0, 0);
  EXPECT_EQ(report.stray_bits, 0u);
  EXPECT_EQ(report.total_clusters, 10u);
  EXPECT_EQ(report.allocated_clusters, 1u);
  EXPECT_EQ(report.partial_clusters, 3u);
  EXPECT_EQ(log_.Changes(), std::vector<std::string>{});
}

TEST_F(CheckSubclusters, DataUnderTheZeroBitOfASubclusterIsALeak) {
  Make({.size = 10 * kC, .garbage = false, .allocated = {2}}, {1, 30});
  Data(0, 3 * kS);                // 0 and 2 leak, 1 does not
  Data(3 * kC - 1, kC + 2);       // the end of what is allocated, cluster 3, and a byte
  Data(9 * kC + 15 * kS + 7, 1);  // the last subcluster
  ExpectLeaks(Check(), 4, 2 + 16 + 1 + 1);
}

TEST_F(CheckSubclusters, OnlyWhatLeaksIsGivenBack) {
  // Full of old bytes.
  Make({.size = 4 * kC + kS + 1, .backing_size = 4 * kC, .allocated = {1}}, {0, 2, 40, 65});
  const CheckReport report = Check(Repair::kLeaks);
  ExpectLeaks(report, 0, 0);
  EXPECT_EQ(report.fixed_leaks, 4u);
  // Each run of subclusters without a bit, once; to the end of the last one's storage.
  EXPECT_EQ(log_.Changes(),
            (std::vector<std::string>{
                "punch hole /vm/disk.raw 4096+4096", "punch hole /vm/disk.raw 12288+53248",
                "punch hole /vm/disk.raw 131072+32768", "punch hole /vm/disk.raw 167936+98304",
                "sync data /vm/disk.raw", "sync data /vm/x.add-cow"}));
  EXPECT_EQ(fake_.Find(kImagePath)->Info()->allocated_bytes, kC + 4 * kS);
  EXPECT_EQ(fake_.Find(kImagePath)->size(), 4 * kC + kS + 1);
  ExpectDiskUnchanged();
}

TEST_F(CheckSubclusters, TheLastPartialSubclusterIsGivenBackWhole) {
  Make({.size = kC + kS + 1, .allocated = {0}}, {16});
  ExpectLeaks(Check(), 1, 1);
  EXPECT_EQ(Check(Repair::kLeaks).fixed_leaks, 1u);
  EXPECT_EQ(fake_.Find(kImagePath)->Info()->allocated_bytes, kC + kS);
  ExpectDiskUnchanged();
}

TEST_F(CheckSubclusters, LeaksAreZeroedWhereThereAreNoHoles) {
  for (const bool zero_range : {true, false}) {
    Make({.size = 3 * kC + 1, .allocated = {1}}, {3, 47});
    fake_.Find(kImagePath)
        ->SetAbilities({.punch_hole = false, .zero_range = zero_range, .seek = false});
    ExpectLeaks(Check(), 3, 15 + 15 + 1);
    const CheckReport report = Check(Repair::kLeaks);
    ExpectLeaks(report, 0, 0);
    EXPECT_EQ(report.fixed_leaks, 3u);
    ExpectDiskUnchanged();
  }
}

// Without the feature as before, by clusters.
TEST_F(CheckSubclusters, WithoutTheFeatureLeaksGoByClusters) {
  Make({.size = 4 * kC, .garbage = false, .allocated = {2}}, {});
  Header header = TestHeader(fake_);
  header.subclusters = false;
  WriteTestHeader(fake_, header);
  Data(kS, 1);
  const CheckReport report = Check(Repair::kLeaks);
  EXPECT_EQ(report.fixed_leaks, 1u);
  EXPECT_EQ(log_.Changes()[0], "punch hole /vm/disk.raw 0+65536");
  ExpectLeaks(report, 0, 0);
}

TEST_F(CheckSubclusters, ALongLeakIsGivenBackInParts) {
  Make({.size = 600 * kC, .garbage = false, .allocated = {2}}, {10 * 16});
  Data(11 * kC, 500 * kC);
  ExpectLeaks(Check(), 500, 8000);
  EXPECT_EQ(Check(Repair::kLeaks).fixed_leaks, 500u);
  EXPECT_EQ(log_.Count(OpKind::kPunchHole), 2u);
  ExpectLeaks(Check(), 0, 0);
}

TEST_F(CheckSubclusters, BitsInAnAllocatedClusterAreIgnored) {
  Make({.size = 3 * kC, .garbage = false, .allocated = {1}}, {16, 20, 31});
  const CheckReport report = Check(Repair::kAll);
  ExpectLeaks(report, 0, 0);
  EXPECT_EQ(report.partial_clusters, 0u);
  EXPECT_EQ(report.stray_bits + report.fixed_bits, 0u);
  EXPECT_EQ(fake_.Find(kAddCowPath)->Bytes(Place().offset + 2, 2),
            (std::vector{std::byte{0x11}, std::byte{0x80}}));
}

TEST_F(CheckSubclusters, WithAllAllocatedTheirBitmapDoesNotCount) {
  Make({.size = 3 * kC, .all_allocated = true}, {});
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(Repeat(0xff, 100), Place().offset));
  const CheckReport report = Check();
  ExpectLeaks(report, 0, 0);
  EXPECT_EQ(report.stray_bits, 0u);
  EXPECT_EQ(report.allocated_clusters, 3u);
  EXPECT_EQ(report.partial_clusters, 0u);
}

TEST_F(CheckSubclusters, StrayBitsOfBothBitmapsAreClearedByRepairAll) {
  Make({.size = 9 * kC - 1, .garbage = false, .allocated = {8}}, {3});
  Data(3 * kS, kS);
  disk_ = ReadAll(**OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly));
  const Layout layout = TestLayout(fake_);
  SetRawBit(fake_, layout.bitmap(), 9);
  SetRawBit(fake_, layout.bitmap(), 8 * kBitmapPadding - 1);
  SetRawBit(fake_, Place(), 9 * 16);
  SetRawBit(fake_, Place(), 8 * kBitmapPadding - 1);
  const CheckReport found = Check();
  ExpectLeaks(found, 0, 0);
  EXPECT_EQ(found.stray_bits, 4u);
  EXPECT_EQ(Check(Repair::kLeaks).stray_bits, 4u);
  const CheckReport report = Check(Repair::kAll);
  EXPECT_EQ(report.stray_bits, 0u);
  EXPECT_EQ(report.allocated_clusters, 1u);
  EXPECT_EQ(report.partial_clusters, 1u);
  ExpectDiskUnchanged();
}

// The first bitmap ends where the second begins.
TEST_F(CheckSubclusters, SubclustersBitsAreNoStrayBitsOfTheClusters) {
  Make({.size = 2 * kC, .garbage = false}, {0, 1, 2, 3, 31});
  EXPECT_EQ(Check(Repair::kAll).stray_bits, 0u);
  EXPECT_EQ(fake_.Find(kAddCowPath)->Bytes(Place().offset, 4),
            (std::vector{std::byte{0x0f}, std::byte{0}, std::byte{0}, std::byte{0x80}}));
}

TEST_F(CheckSubclusters, ABitmapThatIsTooShortIsOneCorruption) {
  Make({.size = 9 * kC}, {});
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(Place().offset + 17));
  const CheckReport report = Check();
  EXPECT_EQ(report.corruptions(), 1u);
  EXPECT_EQ(report.check_errors, 0u);
  ASSERT_TRUE(report.error);
  EXPECT_NE(report.error->Message().find("subcluster bitmap"), std::string::npos);
}

// A disk of which only a little was written is somebody's too.
TEST_F(CheckSubclusters, ASubclustersBitShowsThatTheDataIsOwn) {
  Make({.size = 3 * kC}, {});
  EXPECT_TRUE(FailsSaying(CheckImage(fake_, kAddCowPath, Repair::kLeaks),
                          "holds data in 3 clusters, though none is allocated"));
  Make({.size = 3 * kC}, {5});
  EXPECT_EQ(Check(Repair::kLeaks).fixed_leaks, 3u);
  ExpectDiskUnchanged();
}

TEST_F(CheckSubclusters, ARepairCanBeInterruptedAnywhere) {
  for (uint64_t at = 1;; at++) {
    Make({.size = 20 * kC + 7, .allocated = {0, 3, 4, 20}}, {17, 19, 100, 250});
    uint64_t looks = 0;
    const auto report = CheckImage(fake_, ImageSource{.add_cow_path = kAddCowPath},
                                   Repair::kAll, [&] { return ++looks >= at; });
    ASSERT_OK(report);
    EXPECT_EQ(report->leaked_subclusters, 0u);
    ExpectDiskUnchanged();
    if (!report->interrupted) {
      EXPECT_GT(at, 5u);
      break;
    }
    ExpectLeaks(Check(Repair::kAll), 0, 0);
    ExpectDiskUnchanged();
  }
}

// Against bit by bit, with random bits in both bitmaps.
TEST_F(CheckSubclusters, CountsAreThoseOfTheBits) {
  Random random(TestSeed());
  for (int round = 0; round < 100; round++) {
    const uint64_t size = 1 + random.Below(300 * kC);
    const Layout layout(size, Geometry{});
    const RawPlaces places = {
        {kBitmapOffset, layout.clusters() + 20},
        {kBitmapOffset + kBitmapPadding, layout.subcluster_bitmap().bits + random.Below(200)}};
    auto inode = std::make_shared<FakeInode>();
    ASSERT_TRUE(inode->Truncate(kBitmapOffset + 2 * kBitmapPadding));
    FakeFile file("f", inode);
    std::vector<bool> clusters(places.clusters.bits);
    std::vector<bool> subclusters(places.subclusters.bits);
    for (uint64_t fill = random.Below(30); fill > 0; fill--) {
      const bool first = random.Below(3) == 0;
      auto& bits = first ? clusters : subclusters;
      const uint64_t from = random.Below(bits.size());
      const uint64_t count = 1 + random.Below(std::min<uint64_t>(40, bits.size() - from));
      const bool value = random.Below(4) != 0;
      ASSERT_OK(FillRawBits(file, first ? places.clusters : places.subclusters, {from, count},
                            value));
      for (uint64_t bit = from; bit < from + count; bit++) bits[bit] = value;
    }
    BitCounts inside;
    BitCounts past;
    std::vector<bool> partial_inside(clusters.size());
    std::vector<bool> partial_past(clusters.size());
    for (uint64_t bit = 0; bit < clusters.size(); bit++)
      (bit < layout.clusters() ? inside : past).allocated_clusters += clusters[bit];
    for (uint64_t bit = 0; bit < subclusters.size(); bit++) {
      if (!subclusters[bit] || clusters[bit / 16]) continue;
      const bool is_inside = bit < layout.subcluster_bitmap().bits;
      (is_inside ? inside : past).subclusters++;
      (is_inside ? partial_inside : partial_past)[bit / 16] = true;
    }
    inside.partial_clusters = static_cast<uint64_t>(std::ranges::count(partial_inside, true));
    past.partial_clusters = static_cast<uint64_t>(std::ranges::count(partial_past, true));
    const auto expect = [&](const BitCounts& found, const BitCounts& want) {
      EXPECT_EQ(found.allocated_clusters, want.allocated_clusters);
      EXPECT_EQ(found.partial_clusters, want.partial_clusters);
      EXPECT_EQ(found.subclusters, want.subclusters);
    };
    ASSERT_OK_AND_ASSIGN(const BitCounts in, CountRawBits(file, places, layout));
    expect(in, inside);
    ASSERT_OK_AND_ASSIGN(const BitCounts out, CountStrayBits(file, places, layout));
    expect(out, past);
    ASSERT_OK_AND_ASSIGN(const bool any, AnyRawBit(file, places));
    EXPECT_EQ(any,
              std::ranges::count(clusters, true) + std::ranges::count(subclusters, true) > 0);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

}  // namespace
}  // namespace addcow
