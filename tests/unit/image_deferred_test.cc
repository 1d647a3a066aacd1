// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: deferred copy-up. What a small write does and leaves undone,
// and what is read then, whatever comes after it. The image file starts out
// full of old bytes, so that whatever is not filled shows. What a flush makes
// of it is in image_deferred_flush_test.cc.

#include <gtest/gtest.h>

#include "tests/support/deferred_fixture.h"

namespace addcow {

namespace {

class ImageDeferred : public DeferredFixture {};

// Writing.

TEST_F(ImageDeferred, AlignedWriteIsOneWriteAndNothingElse) {
  Make({});
  Write(kC + 4096, 4096);
  EXPECT_EQ(All(), Lines{"write /vm/disk.raw 69632+4096"});
  EXPECT_FALSE(IsAllocated(1));
}

TEST_F(ImageDeferred, OneSectorIsEnough) {
  Make({});
  Write(512, 512);
  EXPECT_EQ(All(), Lines{"write /vm/disk.raw 512+512"});
  EXPECT_FALSE(IsAllocated(0));
}

TEST_F(ImageDeferred, WriteOverSeveralClustersDefersThoseAtItsEnds) {
  Make({});
  Write(kC - 4096, kC + 8192);
  EXPECT_EQ(All(), Lines{"write /vm/disk.raw 61440+73728"});
  EXPECT_FALSE(IsAllocated(0));
  EXPECT_TRUE(IsAllocated(1));
  EXPECT_FALSE(IsAllocated(2));
  ExpectAsReference();
}

TEST_F(ImageDeferred, WriteBesideAnAllocatedClusterIsDeferredToo) {
  Make({.allocated = {1}});
  Write(kC - 512, kC + 1024);
  EXPECT_EQ(log_.Count(OpKind::kRead), 0u);
  EXPECT_FALSE(IsAllocated(0));
  EXPECT_FALSE(IsAllocated(2));
  ExpectAsReference();
}

TEST_F(ImageDeferred, WritesThatCoverTheClusterAllocateItWithoutACopyUp) {
  Make({});
  for (uint64_t i = 0; i < 16; i++) {
    EXPECT_FALSE(IsAllocated(2)) << i;
    Write(2 * kC + (i * 5 % 16) * 4096, 4096);
  }
  EXPECT_TRUE(IsAllocated(2));
  EXPECT_EQ(log_.Count(OpKind::kRead), 0u);
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferred, WriteOfTheWholePartialClusterAllocatesIt) {
  Make({});
  Write(4096, 4096);
  Write(0, kC);
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
  ExpectAsReference();
}

TEST_F(ImageDeferred, UnalignedWriteCopiesUpAtOnce) {
  for (const ByteRange& range :
       {ByteRange{1001, 512}, {1024, 500}, {1000, 536}, {65000, 1000}}) {
    Make({});
    Write(range.offset, range.length);
    for (const uint64_t cluster : {range.offset / kC, (range.offset + range.length - 1) / kC}) {
      EXPECT_TRUE(IsAllocated(cluster)) << range.offset;
      ExpectImageFileAsReference(cluster);
    }
    ExpectAsReference();
  }
}

TEST_F(ImageDeferred, UnalignedWriteIntoAPartialClusterKeepsItsSectors) {
  for (const ByteRange& range : {ByteRange{5001, 10},
                                 {3000, 1500},
                                 {8000, 1000},
                                 {3000, 6000},
                                 {20001, 1},
                                 {100, 60000}}) {
    Make({});
    Write(4096, 4096);
    Write(range.offset, range.length);
    EXPECT_TRUE(IsAllocated(0)) << range.offset;
    ExpectImageFileAsReference(0);
    EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
    ExpectAsReference();
  }
}

TEST_F(ImageDeferred, WriteThatFailsNotesNothing) {
  Make({});
  faults_.Set({.at = 1, .error = ENOSPC, .effect = FaultPlan::Effect::kTorn});
  EXPECT_TRUE(FailsWith(image_->Write(random_.Bytes(4096), 4096), ENOSPC));
  faults_.Clear();
  ExpectAsReference();
  log_.Clear();
  ASSERT_OK(image_->Flush());
  EXPECT_EQ(BackingReads(), 0u);
  EXPECT_FALSE(IsAllocated(0));
}

// Reading.

TEST_F(ImageDeferred, ReadsMergeItWithTheBackingFile) {
  Make({});
  Write(4096, 512);
  Write(8192, 1024);
  Write(kC - 512, 1024);
  ExpectAsReference();
  for (int i = 0; i < 200; i++) {
    const uint64_t offset = random_.Below(2 * kC);
    std::vector<std::byte> buffer(random_.Between(1, 2 * kC - offset));
    ASSERT_OK(image_->Read(buffer, offset));
    ASSERT_EQ(reference_->Check(buffer, offset), "");
  }
}

TEST_F(ImageDeferred, ReadOfWrittenSectorsAsksTheImageFileOnly) {
  Make({});
  Write(4096, 4096);
  log_.Clear();
  std::vector<std::byte> buffer(1000);
  ASSERT_OK(image_->Read(buffer, 5000));
  EXPECT_EQ(All(), Lines{"read /vm/disk.raw 5000+1000"});
}

TEST_F(ImageDeferred, LaterWriteReplacesAnEarlierOne) {
  Make({});
  Write(4096, 4096);
  Write(6144, 4096);
  Write(4096, 512);
  ExpectAsReference();
  Flush();
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferred, PrefetchAsksTheBackingFileForAPartialCluster) {
  Make({});
  Write(4096, 4096);
  log_.Clear();
  ASSERT_OK(image_->Prefetch(0, kC));
  EXPECT_EQ(All(), Lines{"prefetch /vm/base.img 0+65536"});
}

// Trim and zero, copy-up.

TEST_F(ImageDeferred, ZeroOfAPartialClusterCopiesUpTheRest) {
  for (const bool may_punch : {true, false}) {
    for (const ByteRange& range :
         {ByteRange{0, kC}, {5000, 100}, {4096, 4096}, {0, 6000}, {20000, 2000}}) {
      Make({});
      Write(4096, 4096);
      Zero(range.offset, range.length, {.may_punch = may_punch});
      EXPECT_TRUE(IsAllocated(0)) << range.offset;
      ExpectImageFileAsReference(0);
      ExpectAsReference();
      EXPECT_EQ(Flush(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
    }
  }
}

TEST_F(ImageDeferred, TrimOverHolesOfTheBackingFileTrimsPartialClustersOnly) {
  Make({.backing_data = {std::vector<ByteRange>{}}});
  Write(kC + 4096, 4096);
  Zero(2048, 3 * kC);
  EXPECT_FALSE(IsAllocated(0));
  EXPECT_TRUE(IsAllocated(1));
  EXPECT_FALSE(IsAllocated(2));
  ExpectAsReference();
}

TEST_F(ImageDeferred, TrimOfOtherSectorsOverAHoleKeepsTheWrittenOnes) {
  Make({.backing_data = {std::vector<ByteRange>{}}});
  Write(4096, 4096);
  Zero(8192, 4096);
  ExpectAsReference();
  Zero(4096, 512);
  ExpectAsReference();
  Flush();
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferred, CopyUpOfAPartialClusterKeepsItsSectors) {
  Make({});
  Write(4096, 4096);
  Write(2 * kC, 512);
  ASSERT_OK(image_->CopyUp({0, 4}));
  EXPECT_TRUE(image_->bitmap().all());
  for (uint64_t cluster = 0; cluster < 4; cluster++) ExpectImageFileAsReference(cluster);
  ExpectAsReference();
}

// Ends of the files.

TEST_F(ImageDeferred, WriteUpToAnEndOfTheDiskInsideASectorIsDeferred) {
  Make({.size = kC + 1000, .backing_size = kC + 1000});
  Write(kC + 512, 488);
  EXPECT_EQ(All(), Lines{"write /vm/disk.raw 66048+488"});
  EXPECT_FALSE(IsAllocated(1));
  ExpectAsReference();
  EXPECT_EQ(Flush(),
            (Lines{"write /vm/disk.raw 65536+512", kSyncImage, kWriteBits, kSyncAddCow}));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageDeferred, LastClusterIsCoveredWhereTheDiskEnds) {
  Make({.size = kC + 1000, .backing_size = kC + 1000});
  Write(kC + 512, 488);
  Write(kC, 512);
  EXPECT_TRUE(IsAllocated(1));
  EXPECT_EQ(log_.Count(OpKind::kRead), 0u);
  ExpectAsReference();
}

TEST_F(ImageDeferred, WriteThatEndsInTheLastSectorBeforeTheDiskDoesCopiesUp) {
  Make({.size = kC + 1000, .backing_size = kC + 1000});
  Write(kC + 512, 100);
  EXPECT_TRUE(IsAllocated(1));
  ExpectAsReference();
}

TEST_F(ImageDeferred, BackingFileMayBeShorterThanTheDisk) {
  for (const std::optional<uint64_t> backing :
       {std::optional<uint64_t>(), {1}, {1000}, {4096 + 700}, {kC}, {kC + 1}}) {
    Make({.size = 3 * kC, .backing_size = backing});
    Write(4096, 4096);
    Write(kC + 512, 512);
    ExpectAsReference();
    Flush();
    ExpectAsReference();
    Reopen();
    ExpectAsReference();
  }
}

// All of it together.

TEST_F(ImageDeferred, RandomRequestsReadBackAndSurviveAFlush) {
  for (int round = 0; round < 20; round++) {
    max_partial_clusters_ = random_.Below(8);
    const uint64_t size = random_.Between(1, 8 * kC);
    Make({.size = size, .backing_size = random_.Between(1, 9 * kC), .seed = random_.Next()});
    for (int i = 0; i < 60; i++) {
      const uint64_t grain = random_.OneIn(4) ? 1 : kSectorSize;
      const uint64_t offset = RoundDown(random_.Below(size), grain);
      const uint64_t most = std::min<uint64_t>(size - offset, random_.OneIn(4) ? 200000 : 9000);
      const uint64_t length = std::min(RoundUp(random_.Between(1, most), grain), size - offset);
      switch (random_.Below(12)) {
        case 0:
          Zero(offset, length, {.may_punch = random_.OneIn(2)});
          break;
        case 1:
          ASSERT_OK(image_->CopyUp(image_->files().layout().Touched(offset, length)));
          break;
        case 2:
          ASSERT_OK(image_->Flush());
          break;
        default:
          Write(offset, random_.Bytes(length), random_.OneIn(20) ? Fua::kYes : Fua::kNo);
          break;
      }
      ASSERT_EQ(reference_->Check(ReadAll(*image_), 0), "") << "after step " << i;
    }
    ASSERT_OK(image_->Close());
    Reopen();
    ExpectAsReference();
  }
}

}  // namespace
}  // namespace addcow
