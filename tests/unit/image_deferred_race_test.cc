// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: the races of deferred copy-up, each as one fixed schedule, as
// in image_race_test.cc.
//
//   flush:   read the backing file | write the rest of the cluster | set the bit
//   writer:  write its sectors     | note them
//
// The fill must not put old bytes over sectors that were written and not yet
// noted, or that are written meanwhile.

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/support/deferred_fixture.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

class ImageDeferredRace : public DeferredFixture {
 protected:
  void SetUp() override { Make({.seed = TestSeed()}); }

  // Whether `second` has to wait for `first`, whose write to the image file is
  // about to begin.
  bool RunAgainstAWriteInFlight(const std::function<Status()>& first,
                                const std::function<Status()>& second) {
    return RaceAt(gate_.ParkBefore(OpKind::kWrite, kImagePath), first, second);
  }
  // The same against a flush that has read the backing file to fill a cluster.
  bool RunAgainstAFill(const std::function<Status()>& second) {
    return RaceAt(
        gate_.ParkAfter(OpKind::kRead, kBackingPath), [&] { return image_->Flush(); }, second);
  }
  // Now, after a flush, and for the next process.
  void ExpectAsReferenceEverAfter() {
    ExpectAsReference();
    ASSERT_OK(image_->Flush());
    ExpectAsReference();
    Reopen();
    ExpectAsReference();
  }

  const std::vector<std::byte> ones_ = Repeat(1, 4096);
  const std::vector<std::byte> twos_ = Repeat(2, 4096);
};

// A fill is under way.

TEST_F(ImageDeferredRace, DeferredWriteWaitsForAFillOfItsClusterAndSurvivesIt) {
  Write(4096, 4096);
  EXPECT_TRUE(RunAgainstAFill([&] { return image_->Write(ones_, 20480); }));
  reference_->Write(ones_, 20480);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, DeferredWriteOverNotedSectorsSurvivesAFill) {
  Write(4096, 4096);
  EXPECT_TRUE(RunAgainstAFill([&] { return image_->Write(ones_, 6144); }));
  reference_->Write(ones_, 6144);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, UnalignedWriteSurvivesAFill) {
  Write(4096, 4096);
  EXPECT_TRUE(RunAgainstAFill([&] { return image_->Write(ones_, 20481); }));
  reference_->Write(ones_, 20481);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, WholeClusterWriteSurvivesAFill) {
  Write(4096, 4096);
  const auto whole = Repeat(3, kC);
  EXPECT_TRUE(RunAgainstAFill([&] { return image_->Write(whole, 0); }));
  reference_->Write(whole, 0);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, TrimSurvivesAFill) {
  Write(4096, 4096);
  EXPECT_TRUE(RunAgainstAFill([&] { return image_->Zero(0, 20000, {}); }));
  reference_->Zero(0, 20000);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, WriteToAnotherClusterDoesNotWaitForAFill) {
  Write(4096, 4096);
  EXPECT_FALSE(RunAgainstAFill([&] { return image_->Write(ones_, kC); }));
  reference_->Write(ones_, kC);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, ReadDoesNotWaitForAFill) {
  Write(4096, 4096);
  EXPECT_FALSE(RunAgainstAFill([&] {
    ExpectAsReference();
    return Status();
  }));
}

// A deferred write is in flight, its sectors not yet noted.

TEST_F(ImageDeferredRace, FillWaitsForADeferredWriteInFlight) {
  Write(4096, 4096);
  EXPECT_TRUE(RunAgainstAWriteInFlight([&] { return image_->Write(ones_, 20480); },
                                       [&] { return image_->Flush(); }));
  reference_->Write(ones_, 20480);
  EXPECT_TRUE(BitOnDisk(0));
  ExpectAsReferenceEverAfter();
}

