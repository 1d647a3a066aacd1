// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: FUA writes. Where every bit is durable, the written bytes are
// all that has to be brought to the disk; else a whole flush is needed, for
// the bit that a crash would take away would take the write with it.

#include <gtest/gtest.h>

#include "tests/support/engine_lines.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

class ImageFua : public EngineLines {
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
  static Lines Durably(const std::string& range) {
    return {"write durably /vm/disk.raw " + range};
  }
  void FailDurableWrites(int error) {
    faults_.Set({.at = 1,
                 .error = error,
                 .lasting = FaultPlan::Lasting::kPersistent,
                 .where = [](const Operation& operation) {
                   return operation.kind == OpKind::kWriteDurably;
                 }});
  }
  // Data of the image file does not get to the disk; the kernel tells each open
  // file description once.
  void Lose(int error) { Inode(kImagePath).Lose(error); }
};

// One write.

TEST_F(ImageFua, WriteToADurableClusterSyncsNothingElse) {
  MakeDurable();
  Write(100, Repeat(1, 10), Fua::kYes);
  // Were the files truncated or removed meanwhile?
  EXPECT_EQ(All(), (Lines{"size /vm/disk.raw", "info /vm/disk.raw", "identify /vm/disk.raw",
                          "size /vm/x.add-cow", "info /vm/x.add-cow", "identify /vm/x.add-cow",
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
  Write(0, kC);
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
  EXPECT_EQ(FuaWrite(0, 512),
            (Lines{"write durably /vm/disk.raw 0+512", "write durably /vm/disk.raw 256+256"}));
  ExpectAsReference();
}

// A whole flush.

TEST_F(ImageFua, WriteToANewClusterIsPublished) {
  Make({});
  EXPECT_EQ(FuaWrite(0, kC),
            (Lines{"write /vm/disk.raw 0+65536", kSyncImage, kWriteBits, kSyncAddCow}));
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

// A durable write is told of what was lost, and so is the flush beside it: each has
// a description of its own. Nobody waits.
TEST_F(ImageFua, LossThatADurableWriteIsToldOfFailsTheFlushBesideIt) {
  MakeDurable();
  Write(kC, kC);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_TRUE(FailsWith(image_->Flush(), EIO)); });
  syncing.WaitUntilParked();
  Lose(EIO);
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO));
  EXPECT_FALSE(image_->writable());
  syncing.Release();
  flusher.Join();
  EXPECT_FALSE(BitOnDisk(1));
}

TEST_F(ImageFua, LossThatAFlushIsToldOfFailsTheDurableWriteBesideIt) {
  MakeDurable();
  Write(kC, kC);
  Gate::Stop writing = gate_.ParkBefore(OpKind::kWriteDurably, kImagePath);
  Racer writer(
      [&] { EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO)); });
  writing.WaitUntilParked();
  Lose(EIO);
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  writing.Release();
  writer.Join();
}

// A plain write is told, as on NFS; its client has an error for it, and writes
// once more. That proves nothing to a flush.
TEST_F(ImageFua, LossThatAPlainWriteIsToldOfFailsTheNextFlush) {
  MakeDurable();
  Inode(kImagePath).SetAbilities({.writes_tell_losses = true});
  Write(kC, kC);
  Lose(EIO);
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 2 * kC), EIO));
  EXPECT_TRUE(image_->writable());
  EXPECT_OK(image_->Write(Repeat(1, 512), 2 * kC));
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_FALSE(image_->writable());
  EXPECT_FALSE(BitOnDisk(1));
}

// ENOSPC of its second half: data was lost, and perhaps that of others.
TEST_F(ImageFua, LossForWantOfRoomThatADurableWriteIsToldOfFailsTheNextFlush) {
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) {
    MakeDurable();
    Write(kC, kC);
    Lose(error);
    EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), error));
    EXPECT_TRUE(image_->writable());
    EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
    EXPECT_FALSE(image_->writable());
    EXPECT_FALSE(BitOnDisk(1));
  }
}

TEST_F(ImageFua, WriteBesideASyncDoesNotWaitForIt) {
  MakeDurable();
  Write(kC, kC);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  EXPECT_OK(image_->Write(Repeat(1, 512), 0, Fua::kYes));
  EXPECT_EQ(log_.Count(OpKind::kWriteDurably), 1u);
  syncing.Release();
}

// So that those beside each other share one: a sync for each would cost more.
TEST_F(ImageFua, WriteBesideAnotherFlushes) {
  MakeDurable();
  Gate::Stop first_syncs = gate_.ParkBefore(OpKind::kWriteDurably, kImagePath);
  Racer first([&] { EXPECT_OK(image_->Write(Repeat(1, 512), 0, Fua::kYes)); });
  first_syncs.WaitUntilParked();
  EXPECT_OK(image_->Write(Repeat(2, 512), 512, Fua::kYes));
  first_syncs.Release();
  first.Join();
  EXPECT_EQ(log_.Count(OpKind::kWriteDurably), 1u);
  EXPECT_EQ(log_.Count(OpKind::kSyncData), 1u);
  EXPECT_EQ(FuaWrite(0, 512), Durably("0+512"));  // alone again
}

