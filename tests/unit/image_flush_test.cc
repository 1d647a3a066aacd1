// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: flush, FUA, close, ALL_ALLOCATED and read-only mode; the order
// of what they do, and what becomes of failures. What a crash leaves is in
// tests/crash.

#include <gtest/gtest.h>

#include <new>
#include <set>
#include <string>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

using Lines = std::vector<std::string>;

// Without subclusters: what they add to a flush is in image_subclusters_flush_test.cc.
class ImageFlush : public ImageFixture {
 protected:
  ImageFlush() : ImageFixture(false) {}

  static constexpr const char* kSyncImage = "sync data /vm/disk.raw";
  static constexpr const char* kSyncAddCow = "sync data /vm/x.add-cow";
  static constexpr const char* kWriteBits = "write /vm/x.add-cow 4096+1";
  static constexpr const char* kWriteFlag = "write /vm/x.add-cow 28+16";

  // What a flush does, from a fresh log.
  Lines Flush() {
    log_.Clear();
    EXPECT_OK(image_->Flush());
    return log_.Changes();
  }
  static FaultPlan::Fault At(uint64_t at, int error, OpKind kind, const std::string& path) {
    return {.at = at, .error = error, .where = [=](const Operation& operation) {
              return operation.kind == kind && operation.path == path;
            }};
  }
};

TEST_F(ImageFlush, SyncsTheImageFileBeforeWritingBitsAndTheAddCowFileAfter) {
  Make({});
  Write(0, 10);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
}

TEST_F(ImageFlush, WithoutNewBitsSyncsOnlyTheImageFile) {
  Make({.allocated = {0}});
  Flush();
  Write(0, 10);
  EXPECT_EQ(Flush(), Lines{kSyncImage});
}

// They may come from a process that was killed before it synced them. Were a
// crash to take such a bit away, it would take a flushed write with it.
TEST_F(ImageFlush, FirstFlushSyncsBitsThatWereFoundInTheFile) {
  Make({.allocated = {0}});
  Write(0, 10);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kSyncAddCow}));
}

TEST_F(ImageFlush, BitsAreNotWrittenBeforeAFlush) {
  Make({});
  Write(0, 10);
  EXPECT_FALSE(BitOnDisk(0));
  Flush();
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_F(ImageFlush, FlushedWritesAreThereForTheNextProcess) {
  Make({});
  Write(100, 100000);
  Flush();
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageFlush, SecondFlushWritesNoBits) {
  Make({});
  Write(0, 10);
  Flush();
  EXPECT_EQ(Flush(), Lines{kSyncImage});
}

TEST_F(ImageFlush, FuaWriteIsFlushedWhenItReturns) {
  Make({});
  Write(0, Repeat(1, 10), Fua::kYes);
  EXPECT_EQ(log_.Changes().back(), kSyncAddCow);
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_F(ImageFlush, FuaZeroIsFlushedWhenItReturns) {
  Make({});
  ASSERT_OK(image_->Zero(0, 10, {}, Fua::kYes));
  EXPECT_EQ(log_.Changes().back(), kSyncAddCow);
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_F(ImageFlush, FuaWriteToAnAllocatedClusterSyncsTheImageFile) {
  Make({.allocated = {0}});
  Inode(kImagePath).SetAbilities({.write_durably = false});
  Flush();
  log_.Clear();
  Write(0, Repeat(1, 10), Fua::kYes);
  EXPECT_EQ(log_.Changes().back(), kSyncImage);
}

TEST_F(ImageFlush, CloseFlushesWhatWasWritten) {
  Make({});
  Write(0, 10);
  ASSERT_OK(image_->Close());
  EXPECT_EQ(log_.Changes().back(), kSyncAddCow);
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_F(ImageFlush, CloseFlushesEveryKindOfChange) {
  const std::vector<std::function<Status()>> changes = {
      [&] { return image_->Write(Repeat(1, 10), kClusterSize); },
      [&] { return image_->Write(Repeat(1, 10), 0); },  // allocated
      [&] { return image_->Zero(kClusterSize, 10, {}); },
      [&] { return image_->Zero(0, 10, {}); },  // allocated
      [&] { return image_->CopyUp({1, 1}); },
  };
  for (size_t i = 0; i < changes.size(); i++) {
    Make({.allocated = {0}});
    ASSERT_OK(changes[i]());
    log_.Clear();
    ASSERT_OK(image_->Close());
    EXPECT_GE(log_.Count(OpKind::kSyncData), 1u) << i;
  }
}

TEST_F(ImageFlush, CloseAfterAFlushDoesNothing) {
  Make({});
  Write(0, 10);
  Flush();
  log_.Clear();
  ASSERT_OK(image_->Close());
  EXPECT_EQ(log_.Changes(), Lines{});
}

TEST_F(ImageFlush, CloseWithoutWritesDoesNothing) {
  Make({});
  std::vector<std::byte> buffer(100);
  ASSERT_OK(image_->Read(buffer, 0));
  ASSERT_OK(image_->Close());
  EXPECT_EQ(log_.Changes(), Lines{});
}

// ALL_ALLOCATED.

TEST_F(ImageFlush, LastClusterSetsTheFlagAfterItsBitIsDurable) {
  Make({.allocated = {0, 1, 2}});
  Write(3 * kClusterSize, 10);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteBits, kSyncAddCow, kWriteFlag, kSyncAddCow}));
  EXPECT_TRUE(FlagOnDisk());
}

TEST_F(ImageFlush, FlagIsNotSetBeforeTheLastCluster) {
  Make({.allocated = {0, 1}});
  Write(3 * kClusterSize, 10);
  Flush();
  EXPECT_FALSE(FlagOnDisk());
}

TEST_F(ImageFlush, FlagIsSetForBitsThatWereFoundInTheFile) {
  Make({.allocated = {0, 1, 2, 3}});
  // Those bits may not be durable, so they are synced before the flag.
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kSyncAddCow, kWriteFlag, kSyncAddCow}));
  EXPECT_TRUE(FlagOnDisk());
}