// Parked with its bytes written.
TEST_F(ImageDeferredRace, FillDoesNotOverwriteSectorsThatAreNotYetNoted) {
  Write(4096, 4096);
  Gate::Stop writing = gate_.ParkAfter(OpKind::kWrite, kImagePath);
  Racer writer([&] { EXPECT_OK(image_->Write(ones_, 20480)); });
  writing.WaitUntilParked();
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  flusher.WaitUntilBlockedOrDone();
  EXPECT_FALSE(flusher.done());
  writing.Release();
  writer.Join();
  flusher.Join();
  reference_->Write(ones_, 20480);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, CopyUpWaitsForADeferredWriteInFlight) {
  EXPECT_TRUE(RunAgainstAWriteInFlight([&] { return image_->Write(ones_, 20480); },
                                       [&] { return image_->CopyUp({0, 1}); }));
  reference_->Write(ones_, 20480);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, UnalignedWriteWaitsForADeferredWriteInFlight) {
  EXPECT_TRUE(RunAgainstAWriteInFlight([&] { return image_->Write(ones_, 20480); },
                                       [&] { return image_->Write(twos_, 101); }));
  reference_->Write(ones_, 20480);
  reference_->Write(twos_, 101);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, TrimWaitsForADeferredWriteInFlight) {
  EXPECT_TRUE(RunAgainstAWriteInFlight([&] { return image_->Write(ones_, 20480); },
                                       [&] { return image_->Zero(0, 8192, {}); }));
  reference_->Write(ones_, 20480);
  reference_->Zero(0, 8192);
  ExpectAsReferenceEverAfter();
}

// Over a hole of the backing file a trim has nothing to do, but for the write.
TEST_F(ImageDeferredRace, TrimOverAHoleSeesADeferredWriteThatWasInFlight) {
  Make({.backing_data = {std::vector<ByteRange>{}}});
  EXPECT_TRUE(RunAgainstAWriteInFlight([&] { return image_->Write(ones_, 20480); },
                                       [&] { return image_->Zero(0, kC, {}); }));
  // Both were in flight: of the written bytes either may be there.
  const auto found = Read(20480, 4096);
  EXPECT_TRUE(found == ones_ || found == Repeat(0, 4096));
  reference_->Write(found, 20480);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, TwoDeferredWritesInOneClusterRunTogether) {
  EXPECT_FALSE(RunAgainstAWriteInFlight([&] { return image_->Write(ones_, 4096); },
                                        [&] { return image_->Write(twos_, 20480); }));
  reference_->Write(ones_, 4096);
  reference_->Write(twos_, 20480);
  EXPECT_FALSE(IsAllocated(0));
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, WholeClusterWriteRunsTogetherWithADeferredOne) {
  const auto whole = Repeat(3, kC);
  EXPECT_FALSE(RunAgainstAWriteInFlight([&] { return image_->Write(ones_, 4096); },
                                        [&] { return image_->Write(whole, 0); }));
  // Both were in flight.
  const auto found = Read(4096, 4096);
  EXPECT_TRUE(found == ones_ || found == Repeat(3, 4096));
  reference_->Write(whole, 0);
  reference_->Write(found, 4096);
  // Nothing was noted of a cluster that is allocated by then.
  log_.Clear();
  ASSERT_OK(image_->Flush());
  EXPECT_EQ(BackingReads(), 0u);
  ExpectAsReferenceEverAfter();
}

TEST_F(ImageDeferredRace, WriteThatCompletesTheClusterLeavesNothingForOneInFlight) {
  for (uint64_t i = 0; i < 15; i++) Write(i * 4096, 4096);
  EXPECT_FALSE(RunAgainstAWriteInFlight([&] { return image_->Write(ones_, 0); },
                                        [&] { return image_->Write(twos_, 15 * 4096); }));
  EXPECT_TRUE(IsAllocated(0));
  reference_->Write(ones_, 0);
  reference_->Write(twos_, 15 * 4096);
  log_.Clear();
  ASSERT_OK(image_->Flush());
  EXPECT_EQ(BackingReads(), 0u);
  ExpectAsReferenceEverAfter();
}