TEST_F(ImageFua, WriteBesideAnotherDoesNotFailForWhatKeepsOthersFromTheDisk) {
  MakeDurable();
  Write(kC, kC);
  faults_.Set({.at = 1,
               .error = ENOSPC,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kAddCowPath;
               }});
  EXPECT_TRUE(FailsWith(image_->Flush(), ENOSPC));
  Gate::Stop first_syncs = gate_.ParkBefore(OpKind::kWriteDurably, kImagePath);
  Racer first([&] { EXPECT_OK(image_->Write(Repeat(1, 512), 0, Fua::kYes)); });
  first_syncs.WaitUntilParked();
  Racer second([&] { EXPECT_OK(image_->Write(Repeat(2, 512), 512, Fua::kYes)); });
  second.WaitUntilBlockedOrDone();
  first_syncs.Release();
  first.Join();
  second.Join();
  // Its own bytes are synced, and written once.
  EXPECT_EQ(log_.Count(OpKind::kWriteDurably), 1u);
  EXPECT_EQ(log_.Records([](const Operation& operation) {
                  return operation.kind == OpKind::kWrite && operation.offset == 512;
                })
                .size(),
            1u);
  EXPECT_EQ(Done().back(), kSyncImage);
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
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write durably /vm/disk.raw 0+512",
                                     "write /vm/disk.raw 0+512", kSyncImage}));
  EXPECT_EQ(FuaWrite(512, 512), (Lines{"write /vm/disk.raw 512+512", kSyncImage}));
  ExpectAsReference();
}

TEST_F(ImageFua, RefusedFlagIsTakenForCannot) {
  MakeDurable();
  FailDurableWrites(EINVAL);
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write durably /vm/disk.raw 0+512",
                                     "write /vm/disk.raw 0+512", kSyncImage}));
  faults_.Clear();
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write /vm/disk.raw 0+512", kSyncImage}));
}

TEST_F(ImageFua, FailureIsAFailedSync) {
  MakeDurable();
  FailDurableWrites(EIO);
  EXPECT_TRUE(
      FailsSaying(image_->Write(Repeat(1, 512), 0, Fua::kYes), "read only from here on"));
  faults_.Clear();
  log_.Clear();
  EXPECT_FALSE(image_->writable());
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), kC), EIO));
  EXPECT_EQ(Done(), Lines{});
  ExpectAsReference();
}

// Some file systems take RWF_DSYNC and do not keep it.
TEST_F(ImageFua, WhereTheFileSystemIsNotWellKnownAFlushDoesIt) {
  MakeDurable();
  image_.reset();
  Inode(kImagePath).SetAbilities({.well_known = false});
  Reopen();
  Flush();  // what was found is durable
  // Through the description that wrote, which may be the only one to be told of a loss,
  // and through the one that nothing is written through.
  EXPECT_EQ(FuaWrite(0, 512), (Lines{"write /vm/disk.raw 0+512", kSyncImage, kSyncImage}));
  ExpectAsReference();
}

TEST_F(ImageFua, NoRoomIsTheWritesOwnFailure) {
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) {
    MakeDurable();
    Write(kC, kC);
    FailDurableWrites(error);
    EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), error));
    EXPECT_TRUE(image_->writable());
    EXPECT_EQ(messages_, Lines{});
    faults_.Clear();
    EXPECT_OK(image_->Flush());
    EXPECT_TRUE(BitOnDisk(1));
    EXPECT_EQ(FuaWrite(0, 512), Durably("0+512"));
    ExpectAsReference();
  }
}

// A part of it may be there.
TEST_F(ImageFua, CloseFlushesWhatAFailedWriteLeft) {
  MakeDurable();
  FailDurableWrites(ENOSPC);
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), ENOSPC));
  log_.Clear();
  EXPECT_OK(image_->Close());
  EXPECT_EQ(Done(), Lines{kSyncImage});
}

// The one beside it has its own bytes synced, by the description that is told.
TEST_F(ImageFua, LossOfAnotherOneBesideItIsItsOwnToo) {
  MakeDurable();
  Gate::Stop failing = gate_.ParkBefore(OpKind::kWriteDurably, kImagePath);
  Racer first(
      [&] { EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO)); });
  failing.WaitUntilParked();
  Lose(EIO);
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(2, 512), 512, Fua::kYes), EIO));
  failing.Release();
  first.Join();
}

}  // namespace
}  // namespace addcow
