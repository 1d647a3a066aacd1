// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: FUA writes. Where every bit is durable, the written bytes are
// all that has to be brought to the disk; else a whole flush is needed, for
// the bit that a crash would take away would take the write with it.

#include <gtest/gtest.h>

#include "tests/support/deferred_fixture.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

class ImageFua : public DeferredFixture {
 protected:
  // An image whose cluster 0 is allocated, durably.
  void MakeDurable(const ImageSpec& spec = {.allocated = {0}}) {
    Make(spec);
    Flush();
    log_.Clear();
  }
  // What a FUA write does, from a fresh log.
  Lines FuaWrite(uint64_t offset, uint64_t length) {
    log_.Clear();
    Write(offset, random_.Bytes(length), Fua::kYes);
    return Done();
  }
  // The bytes are written twice: which half failed must be known.
  static Lines Durably(const std::string& range) {
    return {"write /vm/disk.raw " + range, "write durably /vm/disk.raw " + range};
  }
  void FailWrites(int error, bool durable_only) {
    faults_.Set({.at = 1,
                 .error = error,
                 .lasting = FaultPlan::Lasting::kPersistent,
                 .where = [durable_only](const Operation& operation) {
                   return operation.kind == OpKind::kWriteDurably ||
                          (!durable_only && operation.kind == OpKind::kWrite);
                 }});
  }
};

// One write.

TEST_F(ImageFua, WriteToADurableClusterSyncsNothingElse) {
  MakeDurable();
  Write(100, Repeat(1, 10), Fua::kYes);
  // The size: was the file truncated meanwhile?
  EXPECT_EQ(All(), (Lines{"size /vm/disk.raw", "write /vm/disk.raw 100+10",
                          "write durably /vm/disk.raw 100+10"}));
  ExpectAsReference();
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageFua, WriteOverSeveralDurableClustersIsOneWrite) {
  MakeDurable({.allocated = {0, 1, 2}});
  EXPECT_EQ(FuaWrite(100, 3 * kC - 200), Durably("100+196408"));
  ExpectAsReference();
}

TEST_F(ImageFua, ClusterThatAFlushPublishedIsDurable) {
  Make({});
  Write(4096, 4096);
  Flush();
  EXPECT_EQ(FuaWrite(0, 512), Durably("0+512"));
  ExpectAsReference();
}

TEST_F(ImageFua, ClusterThatAFuaWritePublishedIsDurable) {
  Make({});
  FuaWrite(4096, 4096);
  EXPECT_EQ(FuaWrite(4096, 4096), Durably("4096+4096"));
}

TEST_F(ImageFua, AllClustersAreDurableAfterAFlushOfAnAllAllocatedImage) {
  MakeDurable({.all_allocated = true});
  EXPECT_EQ(FuaWrite(kC - 10, 20), Durably("65526+20"));
}

TEST_F(ImageFua, DurableWriteLeavesNothingForClose) {
  MakeDurable();
  FuaWrite(0, 512);
  log_.Clear();
  ASSERT_OK(image_->Close());
  EXPECT_EQ(Done(), Lines{});
}

TEST_F(ImageFua, OtherClustersMayBePending) {
  MakeDurable();
  Write(kC, kC);
  EXPECT_EQ(FuaWrite(0, 512), Durably("0+512"));
  EXPECT_FALSE(BitOnDisk(1));
}

TEST_F(ImageFua, ShortDurableWriteGoesOn) {
  MakeDurable();
  faults_.Set({.at = 1, .effect = FaultPlan::Effect::kShort});
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write /vm/disk.raw 0+512", "write /vm/disk.raw 256+256",
                                     "write durably /vm/disk.raw 0+512"}));
  ExpectAsReference();
}

// A whole flush.

TEST_F(ImageFua, WriteToANewClusterIsFilledAndPublished) {
  Make({});
  EXPECT_EQ(FuaWrite(4096, 4096),
            (Lines{"write /vm/disk.raw 4096+4096", "write /vm/disk.raw 0+4096",
                   "write /vm/disk.raw 8192+57344", kSyncImage, kWriteBits, kSyncAddCow}));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageFua, WriteToAPartialClusterIsFilledAndPublished) {
  Make({});
  Write(4096, 4096);
  FuaWrite(8192, 512);
  EXPECT_TRUE(BitOnDisk(0));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageFua, WriteToAClusterWhoseBitIsPendingFlushes) {
  MakeDurable();
  Write(kC, kC);
  EXPECT_EQ(FuaWrite(kC, 512),
            (Lines{"write /vm/disk.raw 65536+512", kSyncImage, kWriteBits, kSyncAddCow}));
}

