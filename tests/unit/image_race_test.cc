// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: the races, each as one fixed schedule. One thread is parked
// at an operation on a file, others do what must not hurt it, then it goes on.
//
// The first two groups are the lost writes that copy-on-write servers had:
// a copy-up that puts old bytes over an acknowledged write, and a flush that
// publishes bits whose data it did not sync.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

// Bits of four clusters lie in one byte of the bitmap.
class ImageRace : public BothGrains {
 protected:
  void SetUp() override {
    Make({.seed = TestSeed()});
    const auto range = reference_->Range(0, kClusterSize);
    old_cluster_.assign(range.begin(), range.end());
  }

  // Runs `first` up to the point where it has read the backing file, then
  // `second` as far as it gets, then both to their ends.
  void RunAgainstCopyUp(const std::function<Status()>& first,
                        const std::function<Status()>& second) {
    RaceAt(gate_.ParkAfter(OpKind::kRead, kBackingPath), first, second);
  }

  std::vector<std::byte> old_cluster_;
  const std::vector<std::byte> new_cluster_ = Repeat(0xaa, kClusterSize);
};
INSTANTIATE_TEST_SUITE_P(, ImageRace, testing::Bool(), GrainName);

// Copy-up against write.
//
//   thread 1: read the backing file       | write the copy to the image file
//   thread 2:                       write |
//
// nbdkit's cow filter loses the acknowledged write of thread 2 in two ways.
//
// - Cow-on-read: a read copies the block up without the lock that partial
//   writes take, and lays its old bytes over any write made meanwhile. Here a
//   copy-up is CopyUp: see the tests whose names end in "SurvivesACopyUp", and
//   WriteSurvivesACopyUpThatWaitedForIt for the other order.
// - A write of whole blocks needs no copy-up and takes no lock, so the copy-up
//   of a partial write lands on it: WholeClusterWriteSurvivesASmallOnesCopyUp.

TEST_P(ImageRace, TwoWritesToOneUnallocatedClusterBothSurvive) {
  const auto first = Repeat(1, 100);
  const auto second = Repeat(2, 100);
  RunAgainstCopyUp([&] { return image_->Write(first, 1000); },
                   [&] { return image_->Write(second, 50000); });
  reference_->Write(first, 1000);
  reference_->Write(second, 50000);
  ExpectAsReference();
}

TEST_P(ImageRace, TwoWritesSurviveInTheOtherOrderOfPlaces) {
  const auto first = Repeat(1, 100);
  const auto second = Repeat(2, 100);
  RunAgainstCopyUp([&] { return image_->Write(first, 50000); },
                   [&] { return image_->Write(second, 1000); });
  reference_->Write(first, 50000);
  reference_->Write(second, 1000);
  ExpectAsReference();
}

TEST_P(ImageRace, WholeClusterWriteSurvivesACopyUp) {
  RunAgainstCopyUp([&] { return image_->CopyUp({0, 1}); },
                   [&] { return image_->Write(new_cluster_, 0); });
  reference_->Write(new_cluster_, 0);
  ExpectAsReference();
}

TEST_P(ImageRace, WholeClusterWriteSurvivesASmallOnesCopyUp) {
  const auto small = Repeat(1, 100);
  RunAgainstCopyUp([&] { return image_->Write(small, 1000); },
                   [&] { return image_->Write(new_cluster_, 0); });
  // Both were in flight: of the 100 bytes either may be there.
  const auto found = Read(1000, 100);
  EXPECT_TRUE(found == small || found == Repeat(0xaa, 100));
  reference_->Write(new_cluster_, 0);
  reference_->Write(found, 1000);
  ExpectAsReference();
}

// The copy-up found the cluster unallocated and waits; it must look again.
TEST_P(ImageRace, WriteSurvivesACopyUpThatWaitedForIt) {
  const auto data = Repeat(1, 100);
  RunAgainstCopyUp([&] { return image_->Write(data, 1000); },
                   [&] { return image_->CopyUp({0, 1}); });
  reference_->Write(data, 1000);
  ExpectAsReference();
}

