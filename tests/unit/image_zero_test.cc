// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: zero and trim. Both make the range read as zeroes; what
// differs is which clusters become allocated and what storage is kept.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

// The backing file has data in cluster 0, a hole in cluster 1, ends in
// cluster 2. Cluster 4 is allocated.
class ImageZero : public BothGrains {
 protected:
  ImageZero() {
    Make({.size = 6 * kClusterSize,
          .backing_size = 2 * kClusterSize + 1000,
          .backing_data = {{{0, kClusterSize}, {2 * kClusterSize, 1000}}},
          .allocated = {4},
          .seed = TestSeed()});
  }

  static constexpr uint64_t kData = 0;
  static constexpr uint64_t kHole = kClusterSize;
  static constexpr uint64_t kBackingEnd = 2 * kClusterSize;
  static constexpr uint64_t kPastBacking = 3 * kClusterSize;
  static constexpr uint64_t kAllocated = 4 * kClusterSize;

  std::vector<Extent> Map(uint64_t offset, uint64_t length) {
    std::vector<Extent> extents;
    EXPECT_OK(image_->Map(offset, length, [&](const Extent& extent) {
      extents.push_back(extent);
      return true;
    }));
    return extents;
  }
};
INSTANTIATE_TEST_SUITE_P(, ImageZero, testing::Bool(), GrainName);

TEST_P(ImageZero, TrimOfBackingDataReadsZeroAndBecomesAHole) {
  Zero(kData, kClusterSize);
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_TRUE(IsHole(kImagePath, kData, kClusterSize));
  EXPECT_EQ(Map(kData, kClusterSize),
            (std::vector<Extent>{{kData, kClusterSize, Extent::Source::kImage, false}}));
  ExpectAsReference();
}

TEST_P(ImageZero, TrimOfABackingHoleLeavesTheClusterUnallocated) {
  Zero(kHole, kClusterSize);
  EXPECT_FALSE(IsAllocated(1));
  ExpectAsReference();
}

TEST_P(ImageZero, TrimPastTheBackingFileLeavesTheClusterUnallocated) {
  Zero(kPastBacking, kClusterSize);
  EXPECT_FALSE(IsAllocated(3));
  ExpectAsReference();
}

TEST_P(ImageZero, TrimOfWhatIsZeroAlreadyWritesNothing) {
  Zero(kHole, kClusterSize);
  Zero(kPastBacking + 100, 1000);
  EXPECT_EQ(log_.Changes(), std::vector<std::string>{});
}

TEST_P(ImageZero, TrimOfPartOfAClusterKeepsTheRest) {
  Zero(kData + 100, 1000);
  EXPECT_EQ(Map(kData + 100, 1000).front().source, Extent::Source::kImage);
  EXPECT_EQ(IsAllocated(0), !GetParam());
  ExpectAsReference();
}

TEST_P(ImageZero, TrimWhereTheBackingFileEnds) {
  Zero(kBackingEnd + 500, 5000);
  EXPECT_EQ(Map(kBackingEnd + 500, 1).front().source, Extent::Source::kImage);
  EXPECT_EQ(IsAllocated(2), !GetParam());
  ExpectAsReference();
}

// The backing file has several pieces of data in one cluster. The copy-up of
// one piece must not bring back another one that is zeroed already.
TEST_P(ImageZero, TrimOverManyPiecesOfBackingDataInOneCluster) {
  std::vector<ByteRange> pieces;
  for (uint64_t at = 0; at < 2 * kClusterSize; at += 12288) pieces.push_back({at, 4096});
  for (const auto& [offset, length] :
       {ByteRange{0, 2 * kClusterSize}, ByteRange{0, kClusterSize}, ByteRange{5000, 40000},
        ByteRange{30000, 90000}, ByteRange{1, 65536}}) {
    Make({.size = 2 * kClusterSize, .backing_size = 2 * kClusterSize, .backing_data = pieces});
    Zero(offset, length);
    ExpectAsReference();
  }
}

TEST_P(ImageZero, TrimJustPastTheBackingFilesEndLeavesTheClusterUnallocated) {
  Zero(kBackingEnd + 4096, 5000);
  EXPECT_FALSE(IsAllocated(2));
  ExpectAsReference();
}

