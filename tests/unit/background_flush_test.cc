// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: bits that reach the file without a client's flush. What a
// round does is tested without the thread; of the thread, that it does rounds,
// and that it ends when it should. No test depends on how long anything takes:
// intervals are so short that a round comes, or so long that none does.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <new>

#include "common/jobs/background_flush.h"
#include "tests/support/image_fixture.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

using Lines = std::vector<std::string>;

constexpr auto kSoon = std::chrono::milliseconds(1);
constexpr auto kNever = std::chrono::hours(24);

class BackgroundFlushTest : public ImageFixture {
 protected:
  BackgroundFlushTest() : ImageFixture(false) {}

  static constexpr const char* kSyncImage = "sync data /vm/disk.raw";
  static constexpr const char* kSyncAddCow = "sync data /vm/x.add-cow";
  static constexpr const char* kWriteBits = "write /vm/x.add-cow 4096+1";
  static constexpr const char* kWriteFlag = "write /vm/x.add-cow 28+16";

  void MakeWithRound(const ImageSpec& spec) {
    Make(spec);
    NewRound();
  }
  void NewRound() { round_.emplace(*image_, Sink()); }
  LogSink Sink() {
    return [this](LogLevel, const std::string& message) { logged_.push_back(message); };
  }

  static LogSink SinkWithoutMemory() {
    return [](LogLevel, const std::string&) { throw std::bad_alloc(); };
  }

  // What one round does, any operation on any file, from a fresh log; but not
  // that it looks whether the files are as they were before anything else.
  Lines Round() {
    log_.Clear();
    EXPECT_TRUE(round_->Run());
    const Lines done = log_.Lines([](const Operation& operation) {
      return operation.kind != OpKind::kSize && operation.kind != OpKind::kInfo &&
             operation.kind != OpKind::kIdentify;
    });
    if (done.empty()) {
      EXPECT_EQ(log_.Count(OpKind::kSize), 0u);
    }
    return done;
  }
  std::unique_ptr<BackgroundFlush> Start(BackgroundFlush::Clock::duration interval) {
    auto thread = BackgroundFlush::Start(*image_, interval, Sink());
    EXPECT_OK(thread);
    return thread ? std::move(*thread) : nullptr;
  }
  void FailOnce(OpKind kind, const char* path, int error) { Fail(kind, path, error, {}); }
  void FailFromNowOn(OpKind kind, const char* path, int error) {
    Fail(kind, path, error, FaultPlan::Lasting::kPersistent);
  }

  // Whether this process has a thread of that name.
  static bool ThreadIsThere() {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(task.path() / "comm");
      std::string name;
      if (std::getline(file, name) && name == BackgroundFlush::kThreadName) return true;
    }
    return false;
  }

  std::optional<FlushRound> round_;
  Lines logged_;  // by the round or the thread; messages_ is what the engine logs

 private:
  void Fail(OpKind kind, const std::string& path, int error, FaultPlan::Lasting lasting) {
    faults_.Set({.at = 1, .error = error, .lasting = lasting, .where = [=](const auto& op) {
                   return op.kind == kind && op.path == path;
                 }});
  }
};

// A round.