TEST_F(ImageFua, WriteToABitThatWasFoundAtOpenFlushesOnce) {
  Make({.allocated = {0}});
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write /vm/disk.raw 0+512", kSyncImage, kSyncAddCow}));
  EXPECT_EQ(FuaWrite(0, 512), Durably("0+512"));
}

TEST_F(ImageFua, WriteToAnAllAllocatedImageFlushesOnce) {
  Make({.all_allocated = true});
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write /vm/disk.raw 0+512", kSyncImage, kSyncAddCow}));
  EXPECT_EQ(FuaWrite(0, 512), Durably("0+512"));
}

TEST_F(ImageFua, OneClusterThatIsNotDurableIsEnoughForAFlush) {
  MakeDurable({.allocated = {0, 2}});
  EXPECT_EQ(FuaWrite(kC - 512, 512 + kC),
            (Lines{"write /vm/disk.raw 65024+512", "write /vm/disk.raw 65536+65536", kSyncImage,
                   kWriteBits, kSyncAddCow}));
  ExpectAsReference();
}

TEST_F(ImageFua, WriteWhoseBitCouldNotBeWrittenIsNotDurable) {
  MakeDurable();
  Write(kC, kC);
  faults_.Set({.at = 1, .error = ENOSPC, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kAddCowPath;
               }});
  EXPECT_TRUE(FailsWith(image_->Flush(), ENOSPC));
  EXPECT_EQ(FuaWrite(kC, 512).back(), kSyncAddCow);
  EXPECT_TRUE(BitOnDisk(1));
}

// Its bit is written, but not synced.
TEST_F(ImageFua, WriteDuringTheFlushThatPublishesItsBitWaits) {
  MakeDurable();
  Write(kC, kC);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kAddCowPath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Racer writer([&] { EXPECT_OK(image_->Write(Repeat(1, 512), kC, Fua::kYes)); });
  writer.WaitUntilBlockedOrDone();
  EXPECT_FALSE(writer.done());
  EXPECT_EQ(log_.Count(OpKind::kWriteDurably), 0u);
  syncing.Release();
}

TEST_F(ImageFua, WriteToADurableClusterWaitsForASyncOnly) {
  MakeDurable();
  Write(kC, kC);
  Gate::Stop publishing = gate_.ParkBefore(OpKind::kWrite, kAddCowPath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  publishing.WaitUntilParked();
  Racer writer([&] { EXPECT_OK(image_->Write(Repeat(1, 512), 0, Fua::kYes)); });
  writer.WaitUntilBlockedOrDone();
  EXPECT_TRUE(writer.done());
  publishing.Release();
}

// The kernel tells of a failure once: here the durable write hears of it, and
// what it cost may be the flush's.
TEST_F(ImageFua, FailureBesideAFlushFailsTheFlushToo) {
  MakeDurable();
  Write(kC, kC);
  Gate::Stop writing = gate_.ParkBefore(OpKind::kWriteDurably, kImagePath);
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWriteDurably;
               }});
  Racer writer(
      [&] { EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO)); });
  writing.WaitUntilParked();
  Racer flusher([&] { EXPECT_TRUE(FailsWith(image_->Flush(), EIO)); });
  flusher.WaitUntilBlockedOrDone();
  EXPECT_FALSE(flusher.done());
  writing.Release();
  writer.Join();
  flusher.Join();
  EXPECT_EQ(log_.Count(OpKind::kSyncData), 0u);
}

TEST_F(ImageFua, WriteBesideASyncWaitsAndThenSyncsItsOwnBytes) {
  MakeDurable();
  Write(kC, kC);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Racer writer([&] { EXPECT_OK(image_->Write(Repeat(1, 512), 0, Fua::kYes)); });
  writer.WaitUntilBlockedOrDone();
  EXPECT_FALSE(writer.done());
  EXPECT_EQ(log_.Count(OpKind::kWriteDurably), 0u);
  syncing.Release();
  writer.Join();
  flusher.Join();
  EXPECT_EQ(log_.Count(OpKind::kWriteDurably), 1u);
  EXPECT_EQ(log_.Count(OpKind::kSyncData), 2u);
}

// The flush is told of the failure, and it may have been this write's.
TEST_F(ImageFua, WriteBesideASyncThatFailsFailsToo) {
  MakeDurable();
  Write(kC, kC);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kSyncData;
               }});
  Racer flusher([&] { EXPECT_TRUE(FailsWith(image_->Flush(), EIO)); });
  syncing.WaitUntilParked();
  Racer writer(
      [&] { EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO)); });
  writer.WaitUntilBlockedOrDone();
  EXPECT_FALSE(writer.done());
  syncing.Release();
  writer.Join();
  flusher.Join();
  EXPECT_EQ(log_.Count(OpKind::kWriteDurably), 0u);
}

