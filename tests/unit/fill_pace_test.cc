// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fill_pace: rates, and how much a fill gives way.

#include "common/jobs/fill_pace.h"

#include <gtest/gtest.h>

#include <optional>

namespace addcow {
namespace {

using std::chrono::milliseconds;

class FillPaceTest : public testing::Test {
 protected:
  using Clock = FillPace::Clock;

  // A piece that took so long.
  void Piece(FillPace& pace, Clock::duration time, uint64_t bytes = 0) {
    const auto begun = now_;
    now_ += time;
    pace.Copied(bytes, begun, now_);
  }
  void Requests(int count) {
    for (int i = 0; i < count; i++) ClientLoad::Request request(load_);
  }

  ClientLoad load_;
  Clock::time_point now_ = Clock::time_point(std::chrono::hours(1));
};

TEST_F(FillPaceTest, WithoutClientsItNeverRests) {
  FillPace pace(&load_, 0);
  for (int i = 0; i < 100; i++) {
    Piece(pace, milliseconds(10), 1000);
    EXPECT_LE(pace.Next(now_), now_);
  }
  EXPECT_FALSE(pace.GivesWay());
}

TEST_F(FillPaceTest, ClientsThatNeverPauseLeaveATwentieth) {
  FillPace pace(&load_, 0);
  const ClientLoad::Request request(load_);
  for (int i = 0; i < 100; i++) Piece(pace, milliseconds(1));
  EXPECT_TRUE(pace.GivesWay());
  const auto end = now_ + milliseconds(19);
  for (int i = 0; i < 3; i++) {
    EXPECT_EQ(pace.Next(now_), now_ + milliseconds(5));
    now_ = pace.Next(now_);
  }
  EXPECT_LE(end - pace.Next(now_), milliseconds(1));
}

TEST_F(FillPaceTest, AQuickRequestCountsForATenthOfAMillisecond) {
  FillPace pace(&load_, 0);
  for (int i = 0; i < 100; i++) {
    Requests(1);
    Piece(pace, milliseconds(1));
  }
  EXPECT_NEAR(pace.share(), 0.1, 0.01);
  for (int i = 0; i < 100; i++) {
    Requests(1000);
    Piece(pace, milliseconds(1));
  }
  EXPECT_NEAR(pace.share(), 1, 0.01);
}

TEST_F(FillPaceTest, ARestEndsWhenClientsDo) {
  FillPace pace(&load_, 0);
  {
    const ClientLoad::Request request(load_);
    for (int i = 0; i < 100; i++) Piece(pace, milliseconds(1));
    Piece(pace, milliseconds(50));
  }
  const auto begin = now_;
  while (pace.Next(now_) > now_) now_ = pace.Next(now_);
  EXPECT_LE(now_ - begin, milliseconds(300));  // of 950
}

TEST_F(FillPaceTest, ASlowPieceIsNoLongRest) {
  FillPace pace(&load_, 0);
  const ClientLoad::Request request(load_);
  for (int i = 0; i < 100; i++) Piece(pace, std::chrono::seconds(20));
  const auto begin = now_;
  while (pace.Next(now_) > now_) now_ = pace.Next(now_);
  EXPECT_LE(now_ - begin, std::chrono::seconds(1));
}

TEST_F(FillPaceTest, ARateIsNotMadeUpFor) {
  FillPace pace(nullptr, 1000);
  Piece(pace, milliseconds(10), 500);
  EXPECT_EQ(pace.Next(now_), now_ + milliseconds(490));
  now_ += std::chrono::seconds(100);
  Piece(pace, milliseconds(10), 500);
  EXPECT_EQ(pace.Next(now_), now_ + milliseconds(490));
  pace.SetRate(0, now_);
  EXPECT_LE(pace.Next(now_), now_);
}

TEST_F(FillPaceTest, TheMeterForgetsWhatWasLongAgo) {
  FillMeter meter;
  meter.Begin(0, now_);
  uint64_t total = 0;
  const auto run = [&](int ticks, uint64_t bytes) {
    for (int i = 0; i < ticks; i++) {
      now_ += milliseconds(100);
      total += bytes;
      meter.Note(total, now_);
    }
  };
  EXPECT_EQ(meter.Rate(0, now_), 0u);
  run(100, 1000);
  EXPECT_NEAR(static_cast<double>(meter.Rate(total, now_)), 10000, 1000);
  run(100, 10);
  EXPECT_NEAR(static_cast<double>(meter.Rate(total, now_)), 100, 10);
}

TEST_F(FillPaceTest, TheMeterCountsFromItsBeginning) {
  FillMeter meter;
  meter.Begin(5000, now_);
  EXPECT_EQ(meter.Rate(5000, now_), 0u);
  EXPECT_EQ(meter.Rate(6000, now_), 0u) << "no time has gone by";
  now_ += milliseconds(500);
  EXPECT_EQ(meter.Rate(6000, now_), 2000u);
  now_ += std::chrono::hours(1);
  meter.Begin(6000, now_);
  now_ += std::chrono::seconds(1);
  EXPECT_EQ(meter.Rate(6100, now_), 100u);
  EXPECT_EQ(meter.Rate(0, now_), 0u) << "less than there was";
}

TEST_F(FillPaceTest, TheMeterTellsNothingBeforeItBegins) {
  FillMeter meter;
  const auto begin = now_ + std::chrono::hours(1);
  meter.Begin(1000, begin);
  meter.Note(3000, now_);
  EXPECT_EQ(meter.Rate(3000, now_), 0u);
  EXPECT_EQ(meter.Rate(3000, begin), 0u);
  EXPECT_EQ(meter.Rate(3000, begin + std::chrono::seconds(1)), 2000u);
}

}  // namespace
}  // namespace addcow
