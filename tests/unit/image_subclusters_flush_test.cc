// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: what a flush, a FUA write and a clean stop make of subclusters;
// when the file gets SUBCLUSTERS, and when it is one of version 1 again.

#include <gtest/gtest.h>

#include "tests/support/engine_lines.h"

namespace addcow {
namespace {

class ImageSubclustersFlush : public EngineLines {
 protected:
  static constexpr const char* kWriteFeatures = "write /vm/x.add-cow 28+16";
  static constexpr const char* kWriteSubclusters = "write /vm/x.add-cow 69632+8";
  static constexpr uint64_t kPlainSize = kBitmapOffset + kBitmapPadding;

  // A file that has them, durably, and a partial cluster.
  void MakePartial(const ImageSpec& spec = {}) {
    Make(spec);
    Write(3 * kC, kS);
    Flush();
    log_.Clear();
  }
  bool HasFeature() const { return HasSubclustersOnDisk(); }
};

TEST_F(ImageSubclustersFlush, GrowthAndFeatureAreDurableBeforeTheFirstBit) {
  Make({});
  Write(kS, kS);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kSyncAddCow, kWriteFeatures, kSyncAddCow,
                            kWriteSubclusters, kSyncAddCow}));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageSubclustersFlush, LaterBitsAreWrittenAndSynced) {
  MakePartial();
  Write(kS, kS);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteSubclusters, kSyncAddCow}));
}

TEST_F(ImageSubclustersFlush, BitsOfBothLevelsGoTogether) {
  MakePartial();
  Write(kS, kS);
  Write(kC, kC);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteSubclusters, kWriteBits, kSyncAddCow}));
}

TEST_F(ImageSubclustersFlush, WholeClustersNeedNone) {
  Make({});
  Write(0, 2 * kC);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
  EXPECT_FALSE(HasFeature());
  EXPECT_EQ(Inode(kAddCowPath).Size(), kPlainSize);
}

TEST_F(ImageSubclustersFlush, NothingReadsTheBackingFile) {
  MakePartial();
  Write(kS, kS);
  Write(2 * kC - kS, random_.Bytes(2 * kS), Fua::kYes);
  Zero(5 * kS, kS);
  ASSERT_OK(image_->FlushNewBits());
  Write(7 * kS, kS);
  ASSERT_OK(image_->Close());
  EXPECT_EQ(BackingReads(), 0u);
}

TEST_F(ImageSubclustersFlush, FuaWriteIsDurableWhenItReturns) {
  MakePartial();
  Write(kS, random_.Bytes(kS), Fua::kYes);
  EXPECT_TRUE(OnDisk(kS));
}

TEST_F(ImageSubclustersFlush, FuaWriteOverDurableOnesIsOneWrite) {
  MakePartial();
  Write(3 * kC + 512, random_.Bytes(1024), Fua::kYes);
  EXPECT_EQ(Done(), Lines{"write durably /vm/disk.raw 197120+1024"});
}

TEST_F(ImageSubclustersFlush, FuaWriteOverOnesOfBothLevelsIsOneWrite) {
  MakePartial({.allocated = {2}});
  Write(3 * kC - 512, random_.Bytes(1024), Fua::kYes);
  EXPECT_EQ(Done(), Lines{"write durably /vm/disk.raw 196096+1024"});
}

TEST_F(ImageSubclustersFlush, FuaWriteBesideAPendingOneFlushes) {
  MakePartial();
  Write(3 * kC + kS, kS);
  Write(3 * kC + 512, random_.Bytes(kS), Fua::kYes);
  EXPECT_EQ(Done().back(), kSyncAddCow);
  EXPECT_TRUE(OnDisk(3 * kC + kS));
}

// They may come from a process that was killed before it synced them.
TEST_F(ImageSubclustersFlush, FirstFlushSyncsThoseThatWereFound) {
  Make({.subclusters = {1}});
  Write(kS, 10);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kSyncAddCow}));
}

TEST_F(ImageSubclustersFlush, CloseLeavesAFileOfVersion1WhereNoClusterIsPartial) {
  MakePartial();
  Write(3 * kC + kS, kC - kS);
  ASSERT_OK(image_->Close());
  EXPECT_FALSE(HasFeature());
  EXPECT_TRUE(ClusterBitOnDisk(3));
  EXPECT_EQ(Inode(kAddCowPath).Size(), kPlainSize);
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageSubclustersFlush, CloseDropsThemWithoutAWrite) {
  Make({.allocated = {1}, .subclusters = {16, 17}});
  Write(kC, 10);
  ASSERT_OK(image_->Close());
  EXPECT_FALSE(HasFeature());
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageSubclustersFlush, BitsAreClearedDurablyBeforeTheFeature) {
  MakePartial();
  Write(3 * kC + kS, kC - kS);
  Flush();
  log_.Clear();
  ASSERT_OK(image_->Close());
  const Lines done = log_.Changes();
  ASSERT_EQ(done.size(), 5u);
  EXPECT_EQ(done[0], kWriteSubclusters);
  EXPECT_EQ(done[1], kSyncAddCow);
  EXPECT_EQ(done[2], kWriteFeatures);
  EXPECT_EQ(done[3], kSyncAddCow);
  EXPECT_EQ(done[4], "truncate /vm/x.add-cow 69632");
}

