// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fill_pace.h.

#include "common/jobs/fill_pace.h"

#include <algorithm>

namespace addcow {

namespace {

using Seconds = std::chrono::duration<double>;

constexpr double kBusyOfRequest = 100e-6;  // seconds
constexpr double kMostRest = 19;           // times what a piece took
constexpr double kWeight = 1.0 / 8;        // of a new look

// So that clients that are gone are seen soon, and a slow piece is no long rest.
constexpr std::chrono::milliseconds kLookInterval(5);
constexpr std::chrono::seconds kLongestRest(1);

// Over which a rate is told.
constexpr std::chrono::seconds kMeterInterval(2);

FillPace::Clock::duration ToDuration(double seconds) {
  return std::chrono::duration_cast<FillPace::Clock::duration>(Seconds(seconds));
}

}  // namespace

void FillPace::Look(Clock::time_point now) {
  if (clients_ == nullptr) return;
  const ClientLoad::Look look = clients_->Now();
  const double elapsed = std::max(Seconds(now - looked_).count(), 1e-9);
  const double busy = static_cast<double>(look.begun - begun_) * kBusyOfRequest / elapsed;
  const double sample = look.in_flight > 0 ? 1 : std::min(busy, 1.0);
  share_ += (sample - share_) * kWeight;
  begun_ = look.begun;
  looked_ = now;
}

FillPace::Clock::time_point FillPace::Next(Clock::time_point now) {
  if (rest_ > now && now - looked_ >= kLookInterval) {
    const double before = share_;
    Look(now);
    // Half of what is left, where there are half as many clients.
    if (share_ < before)
      rest_ = now + ToDuration(Seconds(rest_ - now).count() * share_ / before);
  }
  if (rest_ > now) return std::max(std::min(rest_, now + kLookInterval), paid_);
  return paid_;
}

void FillPace::Copied(uint64_t bytes, Clock::time_point begun, Clock::time_point now) {
  Look(now);
  const double rest = Seconds(now - begun).count() * share_ * kMostRest;
  rest_ = now + std::min<Clock::duration>(ToDuration(rest), kLongestRest);
  if (rate_ == 0 || bytes == 0) return;
  // Time in which nothing was copied is not made up for.
  paid_ = std::max(paid_, begun) +
          ToDuration(static_cast<double>(bytes) / static_cast<double>(rate_));
}

void FillMeter::Begin(uint64_t total, Clock::time_point time) {
  before_ = last_ = {total, time};
}

void FillMeter::Note(uint64_t total, Clock::time_point now) {
  if (now - last_.time < kMeterInterval) return;
  before_ = last_;
  last_ = {total, now};
}

uint64_t FillMeter::Rate(uint64_t total, Clock::time_point now) const {
  const double elapsed = Seconds(now - before_.time).count();
  if (elapsed <= 0 || total < before_.total) return 0;
  return static_cast<uint64_t>(static_cast<double>(total - before_.total) / elapsed);
}

}  // namespace addcow