TEST_F(ImageFlush, FlagIsWrittenOnce) {
  Make({.allocated = {0, 1, 2}});
  Write(3 * kClusterSize, 10);
  Flush();
  EXPECT_EQ(Flush(), Lines{kSyncImage});
}

TEST_F(ImageFlush, FlagKeepsTheOtherFeatures) {
  Make({.allocated = {0, 1, 2}});
  Write(3 * kClusterSize, 10);
  Flush();
  Reopen();
  EXPECT_TRUE(image_->files().header.all_allocated);
  EXPECT_TRUE(image_->files().header.backing.has_value());
  EXPECT_EQ(image_->files().header.image.name, "disk.raw");
}

TEST_F(ImageFlush, FlagKeepsOptionalFeatures) {
  Make({.allocated = {0, 1, 2}});
  ASSERT_TRUE(Inode(kAddCowPath).Write(Repeat(0xa5, 8), 36));
  Reopen();
  Write(3 * kClusterSize, 10);
  Flush();
  ASSERT_TRUE(FlagOnDisk());
  EXPECT_EQ(Inode(kAddCowPath).Bytes(36, 8), Repeat(0xa5, 8));
}

TEST_F(ImageFlush, WithTheFlagTheBackingFileIsNotNeeded) {
  Make({.allocated = {0, 1, 2}});
  Write(3 * kClusterSize, 10);
  Flush();
  ASSERT_OK(fake_.Remove(kBackingPath));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageFlush, WithTheFlagEveryClusterIsAllocatedWhateverTheBitsSay) {
  Make({.all_allocated = true});
  ASSERT_TRUE(Inode(kAddCowPath).Write(Repeat(0, 65536), kBitmapOffset));
  Reopen();
  EXPECT_TRUE(image_->bitmap().all());
  ExpectAsReference();
  Write(5, 10);
  Flush();
  EXPECT_EQ(log_.Count(OpKind::kWrite), 0u);
}

// Failures.

TEST_F(ImageFlush, FailedImageSyncWritesNoBits) {
  Make({});
  Write(0, 10);
  faults_.Set(At(1, EIO, OpKind::kSyncData, kImagePath));
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_FALSE(BitOnDisk(0));
}