TEST_F(BackgroundFlushTest, RoundDoesWhatAFlushDoesInTheSameOrder) {
  MakeWithRound({});
  Write(0, 10);
  EXPECT_EQ(Round(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
  Reopen();
  ExpectAsReference();
}

TEST_F(BackgroundFlushTest, RoundWithoutNewBitsTouchesNoFile) {
  MakeWithRound({.allocated = {1}});
  EXPECT_EQ(Round(), Lines{});
  Write(kClusterSize, 10);  // allocated: a killed process loses nothing of it
  EXPECT_EQ(Round(), Lines{});
}

TEST_F(BackgroundFlushTest, RoundAfterARoundTouchesNoFile) {
  MakeWithRound({});
  Write(0, 10);
  Round();
  EXPECT_EQ(Round(), Lines{});
}

TEST_F(BackgroundFlushTest, RoundAfterAClientsFlushTouchesNoFile) {
  MakeWithRound({});
  Write(0, 10);
  ASSERT_OK(image_->Flush());
  EXPECT_EQ(Round(), Lines{});
}

TEST_F(BackgroundFlushTest, EveryKindOfAllocationIsPublished) {
  const std::vector<std::function<Status()>> changes = {
      [&] { return image_->Write(Repeat(1, kClusterSize), kClusterSize); },
      [&] { return image_->Zero(kClusterSize, 10, {}); },
      [&] { return image_->CopyUp({1, 1}); },
  };
  for (size_t i = 0; i < changes.size(); i++) {
    MakeWithRound({});
    ASSERT_OK(changes[i]());
    EXPECT_EQ(Round(), (Lines{kSyncImage, kWriteBits, kSyncAddCow})) << i;
    EXPECT_TRUE(BitOnDisk(1)) << i;
  }
}

TEST_F(BackgroundFlushTest, RoundPublishesSubclusters) {
  subclusters_ = true;
  MakeWithRound({});
  Write(kClusterSize, 512);
  const Lines done = Round();
  EXPECT_EQ(std::ranges::count_if(
                done, [](const std::string& line) { return line.starts_with("read"); }),
            0);
  EXPECT_TRUE(BitOnDisk(1));
  EXPECT_EQ(Round(), Lines{});
  Reopen();
  ExpectAsReference();
}

TEST_F(BackgroundFlushTest, LastClusterSetsTheFlag) {
  MakeWithRound({.allocated = {0, 1, 2}});
  Write(3 * kClusterSize, 10);
  EXPECT_EQ(Round(), (Lines{kSyncImage, kWriteBits, kSyncAddCow, kWriteFlag, kSyncAddCow}));
  EXPECT_TRUE(FlagOnDisk());
}

// Nobody has written: the server may be one that must not (nbdkit -r).
TEST_F(BackgroundFlushTest, FlagIsNotSetForFoundBitsBeforeAWrite) {
  MakeWithRound({.allocated = {0, 1, 2, 3}});
  EXPECT_EQ(Round(), Lines{});
  Write(0, 10);
  EXPECT_EQ(Round(), (Lines{kSyncImage, kSyncAddCow, kWriteFlag, kSyncAddCow}));
}

TEST_F(BackgroundFlushTest, FlagThatCouldNotBeWrittenIsWrittenByALaterRound) {
  MakeWithRound({.allocated = {0, 1, 2}});
  Write(3 * kClusterSize, 10);
  faults_.Set({.at = 2, .error = ENOSPC, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kAddCowPath;
               }});
  EXPECT_EQ(Round().back(), kWriteFlag);
  EXPECT_FALSE(FlagOnDisk());
  EXPECT_EQ(Round(), (Lines{kSyncImage, kWriteFlag, kSyncAddCow}));
}

TEST_F(BackgroundFlushTest, RoundDoesNotPublishABitSetAfterItSynced) {
  MakeWithRound({});
  Write(0, 10);
  Gate::Stop syncing = gate_.ParkAfter(OpKind::kSyncData, kImagePath);
  Racer flusher([&] { EXPECT_TRUE(round_->Run()); });
  syncing.WaitUntilParked();
  Write(kClusterSize, 10);
  syncing.Release();
  flusher.Join();
  EXPECT_TRUE(BitOnDisk(0));
  EXPECT_FALSE(BitOnDisk(1));
}

TEST_F(BackgroundFlushTest, CloseAfterARoundStillFlushesALaterWrite) {
  MakeWithRound({});
  Write(0, 10);
  Round();
  Write(kClusterSize, 10);
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(BitOnDisk(1));
}

// Failures.

TEST_F(BackgroundFlushTest, FullDiskIsLoggedOnceUntilItHasRoomAgain) {
  MakeWithRound({});
  const Lines once = {
      "background flush: pwrite: /vm/x.add-cow: offset=4096, count=1: No space left on device; "
      "it is tried again, but until it succeeds, what was written to new places is lost if "
      "this process is killed"};
  Write(0, 10);
  FailFromNowOn(OpKind::kWrite, kAddCowPath, ENOSPC);
  for (int i = 0; i < 3; i++) EXPECT_EQ(Round(), (Lines{kSyncImage, kWriteBits}));
  EXPECT_EQ(logged_, once);
  EXPECT_TRUE(image_->writable());

  faults_.Clear();
  EXPECT_EQ(Round(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
  EXPECT_TRUE(BitOnDisk(0));
  EXPECT_EQ(logged_, once);

  logged_.clear();
  Write(kClusterSize, 10);
  FailFromNowOn(OpKind::kWrite, kAddCowPath, ENOSPC);
  for (int i = 0; i < 3; i++) Round();
  EXPECT_EQ(logged_, once);
}

TEST_F(BackgroundFlushTest, FailedSyncIsFinalAndLoggedOnce) {
  for (const char* path : {kImagePath, kAddCowPath}) {
    MakeWithRound({});
    logged_.clear();
    Write(0, 10);
    FailOnce(OpKind::kSyncData, path, ENOSPC);
    EXPECT_FALSE(round_->Run());
    EXPECT_FALSE(image_->writable());
    log_.Clear();
    EXPECT_FALSE(round_->Run());
    EXPECT_EQ(log_.Changes(), Lines{}) << path;
    EXPECT_EQ(logged_, Lines{"background flush: fdatasync: " + std::string(path) +
                             ": No space left on device; read only from here on: writes that "
                             "were not flushed may be lost"});
    ExpectAsReference();
  }
}

TEST_F(BackgroundFlushTest, NoRoundAfterAClientsFlushFailedToSync) {
  MakeWithRound({});
  Write(0, 10);
  FailOnce(OpKind::kSyncData, kImagePath, EIO);
  EXPECT_FALSE(image_->Flush());
  EXPECT_FALSE(round_->Run());
  EXPECT_EQ(logged_, Lines{});
}

TEST_F(BackgroundFlushTest, RunningOutOfMemoryIsFinalAndLogged) {
  MakeWithRound({});
  Write(0, 10);
  Gate::Stop stop = gate_.ParkBefore([](const Operation& operation) -> bool {
    if (operation.kind == OpKind::kWrite && operation.path == kAddCowPath)
      throw std::bad_alloc();
    return false;
  });
  EXPECT_FALSE(round_->Run());
  EXPECT_FALSE(image_->writable());
  EXPECT_EQ(logged_.size(), 1u);
}

// The rounds go on: the bound that was promised depends on them.
TEST_F(BackgroundFlushTest, NoMemoryForAMessageOfAFailureIsNotTheEnd) {
  MakeWithRound({});
  round_.emplace(*image_, SinkWithoutMemory());
  Write(0, 10);
  FailFromNowOn(OpKind::kWrite, kAddCowPath, ENOSPC);
  EXPECT_TRUE(round_->Run());
  EXPECT_TRUE(image_->writable());
  faults_.Clear();
  EXPECT_EQ(Round(), (Lines{kSyncImage, kWriteBits, kSyncAddCow}));
}

TEST_F(BackgroundFlushTest, NoMemoryEvenToSayThatThereIsNone) {
  MakeWithRound({});
  round_.emplace(*image_, SinkWithoutMemory());
  Write(0, 10);
  Gate::Stop stop = gate_.ParkBefore([](const Operation& operation) -> bool {
    if (operation.kind == OpKind::kWrite && operation.path == kAddCowPath)
      throw std::bad_alloc();
    return false;
  });
  EXPECT_FALSE(round_->Run());
  EXPECT_FALSE(image_->writable());
}

TEST_F(BackgroundFlushTest, ReadOnlyImageHasNoRounds) {
  Make({.allocated = {0, 1, 2, 3}});  // would get the flag
  Reopen(OpenMode::kReadOnly);
  NewRound();
  EXPECT_FALSE(round_->Run());
  EXPECT_EQ(log_.Changes(), Lines{});
}

// The thread.

TEST_F(BackgroundFlushTest, ThreadPublishesByItselfAgainAndAgain) {
  Make({});
  const auto thread = Start(kSoon);
  for (uint64_t cluster = 0; cluster < 3; cluster++) {
    Gate::Stop published = gate_.ParkAfter(OpKind::kSyncData, kAddCowPath);
    Write(cluster * kClusterSize, 10);
    published.WaitUntilParked();
    EXPECT_TRUE(BitOnDisk(cluster));
    published.Release();
  }
}

// Who looks for it by its name finds it as soon as it was started.
TEST_F(BackgroundFlushTest, ThreadHasItsNameFromTheStart) {
  Make({});
  for (int i = 0; i < 100; i++) {
    // A thread that was joined is listed for a moment; while it goes, the list may leave
    // out another.
    while (ThreadIsThere()) std::this_thread::yield();
    const auto thread = Start(kNever);
    ASSERT_TRUE(ThreadIsThere()) << i;
  }
}

TEST_F(BackgroundFlushTest, ThreadDoesNothingBeforeTheIntervalIsOver) {
  Make({});
  {
    const auto thread = Start(kNever);
    Write(0, 10);
  }
  EXPECT_EQ(log_.Count(OpKind::kSyncData), 0u);
  EXPECT_FALSE(BitOnDisk(0));
}

// Would not come back for a day.
TEST_F(BackgroundFlushTest, StoppingDoesNotWaitForTheInterval) {
  Make({});
  auto thread = Start(kNever);
  Racer stopper([&] { thread.reset(); });
  stopper.Join();
  while (ThreadIsThere()) std::this_thread::yield();  // it may be listed a little longer
}

TEST_F(BackgroundFlushTest, StoppingWaitsForTheRoundThatIsUnderWay) {
  Make({});
  auto thread = Start(kSoon);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Write(0, 10);
  syncing.WaitUntilParked();
  Racer stopper([&] { thread.reset(); });
  stopper.WaitUntilBlockedOrDone();
  EXPECT_FALSE(stopper.done());
  syncing.Release();
  stopper.Join();
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_F(BackgroundFlushTest, ThreadEndsAfterAFailedSync) {
  Make({});
  FailOnce(OpKind::kSyncData, kImagePath, EIO);
  const auto thread = Start(kSoon);
  Write(0, 10);
  while (image_->writable()) std::this_thread::yield();
  while (ThreadIsThere()) std::this_thread::yield();  // the test's time limit tells
  EXPECT_FALSE(image_->writable());
  EXPECT_EQ(log_.Count(OpKind::kSyncData), 1u);
}

TEST_F(BackgroundFlushTest, ClientsReadWriteAndFlushWhileARoundSyncs) {
  Make({});
  const auto thread = Start(kSoon);
  Gate::Stop syncing = gate_.ParkBefore(OpKind::kSyncData, kImagePath);
  Write(0, 10);
  syncing.WaitUntilParked();
  Write(kClusterSize, 10);
  ExpectAsReference();
  Racer flusher([&] { EXPECT_OK(image_->Flush()); });
  flusher.WaitUntilBlockedOrDone();
  EXPECT_FALSE(flusher.done());  // flushes are one at a time
  syncing.Release();
  flusher.Join();
  EXPECT_TRUE(BitOnDisk(1));
}

}  // namespace
}  // namespace addcow