TEST_F(ImageSubclustersFlush, CloseKeepsThemForAPartialCluster) {
  MakePartial();
  Write(kS, kS);
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(HasFeature());
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageSubclustersFlush, CloseOfAServerThatWroteNothingWritesNothing) {
  Make({.allocated = {1}, .subclusters = {16, 40}});
  ASSERT_OK(image_->Close());
  EXPECT_EQ(log_.Changes(), Lines{});
}

// It was killed, say, before it could drop them. What it left need not be durable.
TEST_F(ImageSubclustersFlush, CloseDropsWhatAnotherServerLeft) {
  Make({.allocated = {1}, .subclusters = {16, 20}});
  ASSERT_OK(image_->Close());
  EXPECT_FALSE(HasFeature());
  const Lines done = log_.Changes();
  ASSERT_GE(done.size(), 2u);
  EXPECT_EQ(done[0], kSyncImage);
  EXPECT_EQ(done[1], kSyncAddCow);
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageSubclustersFlush, CloseOfAReaderWritesNothing) {
  Make({.allocated = {1}, .subclusters = {16}});
  Reopen(OpenMode::kReadOnly);
  ASSERT_OK(image_->Close());
  EXPECT_EQ(log_.Changes(), Lines{});
}

TEST_F(ImageSubclustersFlush, CloseKeepsAllAllocated) {
  Make({.all_allocated = true, .subclusters = {3}});
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(FlagOnDisk());
  EXPECT_FALSE(HasFeature());
}

TEST_F(ImageSubclustersFlush, FileThatLostThemIsNotMadeLongerAgain) {
  MakePartial();
  ASSERT_TRUE(Inode(kAddCowPath).Truncate(kPlainSize));
  Write(kC, kS);
  EXPECT_TRUE(FailsSaying(image_->Flush(), "was truncated"));
  EXPECT_FALSE(image_->writable());
}

TEST_F(ImageSubclustersFlush, AllAllocatedEndsThemInOneStep) {
  MakePartial();
  ASSERT_OK(image_->CopyUp({0, 4}));
  Flush();
  EXPECT_TRUE(FlagOnDisk());
  EXPECT_FALSE(HasFeature());
  EXPECT_EQ(Inode(kAddCowPath).Size(), kPlainSize);
  ASSERT_TRUE(fake_.Remove(kBackingPath));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageSubclustersFlush, TheyCanComeAgain) {
  MakePartial();
  Write(3 * kC + kS, kC - kS);
  ASSERT_OK(image_->Close());
  Reopen();
  Write(kC + 2 * kS, kS);
  ExpectAsReference();
  Flush();
  EXPECT_TRUE(HasFeature());
  Reopen();
  ExpectAsReference();
}

// What of them could not be made durable is so with a later flush.
TEST_F(ImageSubclustersFlush, AnyStepThatFailsIsDoneByALaterFlush) {
  for (uint64_t nth = 1; nth <= 2; nth++) {
    Make({});
    Write(kS, kS);
    faults_.Set({.at = nth, .error = ENOSPC, .where = [](const Operation& operation) {
                   return operation.kind == OpKind::kWrite && operation.path == kAddCowPath;
                 }});
    EXPECT_TRUE(FailsWith(image_->Flush(), ENOSPC));
    EXPECT_FALSE(OnDisk(kS));
    ASSERT_OK(image_->Flush());
    EXPECT_TRUE(OnDisk(kS));
    Reopen();
    ExpectAsReference();
  }
}

TEST_F(ImageSubclustersFlush, GrowthThatFailsFailsTheWriteAndNotTheFlush) {
  Make({});
  faults_.Set({.at = 1, .error = ENOSPC, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kTruncate;
               }});
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, kS), kS), ENOSPC));
  ASSERT_OK(image_->Flush());
  ExpectAsReference();
  Write(kS, kS);
  ASSERT_OK(image_->Flush());
  ExpectAsReference();
}

TEST_F(ImageSubclustersFlush, CountsWhatIsNotPublished) {
  MakePartial();
  Write(kS, kS);
  Write(kC, kC);
  EXPECT_EQ(image_->unpublished_bytes(), kS + kC);
  Flush();
  EXPECT_EQ(image_->unpublished_bytes(), 0u);
}

}  // namespace
}  // namespace addcow
