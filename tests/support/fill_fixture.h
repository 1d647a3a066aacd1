// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A fixture of the fill: an image on a base behind a double (source_double.h), and a Fill
// over it whose thread is the test, with a clock that the test moves.

#ifndef ADDCOW_TESTS_SUPPORT_FILL_FIXTURE_H
#define ADDCOW_TESTS_SUPPORT_FILL_FIXTURE_H

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "common/jobs/fill.h"
#include "tests/support/engine_lines.h"
#include "tests/support/source_double.h"

namespace addcow {

class FillFixture : public EngineLines {
 protected:
  using Clock = Fill::Clock;

  void TearDown() override { fill_.reset(); }

  void MakeFill(const ImageSpec& spec, Fill::Options options = {}) {
    fill_.reset();
    Make(spec);
    Open(options);
  }
  // As a new process does. The old one's image is dropped, not closed.
  void Open(Fill::Options options = {}) {
    fill_.reset();
    image_.reset();
    const auto log = [this](LogLevel, const std::string& message) {
      messages_.push_back(message);
    };
    ASSERT_OK_AND_ASSIGN(
        image_, OpenOnDouble(seam_, {.add_cow_path = kAddCowPath, .subclusters = subclusters_},
                             log, &source_));
    options.now = [this] { return now_; };
    options.clients = &clients_;
    options.done = [this] { done_++; };
    fill_.emplace(*image_, options, log);
    log_.Clear();
  }

  // Steps until there is nothing to be done now. How many there were.
  int RunFill() {
    int steps = 0;
    while (fill_->Step().worked) steps++;
    return steps;
  }
  void FillAll() {
    ASSERT_OK(fill_->Start(FillMode::kAll));
    RunFill();
    EXPECT_EQ(fill_->status().state, FillState::kDone);
  }
  FillState State() { return fill_->status().state; }
  void Pass(Clock::duration time) { now_ += time; }
  // When it wants to be asked again.
  Clock::duration WaitsFor() {
    const Fill::Turn turn = fill_->Step();
    EXPECT_FALSE(turn.worked);
    return turn.next - now_;
  }
  size_t Logged(const std::string& text) const {
    size_t count = 0;
    for (const std::string& message : messages_)
      if (message.find(text) != std::string::npos) count++;
    return count;
  }
  // The image file, alone and in a new process.
  void ExpectImageFileIsTheDisk() {
    EXPECT_EQ(reference_->Check(Inode(kImagePath).Bytes(0, reference_->size()), 0), "");
    EXPECT_TRUE(FlagOnDisk());
    (void)fake_.Remove(kBackingPath);
    ExpectAsReference();
    fill_.reset();
    Reopen();
    ExpectAsReference();
  }

  SourceDouble* source_ = nullptr;  // until it is let go
  ClientLoad clients_;
  Clock::time_point now_ = Clock::time_point(std::chrono::hours(1000));
  int done_ = 0;
  std::optional<Fill> fill_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_FILL_FIXTURE_H
