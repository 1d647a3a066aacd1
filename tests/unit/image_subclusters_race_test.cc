// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: the races of subclusters, each as one fixed schedule, as in
// image_race_test.cc.
//
//   copy-up:  read the backing file | claim | write what is missing | set the bit
//   writer:                           claim | write                 | set the bits
//
// A copy-up must not put old bytes over subclusters that were written since it read the
// backing file, nor over those whose write is under way.

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/support/engine_lines.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

class ImageSubclustersRace : public EngineLines {
 protected:
  void SetUp() override {
    Make({.seed = TestSeed()});
    Write(3 * kC, kS);  // the add-cow file is grown, and has storage for the bits
  }

  // Whether `second` has to wait for `first`, whose write to the image file is about to
  // begin; or that has just been done.
  bool AgainstAWrite(const std::function<Status()>& first,
                     const std::function<Status()>& second) {
    return RaceAt(gate_.ParkBefore(OpKind::kWrite, kImagePath), first, second);
  }
  bool AfterAWrite(const std::function<Status()>& first,
                   const std::function<Status()>& second) {
    return RaceAt(gate_.ParkAfter(OpKind::kWrite, kImagePath), first, second);
  }
  // The same against one that has read the backing file.
  bool AfterARead(const std::function<Status()>& first, const std::function<Status()>& second) {
    return RaceAt(gate_.ParkAfter(OpKind::kRead, kBackingPath), first, second);
  }
  std::function<Status()> WriteOf(std::span<const std::byte> data, uint64_t offset) {
    return [=, this] { return image_->Write(data, offset); };
  }
  std::function<Status()> CopyUpOf(ClusterRange range) {
    return [=, this] { return image_->CopyUp(range); };
  }
  // A small write of the last cluster has written and not set its bit, when another makes
  // all of the disk allocated, and a flush says so.
  void WriteOvertakenByAllAllocated() {
    Write(0, 3 * kC);
    ASSERT_OK(image_->Flush());
    Gate::Stop writing = gate_.ParkAfter(OpKind::kWrite, kImagePath);
    Racer small([&] { EXPECT_OK(image_->Write(ones_, 3 * kC + 5 * kS)); });
    writing.WaitUntilParked();
    Write(3 * kC, whole_);
    ASSERT_OK(image_->Flush());
    EXPECT_TRUE(FlagOnDisk());
    writing.Release();
    small.Join();
  }
  // Now, after a flush, and for the next process.
  void ExpectAsReferenceEverAfter() {
    ExpectAsReference();
    ASSERT_OK(image_->Flush());
    ExpectAsReference();
    Reopen();
    ExpectAsReference();
  }

  const std::vector<std::byte> ones_ = Repeat(1, kS);
  const std::vector<std::byte> twos_ = Repeat(2, kS);
  const std::vector<std::byte> whole_ = Repeat(3, kC);
};

// A copy-up has read the backing file, and holds no claim.

TEST_F(ImageSubclustersRace, WriteDoesNotWaitForACopyUpThatReadsAndSurvivesIt) {
  EXPECT_FALSE(AfterARead(CopyUpOf({0, 1}), WriteOf(ones_, 5 * kS)));
  reference_->Write(ones_, 5 * kS);
  EXPECT_TRUE(IsAllocated(0));
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, SmallerWriteSurvivesACopyUpThatReads) {
  Gate::Stop reading = gate_.ParkAfter(OpKind::kRead, kBackingPath);
  Racer copier([&] { EXPECT_OK(image_->CopyUp({0, 1})); });
  reading.WaitUntilParked();
  Write(5 * kS + 100, 1000);
  reading.Release();
  copier.Join();
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, TrimSurvivesACopyUpThatReads) {
  EXPECT_FALSE(AfterARead(CopyUpOf({0, 1}), [&] { return image_->Zero(0, 20000, {}); }));
  reference_->Zero(0, 20000);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, WholeClusterSurvivesACopyUpThatReads) {
  EXPECT_FALSE(AfterARead(CopyUpOf({0, 1}), WriteOf(whole_, 0)));
  reference_->Write(whole_, 0);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, FlushDoesNotWaitForACopyUpThatReads) {
  Write(kS, kS);
  EXPECT_FALSE(AfterARead(CopyUpOf({0, 1}), [&] { return image_->Flush(); }));
  EXPECT_TRUE(OnDisk(kS));
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, TwoCopyUpsReadTogether) {
  EXPECT_FALSE(AfterARead(CopyUpOf({0, 2}), CopyUpOf({1, 2})));
  EXPECT_TRUE(IsAllocated(2));
  ExpectAsReferenceEverAfter();
}