// The other order for a whole cluster: parked with its bytes written, its bit not set.
TEST_P(ImageRace, WholeClusterWriteSurvivesACopyUpThatWaitedForIt) {
  Gate::Stop writing = gate_.ParkAfter(OpKind::kWrite, kImagePath);
  Racer writer([&] { EXPECT_OK(image_->Write(new_cluster_, 0)); });
  writing.WaitUntilParked();
  Racer copier([&] { EXPECT_OK(image_->CopyUp({0, 1})); });
  copier.WaitUntilBlockedOrDone();
  writing.Release();
  writer.Join();
  copier.Join();
  reference_->Write(new_cluster_, 0);
  ExpectAsReference();
}

TEST_P(ImageRace, WriteOverManyClustersSurvivesACopyUp) {
  const auto data = Repeat(7, 3 * kClusterSize + 500);
  RunAgainstCopyUp([&] { return image_->CopyUp({2, 1}); },
                   [&] { return image_->Write(data, 100); });
  reference_->Write(data, 100);
  ExpectAsReference();
}

TEST_P(ImageRace, TrimSurvivesACopyUp) {
  RunAgainstCopyUp([&] { return image_->CopyUp({0, 1}); },
                   [&] { return image_->Zero(0, kClusterSize, {}); });
  reference_->Zero(0, kClusterSize);
  ExpectAsReference();
}

TEST_P(ImageRace, ZeroSurvivesAWritesCopyUp) {
  const auto data = Repeat(1, 100);
  RunAgainstCopyUp([&] { return image_->Write(data, 1000); },
                   [&] { return image_->Zero(30000, 5000, {.may_punch = false}); });
  reference_->Write(data, 1000);
  reference_->Zero(30000, 5000);
  ExpectAsReference();
}

TEST_P(ImageRace, WriteSurvivesATrimsCopyUp) {
  const auto data = Repeat(1, 100);
  RunAgainstCopyUp([&] { return image_->Zero(1000, 100, {}); },
                   [&] { return image_->Write(data, 50000); });
  reference_->Zero(1000, 100);
  reference_->Write(data, 50000);
  ExpectAsReference();
}

TEST_P(ImageRace, WriteToAnotherClusterDoesNotWaitForACopyUp) {
  Gate::Stop copying = gate_.ParkAfter(OpKind::kRead, kBackingPath);
  Racer copier([&] { EXPECT_OK(image_->CopyUp({0, 1})); });
  copying.WaitUntilParked();
  Racer writer([&] { EXPECT_OK(image_->Write(new_cluster_, kClusterSize)); });
  writer.WaitUntilBlockedOrDone();
  EXPECT_TRUE(writer.done());
  copying.Release();
}

TEST_P(ImageRace, WriteToAnAllocatedClusterDoesNotWaitForItsNeighboursCopyUp) {
  Write(kClusterSize, 10);
  Gate::Stop copying = gate_.ParkAfter(OpKind::kRead, kBackingPath);
  Racer copier([&] { EXPECT_OK(image_->CopyUp({0, 4})); });
  copying.WaitUntilParked();
  Racer writer([&] { EXPECT_OK(image_->Write(Repeat(1, 10), kClusterSize)); });
  writer.WaitUntilBlockedOrDone();
  EXPECT_TRUE(writer.done());
  copying.Release();
}

// Flush against allocating writes.
//
//   flush:  take bits | sync image file | write bits | sync add-cow file
//   writer:           ^                 ^

TEST_P(ImageRace, FlushDoesNotPublishABitSetWhileItSyncs) {
  Write(0, 10);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Write(kClusterSize, 10);
  syncing.Release();
  flusher.Join();
  EXPECT_TRUE(BitOnDisk(0));
  EXPECT_FALSE(BitOnDisk(1));
}

