// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See progress.h.

#include "tools/progress.h"

#include <unistd.h>

#include "tools/output.h"
#include "tools/status_text.h"

namespace addcow {

namespace {

// How often the line on a terminal is drawn.
constexpr std::chrono::milliseconds kDrawInterval(200);

// Before this a rate says nothing.
constexpr std::chrono::milliseconds kRateInterval(500);

constexpr size_t kBarWidth = 24;

}  // namespace

Progress::Progress(bool enabled)
    : enabled_(enabled), terminal_(enabled && ::isatty(STDOUT_FILENO) == 1) {}

void Progress::Show(uint64_t done, uint64_t total) {
  if (!enabled_ || total == 0) return;
  const Clock::time_point now = Clock::now();
  if (!started_) {
    start_ = now;
    last_drawn_ = now - kDrawInterval;
    started_ = true;
  }
  const double fraction = static_cast<double>(done) / static_cast<double>(total);
  if (terminal_) {
    if (done < total && now - last_drawn_ < kDrawInterval) return;
    last_drawn_ = now;
    Draw(fraction, done, total, now);
    return;
  }
  const int tenth = static_cast<int>(fraction * 10);
  if (tenth <= last_tenth_) return;
  last_tenth_ = tenth;
  Print("{}% of {}{}\n", 10 * tenth, HumanSize(total), RateAndTime(done, total, now));
  FlushOutput();
}

void Progress::Draw(double fraction, uint64_t done, uint64_t total, Clock::time_point now) {
  const auto filled = static_cast<size_t>(fraction * kBarWidth);
  // \033[K: what an earlier, longer line left over is cleared.
  Print("\r[{}{}] {:6.2f}% of {}{}\033[K", std::string(filled, '='),
        std::string(kBarWidth - filled, ' '), 100 * fraction, HumanSize(total),
        RateAndTime(done, total, now));
  FlushOutput();
}

std::string Progress::RateAndTime(uint64_t done, uint64_t total, Clock::time_point now) const {
  if (now - start_ < kRateInterval || done == 0) return "";
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done) / seconds;
  const std::string text = fmt::format(", {}/s", HumanSize(static_cast<uint64_t>(rate)));
  if (done >= total) return text + ", took " + HumanTime(seconds);
  return text + ", " + HumanTime(static_cast<double>(total - done) / rate) + " left";
}

void Progress::Finish() {
  if (terminal_ && started_) PrintText("\n");
}

}  // namespace addcow
