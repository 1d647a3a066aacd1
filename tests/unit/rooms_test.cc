// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: ImageStore, CopyUp and Durability, each by itself. What they do
// together is in the tests of Image (image_*_test.cc).

#include "tests/support/engine_rooms.h"

namespace addcow {
namespace {

using Lines = std::vector<std::string>;

constexpr const char* kSyncImage = "sync data /vm/disk.raw";
constexpr const char* kSyncAddCow = "sync data /vm/x.add-cow";

class ImageStoreTest : public EngineRooms {};
class CopyUpTest : public EngineRooms {};
class DurabilityTest : public EngineRooms {};

TEST_F(ImageStoreTest, ReadsBackWhatItWrote) {
  Make({});
  ASSERT_OK(store().Write(Repeat(7, 100), 5000));
  std::vector<std::byte> read(100);
  ASSERT_OK(store().Read(read, 5000));
  EXPECT_EQ(read, Repeat(7, 100));
  EXPECT_TRUE(Done() == Lines{"write /vm/disk.raw 5000+100"});
}

TEST_F(ImageStoreTest, SyncsByADescriptionOfItsOwn) {
  Make({});
  ASSERT_OK(store().Sync());
  EXPECT_EQ(Done(), Lines{kSyncImage});
}

TEST_F(ImageStoreTest, AFailedSyncStopsIt) {
  Make({});
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return IsSync(operation.kind);
               }});
  EXPECT_TRUE(FailsWith(store().Sync(), EIO));
  EXPECT_TRUE(store().stopped());
  EXPECT_EQ(store().Stopped("flush").code(), EIO);
}

TEST_F(ImageStoreTest, NoRoomForADurableWriteStopsNothing) {
  Make({});
  ASSERT_TRUE(store().can_write_durably());
  faults_.Set({.at = 1, .error = ENOSPC, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWriteDurably;
               }});
  EXPECT_TRUE(FailsWith(store().WriteDurably(Repeat(1, kS), 0), ENOSPC));
  EXPECT_FALSE(store().stopped());
}

TEST_F(ImageStoreTest, WhereItCannotWriteDurablyItSaysSoFromThenOn) {
  Make({});
  faults_.Set({.at = 1, .error = EOPNOTSUPP, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWriteDurably;
               }});
  EXPECT_TRUE(FailsWith(store().WriteDurably(Repeat(1, kS), 0), EOPNOTSUPP));
  EXPECT_FALSE(store().can_write_durably());
}

TEST_F(CopyUpTest, FillsWhatIsMissing) {
  Make({.size = 3 * kC, .backing_size = 3 * kC, .allocated = {1}, .subclusters = {3}});
  const auto before = OfImage(kC, kC);
  ASSERT_OK(copy_up().Fill({0, 3}, told_));
  EXPECT_EQ(OfImage(0, 3 * kC), disk_);
  EXPECT_EQ(OfImage(kC, kC), before);
  EXPECT_TRUE(InImage(0, 3 * kC));
}

TEST_F(CopyUpTest, ReadsNothingOfWhatIsThere) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0, 1}});
  ASSERT_OK(copy_up().Fill({0, 2}, told_));
  EXPECT_EQ(Reads(kBackingPath), 0u);
}

TEST_F(CopyUpTest, PastTheBackingFileThereAreZeroes) {
  Make({.size = 2 * kC, .backing_size = kC / 2});
  ASSERT_OK(copy_up().Fill({0, 2}, told_));
  EXPECT_EQ(OfImage(0, 2 * kC), disk_);
}

TEST_F(CopyUpTest, WhatCannotBeReadIsNotAllocatedAndTheRestIs) {
  Make({.size = 3 * kC, .backing_size = 3 * kC});
  faults_.Set({.at = 1,
               .error = EIO,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kRead && operation.path == kBackingPath &&
                        operation.offset < 2 * kC && operation.offset + operation.length > kC;
               }});
  EXPECT_TRUE(FailsWith(copy_up().Fill({0, 3}, told_), EIO));
  EXPECT_TRUE(InImage(0, kC));
  EXPECT_FALSE(InImage(kC, 2 * kC));
  EXPECT_TRUE(InImage(2 * kC, 3 * kC));
}