// A copy-up writes what is missing.

TEST_F(ImageSubclustersRace, WriteWaitsForACopyUpThatWritesAndSurvivesIt) {
  EXPECT_TRUE(AfterAWrite(CopyUpOf({0, 1}), WriteOf(ones_, 5 * kS)));
  reference_->Write(ones_, 5 * kS);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, WriteToAnotherClusterDoesNotWaitForACopyUp) {
  EXPECT_FALSE(AfterAWrite(CopyUpOf({0, 1}), WriteOf(ones_, kC)));
  reference_->Write(ones_, kC);
  ExpectAsReferenceEverAfter();
}

// A write is in flight, its bits not set.

TEST_F(ImageSubclustersRace, CopyUpWaitsForAWriteInFlight) {
  EXPECT_TRUE(AgainstAWrite(WriteOf(ones_, 5 * kS), CopyUpOf({0, 1})));
  reference_->Write(ones_, 5 * kS);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, CopyUpDoesNotOverwriteWhatHasNoBitYet) {
  EXPECT_TRUE(AfterAWrite(WriteOf(ones_, 5 * kS), CopyUpOf({0, 1})));
  reference_->Write(ones_, 5 * kS);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, WritesInOneClusterRunTogether) {
  EXPECT_FALSE(AgainstAWrite(WriteOf(ones_, kS), WriteOf(twos_, 5 * kS)));
  reference_->Write(ones_, kS);
  reference_->Write(twos_, 5 * kS);
  EXPECT_FALSE(IsAllocated(0));
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, WritesWithEdgesInOneClusterRunTogether) {
  EXPECT_FALSE(AgainstAWrite(WriteOf(std::span(ones_).first(100), kS + 7),
                             WriteOf(std::span(twos_).first(100), 5 * kS + 7)));
  reference_->Write(std::span(ones_).first(100), kS + 7);
  reference_->Write(std::span(twos_).first(100), 5 * kS + 7);
  ExpectAsReferenceEverAfter();
}

// Both have read the same old bytes. The second one's must not hide the first one's new.
TEST_F(ImageSubclustersRace, SmallerWritesInOneSubclusterBothSurvive) {
  const auto first = WriteOf(std::span(ones_).first(100), kS + 7);
  const auto second = WriteOf(std::span(twos_).first(100), kS + 1000);
  EXPECT_FALSE(AfterARead(first, second));
  reference_->Write(std::span(ones_).first(100), kS + 7);
  reference_->Write(std::span(twos_).first(100), kS + 1000);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, SmallerWritesInOneSubclusterWaitWhileOneWrites) {
  for (const bool before : {true, false}) {
    Make({.seed = TestSeed()});
    Write(3 * kC, kS);
    const auto first = WriteOf(std::span(ones_).first(100), kS + 7);
    const auto second = WriteOf(std::span(twos_).first(100), kS + 1000);
    EXPECT_TRUE(before ? AgainstAWrite(first, second) : AfterAWrite(first, second));
    reference_->Write(std::span(ones_).first(100), kS + 7);
    reference_->Write(std::span(twos_).first(100), kS + 1000);
    ExpectAsReferenceEverAfter();
  }
}

