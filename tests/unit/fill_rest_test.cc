// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fill while it copies nothing: a rest, a pause, a delay and an outage are no
// time of copying, and where nothing is left none is waited for.

#include "tests/support/fill_fixture.h"

namespace addcow {
namespace {

using std::chrono::hours;

class FillRestTest : public FillFixture {
 protected:
  // Four clusters in a second.
  void CopyForSeconds(int count) {
    for (int i = 0; i < 4 * count; i++) {
      ASSERT_TRUE(fill_->Step().worked);
      Pass(std::chrono::milliseconds(250));
    }
  }
  void ExpectFourClustersASecond() {
    EXPECT_EQ(State(), FillState::kRunning);
    EXPECT_NEAR(static_cast<double>(fill_->status().rate), 4 * kC, kC);
  }
};

TEST_F(FillRestTest, APauseIsNoTimeOfCopying) {
  MakeFill({.size = 64 * kC, .backing_size = 64 * kC}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  EXPECT_EQ(fill_->status().rate, 0u);
  CopyForSeconds(8);
  ExpectFourClustersASecond();
  ASSERT_OK(fill_->Pause());
  Pass(hours(1));
  EXPECT_EQ(fill_->status().rate, 0u);
  ASSERT_OK(fill_->Resume());
  EXPECT_EQ(fill_->status().rate, 0u);
  CopyForSeconds(4);
  ExpectFourClustersASecond();
  // Where it was not paused it is as it was.
  ASSERT_OK(fill_->Resume());
  ExpectFourClustersASecond();
}

TEST_F(FillRestTest, ADelayIsNoTimeOfCopying) {
  MakeFill({.size = 64 * kC, .backing_size = 64 * kC}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll, hours(1)));
  EXPECT_EQ(fill_->status().rate, 0u);
  Pass(hours(1));
  EXPECT_EQ(fill_->status().rate, 0u);
  CopyForSeconds(1);
  ExpectFourClustersASecond();
  CopyForSeconds(4);
  ExpectFourClustersASecond();
}

TEST_F(FillRestTest, AnOutageIsNoTimeOfCopying) {
  MakeFill({.size = 64 * kC, .backing_size = 64 * kC}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  CopyForSeconds(4);
  source_->Break({0, 64 * kC});
  for (int i = 0; i < 10; i++) {
    RunFill();
    Pass(std::chrono::seconds(60));
  }
  EXPECT_EQ(State(), FillState::kWaiting);
  EXPECT_EQ(fill_->status().rate, 0u);
  source_->Mend();
  CopyForSeconds(2);
  ExpectFourClustersASecond();
}

TEST_F(FillRestTest, TimeInWhichNothingWasTouchedIsNoTimeOfCopying) {
  MakeFill({.size = 64 * kC, .backing_size = 64 * kC}, {.piece = kC});
  Write(63 * kC, kS);
  ASSERT_OK(fill_->Start(FillMode::kTouched));
  RunFill();
  EXPECT_EQ(State(), FillState::kDone);
  Pass(hours(1));
  for (uint64_t i = 0; i < 31; i++) Write(2 * i * kC, kS);
  CopyForSeconds(2);
  ExpectFourClustersASecond();
}

TEST_F(FillRestTest, WhatClientsHaveCompletedIsDoneAtOnceWhateverTheRateIs) {
  for (const FillMode mode : {FillMode::kAll, FillMode::kTouched}) {
    MakeFill({.size = 8 * kC, .backing_size = 8 * kC}, {.rate = 1});
    for (uint64_t i = 0; i < 8; i++) Write(i * kC, kS);
    ASSERT_OK(fill_->Start(mode));
    ASSERT_TRUE(fill_->Step().worked);
    EXPECT_GE(WaitsFor(), hours(10));
    EXPECT_EQ(State(), FillState::kRunning);
    Write(0, 8 * kC);
    EXPECT_EQ(fill_->status().left, 0u);
    RunFill();
    EXPECT_EQ(State(), FillState::kDone);
  }
}

// What failed has its second round also where the fill rests before that.
TEST_F(FillRestTest, AtARateWhatFailedIsTriedAgain) {
  MakeFill({.size = 8 * kC, .backing_size = 8 * kC}, {.rate = kC, .piece = kC});
  source_->Break({2 * kC, kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  const auto step = [&] {
    if (const Fill::Turn turn = fill_->Step(); !turn.worked) now_ = turn.next;
  };
  for (int i = 0; i < 100 && image_->bitmap().allocated() < 7; i++) step();
  EXPECT_EQ(image_->bitmap().allocated(), 7u);
  EXPECT_FALSE(IsAllocated(2));
  source_->Mend();
  for (int i = 0; i < 100 && State() != FillState::kDone; i++) step();
  EXPECT_EQ(State(), FillState::kDone);
  ExpectImageFileIsTheDisk();
}

// It is done no more when there is something again, also while it rests before that.
TEST_F(FillRestTest, RestsBeforeWhatItHasFoundWhenItLookedAgain) {
  MakeFill({.size = 8 * kC, .backing_size = 8 * kC},
           {.rate = kC / 100, .piece = kC, .look_again = std::chrono::seconds(5)});
  Write(0, kS);
  ASSERT_OK(fill_->Start(FillMode::kTouched));
  RunFill();
  ASSERT_EQ(State(), FillState::kDone);
  Write(3 * kC, kS);
  EXPECT_EQ(State(), FillState::kDone);
  Pass(std::chrono::seconds(5));
  EXPECT_GE(WaitsFor(), std::chrono::seconds(80));
  EXPECT_EQ(State(), FillState::kRunning);
  EXPECT_EQ(fill_->status().position, 3 * kC) << "looked for once";
  Pass(std::chrono::seconds(100));
  RunFill();
  EXPECT_EQ(State(), FillState::kDone);
  EXPECT_TRUE(IsAllocated(3));
}

}  // namespace
}  // namespace addcow