// First come, first served: else writes without a pause could keep a flush
// waiting for ever.
TEST_F(ImageDeferredRace, DeferredWriteDoesNotOvertakeAFillThatWaits) {
  Write(4096, 4096);
  Gate::Stop writing = gate_.ParkBefore(OpKind::kWrite, kImagePath);
  Racer first([&] { EXPECT_OK(image_->Write(ones_, 20480)); });
  writing.WaitUntilParked();
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  flusher.WaitUntilBlockedOrDone();
  Racer second([&] { EXPECT_OK(image_->Write(twos_, 40960)); });
  second.WaitUntilBlockedOrDone();
  EXPECT_FALSE(flusher.done());
  EXPECT_FALSE(second.done());
  writing.Release();
  first.Join();
  flusher.Join();
  second.Join();
  reference_->Write(ones_, 20480);
  reference_->Write(twos_, 40960);
  ExpectAsReferenceEverAfter();
}

// What a flush publishes.

TEST_F(ImageDeferredRace, FlushDoesNotPublishAClusterThatBecamePartialMeanwhile) {
  for (const bool fill : {true, false}) {
    Make({.seed = TestSeed()});
    Write(0, 512);
    Gate::Stop stop = fill ? gate_.ParkAfter(OpKind::kRead, kBackingPath)
                           : gate_.ParkBefore(OpKind::kSyncData, kImagePath);
    Racer flusher([&] { EXPECT_OK(image_->Flush()); });
    stop.WaitUntilParked();
    Write(kC + 512, 512);
    stop.Release();
    flusher.Join();
    EXPECT_TRUE(BitOnDisk(0));
    EXPECT_FALSE(BitOnDisk(1));
    EXPECT_FALSE(IsAllocated(1));
    ExpectAsReferenceEverAfter();
  }
}

TEST_F(ImageDeferredRace, CloseFillsWhatBecamePartialDuringTheLastFlush) {
  Write(0, 512);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Write(kC + 512, 512);
  syncing.Release();
  flusher.Join();
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(BitOnDisk(1));
  Reopen();
  ExpectAsReference();
}

// Readers.

TEST_F(ImageDeferredRace, ReaderSeesTheSameBytesAllThroughAFill) {
  for (const OpKind kind : {OpKind::kRead, OpKind::kWrite, OpKind::kSyncData}) {
    Make({.seed = TestSeed()});
    Write(4096, 4096);
    Gate::Stop filling =
        gate_.ParkAfter(kind, kind == OpKind::kRead ? kBackingPath : kImagePath);
    Racer flusher([&] { EXPECT_OK(image_->Flush()); });
    filling.WaitUntilParked();
    ExpectAsReference();
    filling.Release();
    flusher.Join();
    ExpectAsReference();
  }
}

// It knows which sectors were written, and goes on to read the others.
TEST_F(ImageDeferredRace, ReaderThatAFlushOvertakesSeesTheSameBytes) {
  Write(4096, 4096);
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  Racer reader([&] { ExpectAsReference(); });
  reading.WaitUntilParked();
  EXPECT_OK(image_->Flush());
  EXPECT_TRUE(IsAllocated(0));
  reading.Release();
}

TEST_F(ImageDeferredRace, ReaderSeesOldBytesUntilADeferredWriteIsNoted) {
  const auto old = Read(4096, 4096);
  Gate::Stop writing = gate_.ParkAfter(OpKind::kWrite, kImagePath);
  Racer writer([&] { EXPECT_OK(image_->Write(ones_, 4096)); });
  writing.WaitUntilParked();
  EXPECT_EQ(Read(4096, 4096), old);
  writing.Release();
  writer.Join();
  EXPECT_EQ(Read(4096, 4096), ones_);
}

// There is no call of a file between the bits and the table, so no schedule can
// be fixed there. But clusters that are filled together stay there longer, and
// many schedules are had.
TEST_F(ImageDeferredRace, WrittenSectorsNeverVanishWhileTheirClustersAreFilled) {
  constexpr uint64_t kClusters = 256;
  const auto sector = Repeat(1, 512);
  for (int round = 0; round < 30; round++) {
    Make({.size = kClusters * kC, .backing_size = {}, .garbage = false});
    for (uint64_t i = 0; i < kClusters; i++) EXPECT_OK(image_->Write(sector, i * kC + 512));
    std::atomic<bool> reading = false;
    std::atomic<bool> filled = false;
    Racer reader([&] {
      while (!filled.load()) {
        reading.store(true);
        ASSERT_EQ(Read(512, 512), sector);
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