TEST_F(ImageSubclustersRace, WholeOneSurvivesASmallersEdges) {
  Gate::Stop reading = gate_.ParkAfter(OpKind::kRead, kBackingPath);
  Racer small([&] { EXPECT_OK(image_->Write(std::span(ones_).first(100), kS + 7)); });
  reading.WaitUntilParked();
  Write(kS, twos_);
  reading.Release();
  small.Join();
  reference_->Write(std::span(ones_).first(100), kS + 7);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, SmallerOneWaitsForAWholeOneInFlight) {
  EXPECT_TRUE(AfterAWrite(WriteOf(ones_, kS), WriteOf(std::span(twos_).first(100), kS + 1000)));
  reference_->Write(ones_, kS);
  reference_->Write(std::span(twos_).first(100), kS + 1000);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, TrimOfPartsWaitsForAWriteInFlight) {
  EXPECT_TRUE(AgainstAWrite(WriteOf(ones_, 5 * kS),
                            [&] { return image_->Zero(5 * kS + 100, 8192, {}); }));
  const auto found = Read(5 * kS + 100, kS - 100);
  EXPECT_EQ(found, Repeat(0, kS - 100));
  reference_->Write(ones_, 5 * kS);
  reference_->Zero(5 * kS + 100, 8192);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, ZeroWithEdgesAndAWriteInOneSubclusterBothSurvive) {
  for (const bool may_punch : {true, false}) {
    Make({.seed = TestSeed()});
    Write(3 * kC, kS);
    const auto zero = [&] { return image_->Zero(kS + 100, 200, {.may_punch = may_punch}); };
    EXPECT_FALSE(AfterARead(zero, WriteOf(std::span(ones_).first(100), kS + 1000)));
    reference_->Zero(kS + 100, 200);
    reference_->Write(std::span(ones_).first(100), kS + 1000);
    ExpectAsReferenceEverAfter();
  }
}

// Over a hole of the backing file a trim has nothing to do, but for the write.
TEST_F(ImageSubclustersRace, TrimOverAHoleBesideAWriteInFlight) {
  Make({.backing_data = {std::vector<ByteRange>{}}});
  Write(3 * kC, kS);
  AgainstAWrite(WriteOf(ones_, 5 * kS), [&] { return image_->Zero(0, kC, {}); });
  // Both were in flight: of the written bytes either may be there.
  const auto found = Read(5 * kS, kS);
  EXPECT_TRUE(found == ones_ || found == Repeat(0, kS));
  reference_->Write(found, 5 * kS);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageSubclustersRace, LastTwoOfAClusterTogetherAllocateIt) {
  for (uint64_t i = 1; i < 15; i++) Write(i * kS, kS);
  EXPECT_FALSE(AgainstAWrite(WriteOf(ones_, 0), WriteOf(twos_, 15 * kS)));
  EXPECT_TRUE(IsAllocated(0));
  reference_->Write(ones_, 0);
  reference_->Write(twos_, 15 * kS);
  ExpectAsReferenceEverAfter();
}

// First come, first served: else writes without a pause could keep a copy-up waiting
// for ever.
TEST_F(ImageSubclustersRace, WriteDoesNotOvertakeACopyUpThatWaits) {
  Gate::Stop writing = gate_.ParkBefore(OpKind::kWrite, kImagePath);
  Racer first([&] { EXPECT_OK(image_->Write(ones_, 5 * kS)); });
  writing.WaitUntilParked();
  Racer copier([&] { EXPECT_OK(image_->CopyUp({0, 1})); });
  copier.WaitUntilBlockedOrDone();
  Racer second([&] { EXPECT_OK(image_->Write(twos_, 10 * kS)); });
  second.WaitUntilBlockedOrDone();
  EXPECT_FALSE(copier.done());
  EXPECT_FALSE(second.done());
  writing.Release();
  first.Join();
  copier.Join();
  second.Join();
  reference_->Write(ones_, 5 * kS);
  reference_->Write(twos_, 10 * kS);
  ExpectAsReferenceEverAfter();
}

