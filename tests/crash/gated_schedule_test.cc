// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The schedule that the search's races rest on, tested itself.

#include "tests/support/gated_schedule.h"

#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

using State = GatedSchedule::State;

class GatedScheduleTest : public testing::Test {
 protected:
  GatedScheduleTest() {
    inode_ = inner_.Put("/d/a", 4096);
    file_ = std::move(*seam_.Open("/d/a", OpenMode::kReadWrite));
  }

  // Before the file goes.
  ~GatedScheduleTest() override { schedule_.LetGo(); }

  // Writes one byte to each of the places.
  std::function<void()> Writes(std::vector<uint64_t> places) {
    return [this, places] {
      for (const uint64_t place : places) EXPECT_OK(file_->Write(Repeat(1, 1), place));
    };
  }
  bool Written(uint64_t place) const { return inode_->Bytes(place, 1)[0] == std::byte{1}; }

  FakeFileSystem inner_;
  std::shared_ptr<FakeInode> inode_;
  GatedSchedule schedule_{2};
  ForwardingFileSystem seam_{inner_, schedule_};
  std::unique_ptr<File> file_;
};

TEST_F(GatedScheduleTest, ThreadThatIsNoLanePassesFreely) {
  Writes({0})();
  EXPECT_TRUE(Written(0));
}

TEST_F(GatedScheduleTest, StepDoesOneOperation) {
  schedule_.Start(0, Writes({0, 1}));
  schedule_.Settle();
  EXPECT_EQ(schedule_.state(0), State::kParked);
  EXPECT_TRUE(schedule_.AtChange(0));
  EXPECT_FALSE(Written(0));
  schedule_.Step(0);
  schedule_.Settle();
  EXPECT_EQ(schedule_.state(0), State::kParked);
  EXPECT_TRUE(Written(0));
  EXPECT_FALSE(Written(1));
  schedule_.Step(0);
  schedule_.Settle();
  EXPECT_EQ(schedule_.state(0), State::kDone);
  EXPECT_TRUE(Written(1));
  schedule_.Finish(0);
  EXPECT_EQ(schedule_.state(0), State::kIdle);
}

TEST_F(GatedScheduleTest, LanesChangePlacesAsTold) {
  schedule_.Start(0, Writes({0, 1}));
  schedule_.Start(1, Writes({2, 3}));
  schedule_.Settle();
  schedule_.Step(1);
  schedule_.Settle();
  schedule_.Step(1);
  schedule_.Settle();
  EXPECT_EQ(schedule_.state(0), State::kParked);
  EXPECT_EQ(schedule_.state(1), State::kDone);
  EXPECT_TRUE(Written(3));
  EXPECT_FALSE(Written(0));
  schedule_.LetGo();
  EXPECT_TRUE(Written(1));
}

TEST_F(GatedScheduleTest, LaneThatNeedsALockWaitsUntilItIsFree) {
  Mutex mutex;
  const auto locked = [&](uint64_t place) {
    return [&, place] {
      MutexLock lock(mutex);
      // Gives a Settle that looks too early the time to do so.
      for (int i = 0; i < 1000; i++) std::this_thread::yield();
      Writes({place})();
      for (int i = 0; i < 1000; i++) std::this_thread::yield();
    };
  };
  // The lower number waits, so that it is not looked at last by chance.
  schedule_.Start(1, locked(1));
  schedule_.Settle();
  schedule_.Start(0, locked(0));
  schedule_.Settle();
  EXPECT_EQ(schedule_.state(1), State::kParked);
  EXPECT_EQ(schedule_.state(0), State::kWaiting);
  schedule_.Step(1);
  schedule_.Settle();
  EXPECT_EQ(schedule_.state(1), State::kDone);
  EXPECT_EQ(schedule_.state(0), State::kParked);
  schedule_.LetGo();
  EXPECT_TRUE(Written(0));
}

TEST_F(GatedScheduleTest, LetGoEndsWithAllLanesIdle) {
  schedule_.Start(0, Writes({0, 1, 2, 3}));
  schedule_.Start(1, Writes({4, 5, 6, 7}));
  schedule_.LetGo();
  for (uint64_t place = 0; place < 8; place++) EXPECT_TRUE(Written(place)) << place;
  EXPECT_EQ(schedule_.state(0), State::kIdle);
  schedule_.Start(0, Writes({8}));
  schedule_.Settle();
  EXPECT_EQ(schedule_.state(0), State::kParked);
}

}  // namespace
}  // namespace addcow