TEST_P(ImageRace, FlushDoesNotPublishABitSetAfterItSynced) {
  Write(0, 10);
  Gate::Stop syncing = gate_.ParkAfter(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Write(kClusterSize, 10);
  syncing.Release();
  flusher.Join();
  EXPECT_TRUE(BitOnDisk(0));
  EXPECT_FALSE(BitOnDisk(1));
}

TEST_P(ImageRace, NextFlushPublishesABitSetDuringTheLast) {
  Write(0, 10);
  Gate::Stop syncing = gate_.ParkAfter(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Write(kClusterSize, 10);
  syncing.Release();
  flusher.Join();
  EXPECT_OK(image_->Flush());
  EXPECT_TRUE(BitOnDisk(1));
}

TEST_P(ImageRace, FlagIsNotSetForClustersWrittenDuringTheFlush) {
  Write(0, 3 * kClusterSize);
  Gate::Stop syncing = gate_.ParkAfter(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Write(3 * kClusterSize, kClusterSize);
  EXPECT_TRUE(image_->bitmap().all());
  syncing.Release();
  flusher.Join();
  EXPECT_FALSE(FlagOnDisk());
  EXPECT_OK(image_->Flush());
  EXPECT_TRUE(FlagOnDisk());
}

TEST_P(ImageRace, FlushDoesNotPublishAClusterWhoseWriteIsNotDone) {
  Gate::Stop writing = gate_.ParkBefore(OpKind::kWrite, kImagePath);
  Racer writer([&] { EXPECT_OK(image_->Write(new_cluster_, 0)); });
  writing.WaitUntilParked();
  EXPECT_OK(image_->Flush());
  EXPECT_FALSE(BitOnDisk(0));
  writing.Release();
}

TEST_P(ImageRace, CloseFlushesAWriteThatAFlushOvertook) {
  Gate::Stop writing = gate_.ParkAfter(OpKind::kWrite, kImagePath);
  Racer writer([&] { EXPECT_OK(image_->Write(new_cluster_, 0)); });
  writing.WaitUntilParked();
  EXPECT_OK(image_->Flush());
  writing.Release();
  writer.Join();
  EXPECT_OK(image_->Close());
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_P(ImageRace, CloseFlushesAWriteToAnAllocatedClusterThatAFlushOvertook) {
  Write(0, kClusterSize);
  EXPECT_OK(image_->Flush());
  Gate::Stop writing = gate_.ParkBefore(OpKind::kWrite, kImagePath);
  Racer writer([&] { EXPECT_OK(image_->Write(new_cluster_, 0)); });
  writing.WaitUntilParked();
  EXPECT_OK(image_->Flush());
  writing.Release();
  writer.Join();
  log_.Clear();
  EXPECT_OK(image_->Close());
  EXPECT_EQ(log_.Changes(), std::vector<std::string>{"sync data /vm/disk.raw"});
}

TEST_P(ImageRace, SecondFlushReturnsOnlyWhenItsBitsArePublished) {
  Write(0, 10);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer first([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Write(kClusterSize, 10);
  Racer second([&] {
    EXPECT_OK(image_->Flush());
    EXPECT_TRUE(BitOnDisk(1));
  });
  second.WaitUntilBlockedOrDone();
  EXPECT_FALSE(second.done());
  syncing.Release();
}

TEST_P(ImageRace, FuaWriteDuringAFlushReturnsOnlyWhenItIsPublished) {
  Write(0, 10);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Racer writer([&] {
    EXPECT_OK(image_->Write(new_cluster_, kClusterSize, Fua::kYes));
    EXPECT_TRUE(BitOnDisk(1));
  });
  writer.WaitUntilBlockedOrDone();
  EXPECT_FALSE(writer.done());
  syncing.Release();
}

TEST_P(ImageRace, ReadsAndWritesGoOnDuringAFlush) {
  Write(0, 10);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  syncing.WaitUntilParked();
  Racer worker([&] {
    EXPECT_OK(image_->Write(new_cluster_, 0));
    EXPECT_OK(image_->Write(new_cluster_, kClusterSize));
    EXPECT_EQ(Read(0, kClusterSize), new_cluster_);
  });
  worker.WaitUntilBlockedOrDone();
  EXPECT_TRUE(worker.done());
  syncing.Release();
}

TEST_P(ImageRace, FlushThatWaitedForOneThatFailedFailsToo) {
  Write(0, 10);
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return IsSync(operation.kind);
               }});
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Racer first([&] { EXPECT_TRUE(FailsWith(image_->Flush(), EIO)); });
  syncing.WaitUntilParked();
  Racer second([&] { EXPECT_TRUE(FailsWith(image_->Flush(), EIO)); });
  second.WaitUntilBlockedOrDone();
  syncing.Release();
}

// Readers.

TEST_P(ImageRace, ReaderSeesTheOldClusterUntilTheWriteIsWhole) {
  Gate::Stop writing = gate_.ParkAfter(OpKind::kWrite, kImagePath);
  Racer writer([&] { EXPECT_OK(image_->Write(new_cluster_, 0)); });
  writing.WaitUntilParked();
  EXPECT_EQ(Read(0, kClusterSize), old_cluster_);
  writing.Release();
  writer.Join();
  EXPECT_EQ(Read(0, kClusterSize), new_cluster_);
}

TEST_P(ImageRace, ReaderSeesTheSameBytesAllThroughACopyUp) {
  for (const OpKind kind : {OpKind::kRead, OpKind::kWrite}) {
    Make({.seed = TestSeed()});
    const char* path = kind == OpKind::kRead ? kBackingPath : kImagePath;
    Gate::Stop copying = gate_.ParkAfter(kind, path);
    Racer copier([&] { EXPECT_OK(image_->CopyUp({0, 1})); });
    copying.WaitUntilParked();
    EXPECT_EQ(Read(0, kClusterSize), old_cluster_);
    copying.Release();
    copier.Join();
    EXPECT_EQ(Read(0, kClusterSize), old_cluster_);
  }
}

TEST_P(ImageRace, ReaderSeesOldBytesNotTheImageFilesWhileATrimIsUnderWay) {
  for (const bool before : {true, false}) {
    Make({.seed = TestSeed()});
    Gate::Stop zeroing = before ? gate_.ParkBefore(OpKind::kPunchHole, kImagePath)
                                : gate_.ParkAfter(OpKind::kPunchHole, kImagePath);
    Racer trimmer([&] { EXPECT_OK(image_->Zero(0, kClusterSize, {})); });
    zeroing.WaitUntilParked();
    EXPECT_EQ(Read(0, kClusterSize), old_cluster_);
    zeroing.Release();
    trimmer.Join();
    EXPECT_EQ(Read(0, kClusterSize), Repeat(0, kClusterSize));
  }
}

TEST_P(ImageRace, ReaderThatAWriteOvertakesSeesOldOrNewBytes) {
  std::vector<std::byte> seen;
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  Racer reader([&] { seen = Read(0, kClusterSize); });
  reading.WaitUntilParked();
  EXPECT_OK(image_->Write(new_cluster_, 0));
  reading.Release();
  reader.Join();
  EXPECT_TRUE(seen == old_cluster_ || seen == new_cluster_);
}

// What a map learns of a hole may be old by the time it looks at the bit.
TEST_P(ImageRace, MapDoesNotCallAClusterAHoleThatWasWrittenMeanwhile) {
  Make({.size = 3 * kClusterSize, .backing_size = 3 * kClusterSize, .garbage = false});
  Zero(0, kClusterSize);  // allocated, and a hole that goes on into cluster 1
  std::vector<Extent> extents;
  Gate::Stop seeking = gate_.ParkAfter(OpKind::kSeekData, kImagePath);
  Racer mapper([&] {
    EXPECT_OK(image_->Map(0, 3 * kClusterSize, [&](const Extent& extent) {
      extents.push_back(extent);
      return true;
    }));
  });
  seeking.WaitUntilParked();
  Write(kClusterSize, new_cluster_);
  seeking.Release();
  mapper.Join();
  ASSERT_FALSE(extents.empty());
  EXPECT_EQ(extents[0], (Extent{0, kClusterSize, Extent::Source::kImage, false}));
  for (size_t i = 1; i < extents.size(); i++) EXPECT_TRUE(extents[i].data) << i;
}

}  // namespace
}  // namespace addcow