// So that those beside each other share one: a sync for each would cost more.
TEST_F(ImageFua, WriteBesideAnotherFlushes) {
  MakeDurable();
  Gate::Stop first_syncs = gate_.ParkBefore(OpKind::kWriteDurably, kImagePath);
  Racer first([&] { EXPECT_OK(image_->Write(Repeat(1, 512), 0, Fua::kYes)); });
  first_syncs.WaitUntilParked();
  Racer second([&] { EXPECT_OK(image_->Write(Repeat(2, 512), 512, Fua::kYes)); });
  second.WaitUntilBlockedOrDone();
  EXPECT_FALSE(second.done());
  first_syncs.Release();
  first.Join();
  second.Join();
  EXPECT_EQ(log_.Count(OpKind::kWriteDurably), 1u);
  EXPECT_EQ(log_.Count(OpKind::kSyncData), 1u);
  EXPECT_EQ(FuaWrite(0, 512), Durably("0+512"));  // alone again
}

TEST_F(ImageFua, WriteBesideAnotherDoesNotFailForWhatKeepsOthersFromTheDisk) {
  MakeDurable();
  Write(kC, 4096);
  BreakBacking(1);
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  Gate::Stop first_syncs = gate_.ParkBefore(OpKind::kWriteDurably, kImagePath);
  Racer first([&] { EXPECT_OK(image_->Write(Repeat(1, 512), 0, Fua::kYes)); });
  first_syncs.WaitUntilParked();
  Racer second([&] { EXPECT_OK(image_->Write(Repeat(2, 512), 512, Fua::kYes)); });
  second.WaitUntilBlockedOrDone();
  first_syncs.Release();
  first.Join();
  second.Join();
  EXPECT_EQ(log_.Count(OpKind::kWriteDurably), 2u);
}

TEST_F(ImageFua, EmptyWriteFlushes) {
  MakeDurable();
  Write(kC, kC);
  EXPECT_EQ(FuaWrite(0, 0), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
}

// Failures.

TEST_F(ImageFua, WhatTheFileSystemCannotDoIsNotTriedAgain) {
  MakeDurable();
  Inode(kImagePath).SetAbilities({.write_durably = false});
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write /vm/disk.raw 0+512",
                                     "write durably /vm/disk.raw 0+512", kSyncImage}));
  EXPECT_EQ(FuaWrite(512, 512), (Lines{"write /vm/disk.raw 512+512", kSyncImage}));
  ExpectAsReference();
}

TEST_F(ImageFua, RefusedFlagIsTakenForCannot) {
  MakeDurable();
  FailWrites(EINVAL, true);
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write /vm/disk.raw 0+512",
                                     "write durably /vm/disk.raw 0+512", kSyncImage}));
  faults_.Clear();
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write /vm/disk.raw 0+512", kSyncImage}));
}

TEST_F(ImageFua, FailureIsAFailedSync) {
  MakeDurable();
  FailWrites(EIO, true);
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO));
  faults_.Clear();
  log_.Clear();
  EXPECT_FALSE(image_->writable());
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), kC), EIO));
  EXPECT_EQ(Done(), Lines{});
  EXPECT_EQ(messages_.size(), 1u);
  reference_->Write(Repeat(1, 512), 0);  // it is in the file, perhaps not on the disk
  ExpectAsReference();
}

TEST_F(ImageFua, NoRoomForTheDataIsTheWritesOwnFailure) {
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) {
    MakeDurable();
    FailWrites(error, false);
    EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), error));
    EXPECT_TRUE(image_->writable());
    faults_.Clear();
    EXPECT_EQ(FuaWrite(0, 512), Durably("0+512"));
    ExpectAsReference();
  }
}

// The data found room; so it was the sync that did not.
TEST_F(ImageFua, NoRoomAlthoughTheDataHasSomeIsAFailedSync) {
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) {
    MakeDurable();
    messages_.clear();
    FailWrites(error, true);
    EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO)) << error;
    EXPECT_FALSE(image_->writable()) << error;
    EXPECT_EQ(messages_.size(), 1u) << error;
  }
}

// The kernel tells one of two of a failure that may have cost both.
TEST_F(ImageFua, FailureOfAnotherOneBesideItIsItsOwnToo) {
  MakeDurable();
  Gate::Stop failing = gate_.ParkBefore([](const Operation& operation) {
    return operation.kind == OpKind::kWriteDurably && operation.offset == 0;
  });
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWriteDurably && operation.offset == 0;
               }});
  Racer first(
      [&] { EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO)); });
  failing.WaitUntilParked();
  Racer second(
      [&] { EXPECT_TRUE(FailsWith(image_->Write(Repeat(2, 512), 512, Fua::kYes), EIO)); });
  second.WaitUntilBlockedOrDone();
  EXPECT_FALSE(second.done());
  failing.Release();
  first.Join();
  second.Join();
}

}  // namespace
}  // namespace addcow
