// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Shows how far a long verb is: one line that is drawn over and over on a
// terminal, a line for each 10 percent elsewhere.

#ifndef ADDCOW_TOOLS_PROGRESS_H
#define ADDCOW_TOOLS_PROGRESS_H

#include <chrono>
#include <cstdint>
#include <string>

namespace addcow {

// One thread.
class Progress {
 public:
  // Not `enabled`: shows nothing.
  explicit Progress(bool enabled);

  // `done` of `total` bytes. Cheap enough to be called very often. The first
  // call is the beginning. Where there is nothing to do, nothing is shown.
  void Show(uint64_t done, uint64_t total);

  // Ends the line, so that what is printed next has its own.
  void Finish();

 private:
  using Clock = std::chrono::steady_clock;

  void Draw(double fraction, uint64_t done, uint64_t total, Clock::time_point now);
  std::string RateAndTime(uint64_t done, uint64_t total, Clock::time_point now) const;

  const bool enabled_;
  const bool terminal_;
  bool started_ = false;
  Clock::time_point start_;
  Clock::time_point last_drawn_;
  int last_tenth_ = 0;
};

}  // namespace addcow

#endif  // ADDCOW_TOOLS_PROGRESS_H