TEST_F(ImageFlush, FailedSyncIsFinal) {
  for (const char* path : {kImagePath, kAddCowPath}) {
    Make({});
    Write(0, 10);
    faults_.Set(At(1, ENOSPC, OpKind::kSyncData, path));
    EXPECT_TRUE(FailsWith(image_->Flush(), EIO)) << path;
    faults_.Clear();
    log_.Clear();
    EXPECT_FALSE(image_->writable());
    EXPECT_TRUE(FailsWith(image_->Flush(), EIO)) << path;
    EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 10), 0), EIO)) << path;
    EXPECT_TRUE(FailsWith(image_->Zero(0, 10, {}), EIO)) << path;
    EXPECT_TRUE(FailsWith(image_->CopyUp({1, 1}), EIO)) << path;
    EXPECT_TRUE(FailsSaying(image_->Write(Repeat(1, 10), 0), "an earlier sync failed"));
    EXPECT_EQ(log_.Changes(), Lines{}) << path;
  }
}

TEST_F(ImageFlush, ReadsGoOnAfterAFailedSync) {
  Make({});
  Write(0, 10);
  faults_.Set(At(1, EIO, OpKind::kSyncData, kImagePath));
  EXPECT_FALSE(image_->Flush());
  ExpectAsReference();
  EXPECT_OK(image_->Map(0, 100, [](const Extent&) { return true; }));
  EXPECT_OK(image_->Prefetch(0, 100));
}

TEST_F(ImageFlush, ErrorOfAFailedSyncSaysOnceWhatItMeans) {
  Make({});
  Write(0, 10);
  faults_.Set({.at = 1,
               .error = EIO,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) { return IsSync(operation.kind); }});
  EXPECT_TRUE(
      FailsSaying(image_->Flush(),
                  "fdatasync: /vm/disk.raw: Input/output error; read only from here on: "
                  "writes that were not flushed may be lost"));
  for (int i = 0; i < 3; i++) EXPECT_TRUE(FailsSaying(image_->Flush(), "flush refused"));
  EXPECT_TRUE(FailsSaying(image_->Close(), "flush refused"));
  EXPECT_EQ(messages_, Lines{});
}

TEST_F(ImageFlush, FuaWriteReportsAFailedSync) {
  Make({});
  faults_.Set(At(1, EIO, OpKind::kSyncData, kImagePath));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 10), 0, Fua::kYes), EIO));
}

TEST_F(ImageFlush, CloseReportsAFailedSync) {
  Make({});
  Write(0, 10);
  faults_.Set(At(1, EIO, OpKind::kSyncData, kAddCowPath));
  EXPECT_TRUE(FailsWith(image_->Close(), EIO));
}

TEST_F(ImageFlush, BitsThatCouldNotBeWrittenAreWrittenByALaterFlush) {
  Make({});
  Write(0, 10);
  faults_.Set(At(1, ENOSPC, OpKind::kWrite, kAddCowPath));
  EXPECT_TRUE(FailsWith(image_->Flush(), ENOSPC));
  EXPECT_TRUE(image_->writable());
  EXPECT_FALSE(BitOnDisk(0));
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_F(ImageFlush, CloseWritesBitsThatAFlushCouldNot) {
  Make({});
  Write(0, 10);
  faults_.Set(At(1, ENOSPC, OpKind::kWrite, kAddCowPath));
  EXPECT_FALSE(image_->Flush());
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_F(ImageFlush, FlagThatCouldNotBeWrittenIsWrittenByALaterFlush) {
  Make({.allocated = {0, 1, 2}});
  Write(3 * kClusterSize, 10);
  faults_.Set(At(2, ENOSPC, OpKind::kWrite, kAddCowPath));
  EXPECT_TRUE(FailsWith(image_->Flush(), ENOSPC));
  EXPECT_FALSE(FlagOnDisk());
  Flush();
  EXPECT_TRUE(FlagOnDisk());
}

// What was taken for publishing is forgotten then.
TEST_F(ImageFlush, FlushThatRanOutOfMemoryIsFinal) {
  Make({});
  Write(0, 10);
  Gate::Stop stop = gate_.ParkBefore([](const Operation& operation) -> bool {
    if (operation.kind == OpKind::kWrite && operation.path == kAddCowPath)
      throw std::bad_alloc();
    return false;
  });
  EXPECT_THROW((void)image_->Flush(), std::bad_alloc);
  EXPECT_FALSE(image_->writable());
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 10), 0), EIO));
  ExpectAsReference();
}

// Read only.

TEST_F(ImageFlush, ReadOnlyImageWritesNothing) {
  Make({.allocated = {0, 1, 2, 3}});  // would get the flag
  Reopen(OpenMode::kReadOnly);
  EXPECT_FALSE(image_->writable());
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 10), 0), EROFS));
  EXPECT_TRUE(FailsWith(image_->Zero(0, 10, {}), EROFS));
  EXPECT_TRUE(FailsWith(image_->CopyUp({0, 1}), EROFS));
  EXPECT_OK(image_->Flush());
  EXPECT_OK(image_->Close());
  EXPECT_EQ(log_.Changes(), Lines{});
}

