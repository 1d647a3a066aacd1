// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: flushes that come at once. Those that wait for one under way
// share the next; none is answered by one that had begun before it came.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

class ImageFlushSharing : public ImageFixture {
 protected:
  void SetUp() override { Make({.seed = TestSeed()}); }

  // A flush that stands before its sync of the image file until it is told.
  struct Parked {
    Gate::Stop stop;
    Status done;
    std::unique_ptr<Racer> racer;
  };
  std::unique_ptr<Parked> ParkFlush(FlushFor whom = FlushFor::kWriter) {
    std::unique_ptr<Parked> parked(
        new Parked{gate_.ParkBefore(OpKind::kSyncData, kImagePath), {}, nullptr});
    parked->racer = std::make_unique<Racer>(
        [this, whom, p = parked.get()] { p->done = image_->Flush(whom); });
    parked->stop.WaitUntilParked();
    return parked;
  }
  size_t ImageSyncs() {
    return log_
        .Records([](const Operation& operation) {
          return operation.kind == OpKind::kSyncData && operation.path == kImagePath;
        })
        .size();
  }
};

TEST_F(ImageFlushSharing, ThoseThatWaitShareOne) {
  Write(1000, 100);
  const auto first = ParkFlush();
  std::vector<Status> done(5);
  std::vector<std::unique_ptr<Racer>> racers;
  for (Status& status : done)
    racers.push_back(std::make_unique<Racer>([&] { status = image_->Flush(); }));
  for (const auto& racer : racers) racer->WaitUntilBlockedOrDone();
  first->stop.Release();
  first->racer->Join();
  racers.clear();
  EXPECT_OK(first->done);
  for (const Status& status : done) EXPECT_OK(status);
  EXPECT_EQ(ImageSyncs(), 2u);
}

// The first one's bits were taken, and its sync may have begun, before the
// write was made.
TEST_F(ImageFlushSharing, NoneIsAnsweredByOneThatHadBegunBefore) {
  Write(1000, 100);
  const auto first = ParkFlush();
  Write(2 * kClusterSize, 100);
  Status second_done;
  Racer second([&] { second_done = image_->Flush(); });
  second.WaitUntilBlockedOrDone();
  EXPECT_FALSE(second.done());
  first->stop.Release();
  first->racer->Join();
  second.Join();
  EXPECT_OK(second_done);
  EXPECT_EQ(ImageSyncs(), 2u);
  EXPECT_TRUE(BitOnDisk(2));
}

TEST_F(ImageFlushSharing, AFailureIsNotShared) {
  Write(1000, 100);
  const auto first = ParkFlush();
  Status second_done;
  Racer second([&] { second_done = image_->Flush(); });
  second.WaitUntilBlockedOrDone();
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kSyncData;
               }});
  first->stop.Release();
  first->racer->Join();
  second.Join();
  EXPECT_TRUE(FailsWith(first->done, EIO));
  EXPECT_TRUE(FailsWith(second_done, EIO));
}

TEST_F(ImageFlushSharing, OneAfterTheOtherEachSyncs) {
  Write(1000, 100);
  ASSERT_OK(image_->Flush());
  ASSERT_OK(image_->Flush());
  EXPECT_EQ(ImageSyncs(), 2u);
}

// A reader's flush does not set ALL_ALLOCATED. So a writer's that comes with one, and could
// share it, sets it. Which of the two is first is up to the kernel: in most rounds the
// reader's.
TEST_F(ImageFlushSharing, AWritersSetsTheFlagThatAReadersLeaves) {
  for (int round = 0; round < 20; round++) {
    Make({.seed = TestSeed() + static_cast<uint64_t>(round)});
    Write(0, 4 * kClusterSize);
    const auto first = ParkFlush(FlushFor::kReader);
    Status readers;
    Status writers;
    Racer reader([&] { readers = image_->Flush(FlushFor::kReader); });
    reader.WaitUntilBlockedOrDone();
    Racer writer([&] { writers = image_->Flush(); });
    writer.WaitUntilBlockedOrDone();
    first->stop.Release();
    first->racer->Join();
    reader.Join();
    writer.Join();
    EXPECT_OK(first->done);
    EXPECT_OK(readers);
    EXPECT_OK(writers);
    EXPECT_TRUE(FlagOnDisk()) << "round " << round;
  }
}

}  // namespace
}  // namespace addcow