// What a flush publishes.

TEST_F(ImageSubclustersRace, FlushDoesNotPublishWhatWasWrittenSinceItBegan) {
  for (const bool before : {true, false}) {
    Make({.seed = TestSeed()});
    Write(0, kS);
    Gate::Stop stop = before ? gate_.ParkBefore(OpKind::kSyncData, kImagePath)
                             : gate_.ParkAfter(OpKind::kSyncData, kImagePath);
    Racer flusher([&] { EXPECT_OK(image_->Flush()); });
    stop.WaitUntilParked();
    Write(kS, kS);
    Write(kC, kC);
    stop.Release();
    flusher.Join();
    EXPECT_TRUE(OnDisk(0));
    EXPECT_FALSE(OnDisk(kS));
    EXPECT_FALSE(OnDisk(kC));
    ExpectAsReferenceEverAfter();
  }
}

// Its cluster is allocated in memory by then, and its other bits are not durable.
TEST_F(ImageSubclustersRace, ClusterBitOfALaterWriteDoesNotGoWithAFlush) {
  for (uint64_t i = 0; i < 15; i++) Write(i * kS, kS);
  Gate::Stop syncing = gate_.ParkAfter(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Write(15 * kS, kS);
  EXPECT_TRUE(IsAllocated(0));
  syncing.Release();
  flusher.Join();
  EXPECT_TRUE(OnDisk(14 * kS));
  EXPECT_FALSE(OnDisk(15 * kS));
  ExpectAsReferenceEverAfter();
}

// The file has no place for its bit any more, nor needs it.
TEST_F(ImageSubclustersRace, WriteThatAllAllocatedOvertakesPublishesNoSubcluster) {
  WriteOvertakenByAllAllocated();
  reference_->Write(Read(3 * kC + 5 * kS, kS), 3 * kC + 5 * kS);
  ASSERT_OK(image_->Flush());
  ASSERT_OK(image_->Close());
  EXPECT_FALSE(HasSubclustersOnDisk());
  EXPECT_EQ(Inode(kAddCowPath).Size(), kBitmapOffset + kBitmapPadding);
  Reopen();
  ExpectAsReference();
}

// The same of a file that never had one.
TEST_F(ImageSubclustersRace, WriteThatAllAllocatedOvertakesBringsNoFeature) {
  Make({.seed = TestSeed()});
  WriteOvertakenByAllAllocated();
  ASSERT_OK(image_->Flush());
  EXPECT_FALSE(HasSubclustersOnDisk());
}

// It looks whether the files are as long as they must be, without a lock.
TEST_F(ImageSubclustersRace, FuaWriteBesideTheFlushThatDropsThemDoesNotMissThem) {
  ASSERT_OK(image_->Flush());
  Write(0, 4 * kC);
  Gate::Stop looking = gate_.ParkBefore(OpKind::kSize, kAddCowPath);
  Racer fua([&] { EXPECT_OK(image_->Write(ones_, 3 * kC, Fua::kYes)); });
  looking.WaitUntilParked();
  ASSERT_OK(image_->Flush());
  EXPECT_TRUE(FlagOnDisk());
  looking.Release();
  fua.Join();
  EXPECT_TRUE(image_->writable());
}

TEST_F(ImageSubclustersRace, CloseFlushesWhatBecamePartialDuringTheLastFlush) {
  Write(0, kS);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Write(kC + kS, kS);
  syncing.Release();
  flusher.Join();
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(OnDisk(kC + kS));
  Reopen();
  ExpectAsReference();
}

// Several first writes: the file is grown once, and no bit is lost by it.
TEST_F(ImageSubclustersRace, FirstWritesOfTwoThreadsGrowTheFileOnce) {
  Make({.seed = TestSeed()});
  EXPECT_TRUE(RaceAt(gate_.ParkAfter(OpKind::kTruncate, kAddCowPath), WriteOf(ones_, kS),
                     WriteOf(twos_, kC + kS)));
  EXPECT_EQ(log_.Count(OpKind::kTruncate), 1u);
  reference_->Write(ones_, kS);
  reference_->Write(twos_, kC + kS);
  ExpectAsReferenceEverAfter();
}

// Readers.

TEST_F(ImageSubclustersRace, ReaderSeesTheSameBytesAllThroughACopyUp) {
  for (const OpKind kind : {OpKind::kRead, OpKind::kWrite}) {
    Make({.seed = TestSeed()});
    Write(kS, kS);
    Gate::Stop filling =
        gate_.ParkAfter(kind, kind == OpKind::kRead ? kBackingPath : kImagePath);
    Racer copier([&] { EXPECT_OK(image_->CopyUp({0, 1})); });
    filling.WaitUntilParked();
    ExpectAsReference();
    filling.Release();
    copier.Join();
    ExpectAsReference();
  }
}

// It has looked which pieces are where, and goes on to read them.
TEST_F(ImageSubclustersRace, ReaderThatACopyUpOvertakesSeesTheSameBytes) {
  for (const uint64_t pieces : {1u, 8u}) {
    Make({.seed = TestSeed()});
    for (uint64_t i = 0; i < pieces; i++) Write(2 * i * kS, kS);
    Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
    Racer reader([&] { ExpectAsReference(); });
    reading.WaitUntilParked();
    EXPECT_OK(image_->CopyUp({0, 4}));
    reading.Release();
  }
}

// Of many pieces the image file is read first. A write that ends after that is one of
// those in flight together with the read.
TEST_F(ImageSubclustersRace, ReaderOfManyPiecesSeesOldOrNewBytesOfAWriteBesideIt) {
  for (uint64_t i = 0; i < 8; i++) Write(2 * i * kS, kS);
  const auto old = Read(kS, kS);
  std::vector<std::byte> seen;
  Gate::Stop reading = gate_.ParkAfter(OpKind::kRead, kImagePath);
  Racer reader([&] { seen = Read(0, kC); });
  reading.WaitUntilParked();
  EXPECT_OK(image_->Write(ones_, kS));
  reading.Release();
  reader.Join();
  const std::vector<std::byte> part(seen.begin() + kS, seen.begin() + 2 * kS);
  EXPECT_TRUE(part == old || part == ones_);
}

TEST_F(ImageSubclustersRace, ReaderSeesOldBytesUntilAWritesBitIsSet) {
  const auto old = Read(kS, kS);
  Gate::Stop writing = gate_.ParkAfter(OpKind::kWrite, kImagePath);
  Racer writer([&] { EXPECT_OK(image_->Write(ones_, kS)); });
  writing.WaitUntilParked();
  EXPECT_EQ(Read(kS, kS), old);
  writing.Release();
  writer.Join();
  EXPECT_EQ(Read(kS, kS), ones_);
}

// There is no call of a file between the two bitmaps, so no schedule can be fixed there.
// But many schedules are had.
TEST_F(ImageSubclustersRace, WhatWasWrittenNeverVanishesWhileClustersBecomeWhole) {
  constexpr uint64_t kClusters = 256;
  const auto sector = Repeat(1, kS);
  for (int round = 0; round < 30; round++) {
    Make({.size = kClusters * kC, .backing_size = {}, .garbage = false});
    for (uint64_t i = 0; i < kClusters; i++) EXPECT_OK(image_->Write(sector, i * kC + kS));
    std::atomic<bool> reading = false;
    std::atomic<bool> filled = false;
    Racer reader([&] {
      while (!filled.load()) {
        reading.store(true);
        ASSERT_EQ(Read(kS, kS), sector);
      }
    });
    while (!reading.load()) std::this_thread::yield();
    EXPECT_OK(image_->CopyUp({0, kClusters}));
    filled.store(true);
    reader.Join();
  }
}

}  // namespace
}  // namespace addcow