TEST_P(ImageZero, TrimOfAnAllocatedClusterPunches) {
  Zero(kAllocated, kClusterSize);
  EXPECT_TRUE(IsAllocated(4));
  EXPECT_TRUE(IsHole(kImagePath, kAllocated, kClusterSize));
  ExpectAsReference();
}

TEST_P(ImageZero, TrimOverEverythingAllocatesOnlyWhatTheBackingFileFills) {
  Zero(0, 6 * kClusterSize);
  EXPECT_EQ(image_->bitmap().allocated(), GetParam() ? 2u : 3u);
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_EQ(Map(kBackingEnd, 1000).front().source, Extent::Source::kImage);
  ExpectAsReference();
}

TEST_P(ImageZero, WithoutPunchingEveryClusterBecomesAllocated) {
  Zero(0, 6 * kClusterSize, {.may_punch = false});
  EXPECT_TRUE(image_->bitmap().all());
  ExpectAsReference();
}

TEST_P(ImageZero, WithoutPunchingStorageIsKept) {
  Zero(kHole, kClusterSize, {.may_punch = false});
  EXPECT_EQ(log_.Count(OpKind::kPunchHole), 0u);
  EXPECT_EQ(log_.Count(OpKind::kZeroRange), 1u);
  ASSERT_TRUE(IsAllocated(1));
  EXPECT_EQ(Inode(kImagePath).Info()->allocated_bytes, 6 * kClusterSize);
}

TEST_P(ImageZero, ZeroedClusterCanBeWrittenAgain) {
  Zero(0, 6 * kClusterSize);
  Write(kData + 3, 100);
  Write(kHole + 3, 100);
  Write(kPastBacking + 3, 100);
  ExpectAsReference();
}

TEST_P(ImageZero, OldBytesOfTheImageFileNeverShowInATrimmedCluster) {
  // Without punching and zeroing, the ladder ends in written zeroes.
  Inode(kImagePath).SetAbilities({.punch_hole = false, .zero_range = false});
  Zero(kData + 5, 100);
  Zero(kBackingEnd + 5, 100);
  ExpectAsReference();
  Inode(kImagePath).SetAbilities({.punch_hole = false, .zero_range = false, .seek = false});
  Zero(kHole + 5, 100, {.may_punch = false});
  Write(kPastBacking + 5, 100);
  ExpectAsReference();
}

TEST_P(ImageZero, FastZeroFailsWhereItWouldWrite) {
  Inode(kImagePath).SetAbilities({.punch_hole = false, .zero_range = false});
  EXPECT_TRUE(FailsWith(image_->Zero(kAllocated, 10, {.fast_only = true}), EOPNOTSUPP));
  EXPECT_TRUE(FailsWith(image_->Zero(kData, 10, {.fast_only = true}), EOPNOTSUPP));
  EXPECT_FALSE(IsAllocated(0));
  ExpectAsReference();
}

TEST_P(ImageZero, FastZeroSucceedsWhereItIsFast) {
  Zero(kAllocated, kClusterSize, {.fast_only = true});
  Zero(kData, kClusterSize, {.fast_only = true});
  ExpectAsReference();
}

TEST_P(ImageZero, FileIsZeroedBeforeTheBitIsSet) {
  bool allocated_too_early = false;
  Gate::Stop stop = gate_.ParkBefore([&](const Operation& operation) {
    if (operation.path == kImagePath && IsChange(operation.kind) && IsAllocated(0))
      allocated_too_early = true;
    return false;
  });
  Zero(kData, kClusterSize);
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_FALSE(allocated_too_early);
}

TEST_P(ImageZero, FailedZeroAllocatesNothing) {
  for (const bool may_punch : {true, false}) {
    for (uint64_t at = 1;; at++) {
      faults_.Set({.at = at, .error = EIO, .where = [](const Operation& operation) {
                     // Where a clone fails, the bytes are copied.
                     return ChangesOrSyncs(operation) && operation.kind != OpKind::kClone;
                   }});
      const Status zeroed = image_->Zero(kData + 10, 1000, {.may_punch = may_punch});
      if (!faults_.fired()) break;
      EXPECT_TRUE(FailsWith(zeroed, EIO)) << faults_.hit();
      EXPECT_FALSE(IsAllocated(0)) << faults_.hit();
      faults_.Clear();
      ExpectAsReference();
    }
    faults_.Clear();
    Make({});
  }
}

}  // namespace
}  // namespace addcow
