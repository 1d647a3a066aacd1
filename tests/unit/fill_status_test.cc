// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fill: what its status says of how far it is, also after a failure, and what
// Resume does to a delay.

#include <cerrno>
#include <utility>

#include "tests/support/fill_fixture.h"

namespace addcow {
namespace {

using std::chrono::hours;

class FillStatusTest : public FillFixture {
 protected:
  // Writes to the image file that touch what lies at `offset` and beyond fail, as those of a
  // process that may make no larger file.
  void LimitFileSize(uint64_t offset) {
    faults_.Set({.at = 1,
                 .error = EFBIG,
                 .lasting = FaultPlan::Lasting::kPersistent,
                 .where = [offset](const Operation& operation) {
                   return operation.kind == OpKind::kWrite && operation.path == kImagePath &&
                          operation.offset + operation.length > offset;
                 }});
  }
  // What it says, and what is so.
  void ExpectTrue(uint64_t copied_before = 0) {
    const FillStatus status = fill_->status();
    const uint64_t filled = image_->bitmap().allocated() * kC;
    EXPECT_EQ(status.copied, filled - copied_before);
    EXPECT_EQ(status.left, reference_->size() - filled);
    for (uint64_t i = 0; i < status.position / kC; i++)
      EXPECT_TRUE(IsAllocated(i)) << i << " lies before " << status.position;
  }
};

TEST_F(FillStatusTest, OfAPieceThatFailedInPartWhatWasHadCounts) {
  MakeFill({.size = 16 * kC, .backing_size = 16 * kC}, {.piece = 4 * kC});
  LimitFileSize(6 * kC);
  ASSERT_OK(fill_->Start(FillMode::kAll));
  RunFill();
  EXPECT_EQ(State(), FillState::kWaiting);
  EXPECT_EQ(fill_->status().copied, 6 * kC);
  EXPECT_EQ(fill_->status().position, 6 * kC);
  ExpectTrue();
  // Also later in the round, and in the next one.
  for (int i = 0; i < 10; i++) {
    Pass(hours(1));
    RunFill();
    EXPECT_EQ(fill_->status().position, 6 * kC);
    ExpectTrue();
  }
  faults_.Clear();
  Pass(hours(1));
  RunFill();
  EXPECT_EQ(State(), FillState::kDone);
  EXPECT_EQ(fill_->status().copied, 16 * kC);
  EXPECT_EQ(fill_->status().position, 16 * kC);
}

TEST_F(FillStatusTest, WhatCouldNotBeReadIsNotBeforeThePosition) {
  MakeFill({.size = 16 * kC, .backing_size = 16 * kC}, {.piece = 2 * kC});
  source_->Break({5 * kC + 100, 1});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  for (int i = 0; i < 20; i++) {
    RunFill();
    EXPECT_LE(fill_->status().position, 5 * kC);
    ExpectTrue();
    Pass(hours(1));
  }
  EXPECT_EQ(image_->bitmap().allocated(), 15u);
  EXPECT_EQ(fill_->status().copied, 15 * kC);
  EXPECT_EQ(fill_->status().position, 5 * kC);
  source_->Mend();
  RunFill();
  EXPECT_EQ(fill_->status().copied, 16 * kC);
  EXPECT_EQ(fill_->status().position, 16 * kC);
}

TEST_F(FillStatusTest, WhatClientsHaveWrittenItHasNotCopied) {
  MakeFill({.size = 16 * kC, .backing_size = 16 * kC}, {.piece = 4 * kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  // While the first piece is on its way.
  bool written = false;
  source_->before_read = [&] {
    if (!std::exchange(written, true)) Write(kC, kC);
  };
  ASSERT_TRUE(fill_->Step().worked);
  EXPECT_EQ(fill_->status().copied, 3 * kC);
  ExpectTrue(kC);
  RunFill();
  EXPECT_EQ(fill_->status().copied, 15 * kC);
  ExpectImageFileIsTheDisk();
}

TEST_F(FillStatusTest, OfTouchedClustersToo) {
  MakeFill({.size = 16 * kC, .backing_size = 16 * kC}, {.piece = 4 * kC});
  for (const uint64_t i : {2u, 3u, 4u, 9u}) Write(i * kC, kS);
  source_->Break({3 * kC, kC});
  ASSERT_OK(fill_->Start(FillMode::kTouched));
  for (int i = 0; i < 10; i++) {
    RunFill();
    EXPECT_LE(fill_->status().position, 3 * kC);
    Pass(hours(1));
  }
  EXPECT_EQ(fill_->status().position, 3 * kC);
  EXPECT_EQ(fill_->status().copied, 3 * kC);
  EXPECT_EQ(fill_->status().left, kC);
}

TEST_F(FillStatusTest, ResumeEndsADelay) {
  MakeFill({}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll, hours(1)));
  EXPECT_EQ(RunFill(), 0);
  ASSERT_OK(fill_->Resume());
  EXPECT_EQ(State(), FillState::kRunning);
  EXPECT_EQ(fill_->status().rate, 0u);
  RunFill();
  ExpectImageFileIsTheDisk();
}

TEST_F(FillStatusTest, ResumeEndsAPauseOfADelayAndTheDelay) {
  MakeFill({}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll, hours(1)));
  ASSERT_OK(fill_->Pause());
  EXPECT_EQ(State(), FillState::kPaused);
  ASSERT_OK(fill_->Resume());
  EXPECT_EQ(State(), FillState::kRunning);
  RunFill();
  EXPECT_EQ(State(), FillState::kDone);
}

}  // namespace
}  // namespace addcow
