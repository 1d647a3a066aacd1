// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How fast a fill goes: the rate that it was given, and how it gives way to clients.
//
// The measure is the share of time for which clients keep the server busy. It is looked at
// after each piece, and now and then during a rest: 1 where a request is in flight, else
// 100 us for each that came since the last look, by the time since. The share is a mean of
// these, in which the last eight or so count.
//
// After a piece that took a time, the fill rests for that, times the share, times 19. So
// with clients that never pause it works for a twentieth of the time; where they make 100
// requests a second, for five sixths of it. From a share of a tenth on the pieces are short,
// and one at a time.
//
// Plain values: no threads, no clock of its own.

#ifndef ADDCOW_COMMON_JOBS_FILL_PACE_H
#define ADDCOW_COMMON_JOBS_FILL_PACE_H

#include <chrono>
#include <cstdint>

#include "common/jobs/client_load.h"

namespace addcow {

class FillPace {
 public:
  using Clock = std::chrono::steady_clock;

  // `clients` may be null: there are none.
  FillPace(const ClientLoad* clients, uint64_t rate) : clients_(clients), rate_(rate) {}

  // Bytes a second; 0: as fast as can be. What was copied before is forgotten.
  void SetRate(uint64_t rate, Clock::time_point now) {
    rate_ = rate;
    paid_ = now;
  }
  uint64_t rate() const { return rate_; }

  // Whether clients are busy, so that pieces are to be short, and one at a time.
  bool GivesWay() const { return share_ > 0.1; }
  double share() const { return share_; }

  // When the next piece may begin, `now` or earlier: at once. To be asked again then, or
  // before: a rest ends when clients do.
  Clock::time_point Next(Clock::time_point now);

  // A piece is done, which was begun at `begun` and for which `bytes` were read.
  void Copied(uint64_t bytes, Clock::time_point begun, Clock::time_point now);

 private:
  void Look(Clock::time_point now);

  const ClientLoad* clients_;
  uint64_t rate_;
  double share_ = 0;
  uint64_t begun_ = 0;             // requests, at the last look
  Clock::time_point looked_ = {};  // at them
  Clock::time_point rest_ = {};    // until then
  Clock::time_point paid_ = {};    // until then by what was copied, at the rate
};

// Bytes a second, lately.
class FillMeter {
 public:
  using Clock = std::chrono::steady_clock;

  // Copying begins, or goes on after it stood: what was before does not count. `time` may be
  // later than now.
  void Begin(uint64_t total, Clock::time_point time);
  // `total`: all that were ever copied. As often as one likes.
  void Note(uint64_t total, Clock::time_point now);
  // 0 where no time has gone by since Begin.
  uint64_t Rate(uint64_t total, Clock::time_point now) const;

 private:
  struct Mark {
    uint64_t total = 0;
    Clock::time_point time = {};
  };
  Mark before_;
  Mark last_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_JOBS_FILL_PACE_H
