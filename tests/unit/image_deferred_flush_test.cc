// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: what a flush makes of deferred copy-ups, when there is no room
// for more of them, and what becomes of failures.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/deferred_fixture.h"

namespace addcow {
namespace {

class ImageDeferredFlush : public DeferredFixture {
 protected:
  // 10 partial clusters, none beside another: 1, 3, 5 ...
  void MakeScattered() {
    Make({.size = 20 * kC, .backing_size = 20 * kC});
    for (uint64_t cluster = 1; cluster < 20; cluster += 2) Write(cluster * kC, 4096);
  }
  static std::string Writeback(uint64_t first, uint64_t end) {
    return fmt::format("start writeback /vm/disk.raw {}+{}", first * kC, (end - first) * kC);
  }
};

TEST_F(ImageDeferredFlush, FlushFillsThenSyncsThenPublishes) {
  Make({});
  Write(4096, 4096);
  EXPECT_FALSE(BitOnDisk(0));
  EXPECT_EQ(Flush(), (Lines{"write /vm/disk.raw 0+4096", "write /vm/disk.raw 8192+57344",
                            kSyncImage, kWriteBits, kSyncAddCow}));
  EXPECT_TRUE(BitOnDisk(0));
  EXPECT_FALSE(BitOnDisk(1));
  ExpectImageFileAsReference(0);
  ExpectAsReference();
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferredFlush, SecondFlushFillsNothing) {
  Make({});
  Write(4096, 4096);
  Flush();
  EXPECT_EQ(Flush(), Lines{kSyncImage});
  EXPECT_EQ(BackingReads(), 0u);
}

TEST_F(ImageDeferredFlush, NeighboursAreFilledTogether) {
  Make({});
  Write(kC - 512, 1024);
  EXPECT_EQ(Flush(), (Lines{"write /vm/disk.raw 0+65024", "write /vm/disk.raw 66048+65024",
                            kSyncImage, kWriteBits, kSyncAddCow}));
  EXPECT_TRUE(BitOnDisk(0));
  EXPECT_TRUE(BitOnDisk(1));
  Reopen();
  ExpectAsReference();
}

// With each four clusters; the sync does the last ones.
TEST_F(ImageDeferredFlush, DiskBeginsToWriteWhileMoreIsFilled) {
  MakeScattered();
  Flush();
  EXPECT_EQ(log_.Lines([](const Operation& operation) {
    return operation.kind == OpKind::kStartWriteback;
  }),
            (Lines{Writeback(1, 8), Writeback(9, 16)}));
  const Lines done = All();
  const auto position = [&](const std::string& line) {
    return std::ranges::find(done, line) - done.begin();
  };
  const auto fill = [](uint64_t cluster) {
    return fmt::format("write /vm/disk.raw {}+{}", cluster * kC + 4096, kC - 4096);
  };
  EXPECT_LT(position(fill(7)), position(Writeback(1, 8)));
  EXPECT_LT(position(Writeback(1, 8)), position(fill(9)));
  EXPECT_LT(position(fill(9)), position(kSyncImage));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferredFlush, WritebackThatFailsEndsWriting) {
  MakeScattered();
  faults_.Set({.at = 2, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kStartWriteback;
               }});
  log_.Clear();
  EXPECT_TRUE(FailsSaying(image_->Flush(), "read only from here on"));
  EXPECT_FALSE(image_->writable());
  EXPECT_EQ(log_.Count(OpKind::kSyncData), 0u);
  EXPECT_FALSE(BitOnDisk(1));
  ExpectAsReference();
}

TEST_F(ImageDeferredFlush, FlushOfNewBitsFillsToo) {
  Make({});
  Write(4096, 4096);
  ASSERT_OK(image_->FlushNewBits());
  EXPECT_TRUE(BitOnDisk(0));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferredFlush, CloseFills) {
  Make({});
  Write(4096, 4096);
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(BitOnDisk(0));
  Reopen();
  ExpectAsReference();
}

// A request that fails half way has left a partial cluster before that.
TEST_F(ImageDeferredFlush, CloseFillsWhatAFailedRequestHadWritten) {
  Make({.allocated = {1}});
  faults_.Set({.at = 2, .error = ENOSPC, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kImagePath;
               }});
  const auto data = Repeat(1, 512 + kC);
  EXPECT_TRUE(FailsWith(image_->Write(data, kC - 512), ENOSPC));
  faults_.Clear();
  reference_->Write(std::span(data).first(512), kC - 512);
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(BitOnDisk(0));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferredFlush, LastPartialClusterSetsTheFlag) {
  Make({.allocated = {0, 1, 2}});
  Write(3 * kC + 512, 512);
  Flush();
  EXPECT_TRUE(FlagOnDisk());
}