TEST_F(ImageFlush, ReadOnlyImageReads) {
  Make({.backing_size = 100000, .allocated = {2}});
  Reopen(OpenMode::kReadOnly);
  ExpectAsReference();
}

TEST_F(ImageFlush, OpeningWritesNothing) {
  log_.Clear();
  Make({.allocated = {0, 1, 2, 3}});
  EXPECT_EQ(log_.Changes(), Lines{});
}

// A request that fails half way has allocated clusters before that.
TEST_F(ImageFlush, ClosePublishesWhatAFailedRequestAllocated) {
  Make({.allocated = {1}});
  faults_.Set(At(3, ENOSPC, OpKind::kWrite, kImagePath));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 3 * kClusterSize), 0), ENOSPC));
  ASSERT_TRUE(IsAllocated(0));
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_F(ImageFlush, WhatWasCopiedUpIsOnItsWayToTheDisk) {
  Make({.size = 2 * kClusterSize + 1000});
  ASSERT_OK(image_->CopyUp({1, 2}));
  EXPECT_EQ(log_.Lines([](const Operation& operation) {
    return operation.kind == OpKind::kStartWriteback;
  }),
            Lines{"start writeback /vm/disk.raw 65536+66536"});
}

// It may be all that the kernel says of pages that it could not write.
TEST_F(ImageFlush, WritebackThatFailedEndsWriting) {
  Make({});
  faults_.Set(At(1, EIO, OpKind::kStartWriteback, kImagePath));
  EXPECT_TRUE(FailsWith(image_->CopyUp({0, 2}), EIO));
  EXPECT_TRUE(faults_.fired());
  EXPECT_FALSE(image_->writable());
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_FALSE(BitOnDisk(0));
}

// That of a connection which may not write.

TEST_F(ImageFlush, ReadersFlushPublishesAllButTheFlag) {
  Make({.size = 2 * kClusterSize, .backing_size = 2 * kClusterSize, .allocated = {0}});
  Write(kClusterSize, kClusterSize);
  EXPECT_OK(image_->Flush(FlushFor::kReader));
  EXPECT_TRUE(BitOnDisk(1));
  EXPECT_FALSE(FlagOnDisk());
  // It is left to a writer's, or to the end.
  EXPECT_OK(image_->Close());
  EXPECT_TRUE(FlagOnDisk());
}

TEST_F(ImageFlush, ReadersFlushFailsAsAWritersDoes) {
  Make({});
  Write(0, 10);
  faults_.Set(At(1, EIO, OpKind::kSyncData, kImagePath));
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  faults_.Clear();
  EXPECT_TRUE(FailsWith(image_->Flush(FlushFor::kReader), EIO));
  Make({});
  Write(0, 10);
  faults_.Set(At(1, EIO, OpKind::kSyncData, kImagePath));
  EXPECT_TRUE(FailsWith(image_->Flush(FlushFor::kReader), EIO));
  faults_.Clear();
}

TEST_F(ImageFlush, EveryFailingOperationOfOpenIsAnError) {
  Make({.allocated = {1}});
  image_.reset();  // its locks would be in the way
  std::set<std::string> tolerated;
  for (uint64_t at = 1;; at++) {
    faults_.Set({.at = at, .error = EIO});
    const auto image = OpenTestImage(seam_);
    if (!faults_.fired()) {
      EXPECT_OK(image);
      EXPECT_GT(at, 10u);
      break;
    }
    // What only warns or refuses by a file's first bytes does without them.
    const bool beginning = faults_.hit().starts_with("read /vm/base.img 0+") ||
                           faults_.hit().starts_with("read /vm/disk.raw 0+");
    if (beginning)
      EXPECT_OK(image) << faults_.hit();
    else if (image)
      tolerated.insert(faults_.hit());
    else
      EXPECT_TRUE(FailsWith(image, EIO)) << faults_.hit();
  }
  // There is another way for the one; without the other, all is data.
  EXPECT_EQ(tolerated, (std::set<std::string>{"open again /vm/disk.raw", "info /vm/base.img"}));
}

}  // namespace
}  // namespace addcow