TEST_F(CopyUpTest, EdgesAreWhatAWriteLeavesOfItsSubclusters) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK_AND_ASSIGN(const CopyUp::Edges edges, copy_up().ReadEdges(kS + 10, 3 * kS - 20));
  EXPECT_EQ(edges.head.offset, kS);
  EXPECT_EQ(edges.head.bytes, OfDisk(kS, 10));
  EXPECT_EQ(edges.tail.offset, 3 * kS - 20);
  EXPECT_EQ(edges.tail.bytes, OfDisk(3 * kS - 20, 20));
  ASSERT_OK_AND_ASSIGN(const CopyUp::Edges none, copy_up().ReadEdges(kS, 3 * kS));
  EXPECT_TRUE(none.head.bytes.empty() && none.tail.bytes.empty());
}

TEST_F(CopyUpTest, AnEdgeThatHasGotIntoTheImageFileIsNotWrittenOver) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK_AND_ASSIGN(const CopyUp::Edges edges, copy_up().ReadEdges(10, kS));
  const auto newer = Repeat(9, kS);
  ASSERT_OK(store().Write(newer, 0));
  SetInImage(0, kS);
  ASSERT_OK(copy_up().WriteEdge(edges.head));
  EXPECT_EQ(OfImage(0, kS), newer);
}

TEST_F(DurabilityTest, DataThenBitsThenNothingMore) {
  Make({.size = 3 * kC, .backing_size = 3 * kC});
  SetInImage(kC, 2 * kC);
  durability().Unflushed();
  log_.Clear();
  ASSERT_OK(durability().Flush(FlushFor::kWriter));
  EXPECT_EQ(Done(), (Lines{kSyncImage, "write /vm/x.add-cow 4096+1", kSyncAddCow}));
  log_.Clear();
  ASSERT_OK(durability().FlushNewBits());
  EXPECT_EQ(Done(), Lines{});
}

TEST_F(DurabilityTest, TheFlagComesAfterTheLastBit) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  SetInImage(kC, 2 * kC);
  ASSERT_OK(durability().Flush(FlushFor::kReader));
  EXPECT_FALSE(ReadFlags(*fake_.Find(kAddCowPath)).all_allocated);
  ASSERT_OK(durability().Flush(FlushFor::kWriter));
  EXPECT_TRUE(ReadFlags(*fake_.Find(kAddCowPath)).all_allocated);
}

TEST_F(DurabilityTest, BitsOfAFailedFlushGoWithTheNext) {
  Make({.size = 3 * kC, .backing_size = 3 * kC});
  SetInImage(kC, 2 * kC);
  faults_.Set({.at = 1, .error = ENOSPC, .where = [](const Operation& operation) {
                 return operation.path == kAddCowPath && IsChange(operation.kind);
               }});
  EXPECT_TRUE(FailsWith(durability().Flush(FlushFor::kWriter), ENOSPC));
  EXPECT_TRUE(allocation().HasPending());
  ASSERT_OK(durability().Flush(FlushFor::kWriter));
  Reopen();
  EXPECT_TRUE(InImage(kC, 2 * kC));
}

TEST_F(DurabilityTest, ADurableWriteWhereAllIsDurableIsOneCall) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  ASSERT_OK(durability().Flush(FlushFor::kWriter));
  log_.Clear();
  ASSERT_OK(durability().WriteDurably(Repeat(1, kS), 0, []() -> Status {
    ADD_FAILURE() << "written the other way";
    return {};
  }));
  EXPECT_EQ(Done(), Lines{"write durably /vm/disk.raw 0+4096"});
}

TEST_F(DurabilityTest, ADurableWriteElsewhereIsAFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  const auto data = Repeat(1, kC);
  ASSERT_OK(durability().WriteDurably(data, 0, [&]() -> Status {
    ADDCOW_TRY(store().Write(data, 0));
    ADDCOW_TRY(allocation().TakeStorage(0, kC));
    allocation().SetInImage(0, kC);
    return {};
  }));
  Reopen();
  EXPECT_TRUE(InImage(0, kC));
}

TEST_F(DurabilityTest, ATruncatedFileEndsWriting) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  SetInImage(0, kC);
  ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(kC));
  EXPECT_TRUE(FailsSaying(durability().Flush(FlushFor::kWriter), "was truncated while in use"));
  EXPECT_TRUE(store().stopped());
}

}  // namespace
}  // namespace addcow