TEST_F(ImageDeferredFlush, FillLeavesHolesWhereTheBackingFileHasThem) {
  for (const bool garbage : {true, false}) {
    Make({.backing_data = {{{0, 4096}, {16384, 8192}}}, .garbage = garbage});
    ASSERT_TRUE(Inode(kBackingPath).Write(Repeat(0, 8192), 16384));
    reference_->Zero(16384, 8192);
    Write(8192, 4096);
    Flush();
    EXPECT_FALSE(IsHole(kImagePath, 0, 4096));
    EXPECT_TRUE(IsHole(kImagePath, 4096, 4096));
    EXPECT_FALSE(IsHole(kImagePath, 8192, 4096));
    EXPECT_TRUE(IsHole(kImagePath, 12288, kC - 12288)) << garbage;
    Reopen();
    ExpectAsReference();
  }
}

TEST_F(ImageDeferredFlush, FillOfAFreshImageFileOverHolesWritesNothing) {
  Make({.backing_data = {std::vector<ByteRange>{}}, .garbage = false});
  Write(8192, 4096);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
  EXPECT_EQ(BackingReads(), 0u);
}

TEST_F(ImageDeferredFlush, WhatWasNotFlushedIsGoneForTheNextProcess) {
  Make({});
  ASSERT_OK(image_->Write(random_.Bytes(4096), 4096));
  Reopen();
  ExpectAsReference();
  // Nor does what lies in the image file come back.
  Write(8192, 512);
  Flush();
  Reopen();
  ExpectAsReference();
}

// No room to note more.

TEST_F(ImageDeferredFlush, FullTableMakesNewClustersCopyUpAtOnce) {
  max_partial_clusters_ = 1;
  Make({});
  Write(0, 512);
  EXPECT_FALSE(IsAllocated(0));
  Write(kC, 512);
  EXPECT_TRUE(IsAllocated(1));
  ExpectImageFileAsReference(1);
  Write(1024, 512);
  EXPECT_FALSE(IsAllocated(0));
  ExpectAsReference();
  Flush();
  Write(2 * kC, 512);
  EXPECT_FALSE(IsAllocated(2));
}

TEST_F(ImageDeferredFlush, FullTableTakesWholeClusters) {
  max_partial_clusters_ = 1;
  Make({});
  Write(0, 512);
  Write(kC, 2 * kC);
  EXPECT_EQ(log_.Count(OpKind::kRead), 0u);
  EXPECT_FALSE(IsAllocated(0));
  EXPECT_TRUE(IsAllocated(2));
}

TEST_F(ImageDeferredFlush, CrowdedHandlerIsCalledOnceBeforeEachFlush) {
  max_partial_clusters_ = 4;
  Make({.size = 16 * kC, .backing_size = 16 * kC});
  int calls = 0;
  image_->SetCrowdedHandler([&] { calls++; });
  Write(0, 512);
  EXPECT_EQ(calls, 0);
  Write(kC, 512);
  EXPECT_EQ(calls, 1);
  Write(2 * kC, 512);
  EXPECT_EQ(calls, 1);
  Flush();
  Write(3 * kC, 512);
  EXPECT_EQ(calls, 1);
  Write(4 * kC, 512);
  EXPECT_EQ(calls, 2);
  Flush();
  image_->SetCrowdedHandler({});
  for (uint64_t cluster = 5; cluster < 9; cluster++) Write(cluster * kC, 512);
  EXPECT_EQ(calls, 2);
}

// Failures.

TEST_F(ImageDeferredFlush, ClusterThatCannotBeFilledDoesNotKeepOthersFromTheDisk) {
  Make({.size = 8 * kC, .backing_size = 8 * kC});
  for (const uint64_t cluster : {0u, 1u, 2u, 5u}) Write(cluster * kC + 4096, 4096);
  BreakBacking(1);
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_TRUE(image_->writable());
  for (const uint64_t cluster : {0u, 2u, 5u}) EXPECT_TRUE(BitOnDisk(cluster)) << cluster;
  EXPECT_FALSE(BitOnDisk(1));
  EXPECT_FALSE(IsAllocated(1));
  faults_.Clear();
  ExpectAsReference();
  EXPECT_EQ(Flush(), (Lines{"write /vm/disk.raw 65536+4096", "write /vm/disk.raw 73728+57344",
                            kSyncImage, kWriteBits, kSyncAddCow}));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferredFlush, CloseAfterAFillThatFailedTriesAgain) {
  Make({});
  Write(4096, 4096);
  BreakBacking(0);
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_TRUE(FailsWith(image_->Close(), EIO));
  faults_.Clear();
  ASSERT_OK(image_->Close());
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferredFlush, FuaWriteWhoseFillFailsFails) {
  Make({});
  BreakBacking(0);
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO));
}

TEST_F(ImageDeferredFlush, PartialClusterIsReadRightAfterAFailedSync) {
  Make({});
  Write(4096, 4096);
  faults_.Set({.at = 1,
               .error = EIO,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) {
                 return (operation.kind == OpKind::kRead && operation.path == kBackingPath) ||
                        operation.kind == OpKind::kSyncData;
               }});
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  faults_.Clear();
  EXPECT_FALSE(image_->writable());
  EXPECT_FALSE(IsAllocated(0));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 4096), 8192), EIO));
  EXPECT_TRUE(FailsWith(image_->Close(), EIO));
  EXPECT_FALSE(IsAllocated(0));
  ExpectAsReference();
}

}  // namespace
}  // namespace addcow
