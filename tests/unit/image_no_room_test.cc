// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The engine on file systems that fill up: the write that needs more room than
// there is fails, never the flush that comes after writes which succeeded; and
// what a close could not write is counted.

#include "tests/support/engine_lines.h"

namespace addcow {
namespace {

class ImageNoRoom : public EngineLines {
 protected:
  // From now on the file gets no more than so many blocks beyond those it has.
  void Limit(const char* path, uint64_t more) {
    const uint64_t has = Inode(path).Info()->allocated_bytes / FakeInode::kBlockSize;
    Inode(path).SetAbilities({.most_blocks = has + more});
  }
};

// A disk of 8 GiB has four pages of bits. None has storage: there was no room.
TEST_F(ImageNoRoom, WriteThatNeedsAPageOfBitsFailsAndNotTheFlush) {
  Make({.size = 2 * kC, .backing_size = kC, .garbage = false});
  image_.reset();
  // Grown here: a reference of that size would be in memory.
  ASSERT_TRUE(Inode(kImagePath).Truncate(8 * kGiB));
  ASSERT_TRUE(Inode(kAddCowPath).Truncate(kBitmapOffset));
  ASSERT_TRUE(Inode(kAddCowPath).Truncate(kBitmapOffset + 4 * 4096));
  Limit(kAddCowPath, 1);
  Reopen();
  const auto write = [&](uint64_t offset) { return image_->Write(Repeat(7, kC), offset); };
  ASSERT_OK(write(0));
  EXPECT_TRUE(FailsWith(write(3 * kGiB), ENOSPC));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(7, 512), 3 * kGiB + 512), ENOSPC));
  EXPECT_TRUE(FailsWith(image_->Zero(3 * kGiB, kC, {.may_punch = false}), ENOSPC));
  EXPECT_TRUE(FailsWith(image_->CopyUp({3 * kGiB / kC, 1}), ENOSPC));
  ASSERT_OK(write(kC)) << "there is room for the bits of this one";
  ASSERT_OK(image_->Flush());
  ASSERT_OK(image_->Close());
  Reopen();
  EXPECT_EQ(Read(0, 2 * kC), Repeat(7, 2 * kC));
  EXPECT_EQ(Read(3 * kGiB, kC), Repeat(0, kC));
  Limit(kAddCowPath, 1);
  ASSERT_OK(write(3 * kGiB)) << "there is room again";
}

TEST_F(ImageNoRoom, EveryAcknowledgedWriteSurvivesAFullFileSystem) {
  for (const uint64_t length : {kC, uint64_t{4096}}) {
    Make({.size = 100 * kC, .backing_size = 100 * kC, .garbage = false});
    Limit(kImagePath, 40 * 16 + 5);
    Reopen();
    uint64_t written = 0;
    for (uint64_t cluster = 0; cluster < 100; cluster++) {
      const auto data = random_.Bytes(length);
      const Status done = image_->Write(data, cluster * kC);
      if (done) reference_->Write(data, cluster * kC);
      if (done) written++;
      if (!done) {
        EXPECT_TRUE(FailsWith(done, ENOSPC));
      }
    }
    EXPECT_EQ(written, length == kC ? 40u : 100u) << "writes of " << length;
    EXPECT_OK(image_->Flush());
    EXPECT_EQ(image_->unpublished_bytes(), 0u);
    EXPECT_OK(image_->Close());
    Reopen();
    ExpectAsReference();
  }
}

TEST_F(ImageNoRoom, WriteBeyondTheLimitOfFileSizesFailsAndNotTheFlush) {
  Make({});
  Inode(kImagePath).SetAbilities({.size_limit = kC + 8192});
  Reopen();
  Write(0, 4096);
  Write(kC, 8192);
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 4096), kC + 8192), EFBIG));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, kC), 2 * kC), EFBIG));
  ASSERT_OK(image_->Flush());
  Reopen();
  ExpectAsReference();
}

// Of the subcluster bitmap no page has storage before a write needs it.
TEST_F(ImageNoRoom, WriteThatNeedsAPageOfSubclusterBitsFailsAndNotTheFlush) {
  Make({.size = 2 * kC, .backing_size = kC, .garbage = false});
  image_.reset();
  ASSERT_TRUE(Inode(kImagePath).Truncate(2 * kGiB));
  Limit(kAddCowPath, 1);
  Reopen();
  const auto write = [&](uint64_t offset) { return image_->Write(Repeat(7, 4096), offset); };
  ASSERT_OK(write(4096));
  EXPECT_TRUE(FailsWith(write(kGiB), ENOSPC));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(7, 512), kGiB + 512), ENOSPC));
  EXPECT_TRUE(FailsWith(image_->Zero(kGiB, 8192, {.may_punch = false}), ENOSPC));
  ASSERT_OK(write(8192)) << "there is room for the bits of this one";
  ASSERT_OK(image_->Flush());
  ASSERT_OK(image_->Close());
  Reopen();
  EXPECT_EQ(Read(4096, 8192), Repeat(7, 8192));
  EXPECT_EQ(Read(kGiB, kC), Repeat(0, kC));
  Limit(kAddCowPath, 1);
  ASSERT_OK(write(kGiB)) << "there is room again";
}

// Then a small write copies the rest of its cluster up.
TEST_F(ImageNoRoom, WithoutRoomForAFileOfThatLengthThereAreNoSubclusters) {
  Make({});
  Inode(kAddCowPath).SetAbilities({.size_limit = kBitmapOffset + kBitmapPadding + 100});
  Reopen();
  Write(4096, 4096);
  EXPECT_TRUE(IsAllocated(0));
  ASSERT_OK(image_->Flush());
  EXPECT_FALSE(HasSubclustersOnDisk());
  ExpectAsReference();
}

TEST_F(ImageNoRoom, CopyUpKeepsWhatFindsRoom) {
  Make({.size = 100 * kC, .backing_size = 100 * kC, .garbage = false});
  Limit(kImagePath, 30 * 16);
  EXPECT_TRUE(FailsWith(image_->CopyUp({0, 100}), ENOSPC));
  EXPECT_EQ(image_->bitmap().allocated(), 30u);
  ASSERT_OK(image_->Flush());
  Reopen();
  EXPECT_EQ(image_->bitmap().allocated(), 30u);
  ExpectAsReference();
}

TEST_F(ImageNoRoom, CloseThatFailsSaysWhatIsLost) {
  Make({});
  Write(0, 2 * kC);
  Write(3 * kC, 512);
  EXPECT_EQ(image_->unpublished_bytes(), 2 * kC + 4096);
  faults_.Set(
      {.at = 1,
       .error = ENOSPC,
       .lasting = FaultPlan::Lasting::kPersistent,
       .where = [](const Operation& operation) { return operation.kind == OpKind::kWrite; }});
  EXPECT_TRUE(FailsWith(image_->Close(), ENOSPC));
  EXPECT_EQ(image_->unpublished_bytes(), 2 * kC + 4096);
}

TEST_F(ImageNoRoom, WhatAFailedSyncTookWithItCounts) {
  Make({});
  Write(0, 2 * kC);
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kSyncData;
               }});
  EXPECT_FALSE(image_->Close());
  EXPECT_EQ(image_->unpublished_bytes(), 2 * kC);
}

}  // namespace
}  // namespace addcow
