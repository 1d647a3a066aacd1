// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A clock to time what is short and happens all the time. clock_gettime(2) costs 80
// instructions, of a request two times; the processor's own counter costs one. It is used
// where it counts at one rate (x86-64 with an invariant TSC, AArch64), and only for
// statistics: what has to be right takes std::chrono.
//
// Threads: any, but for CalibrateTicks.

#ifndef ADDCOW_COMMON_BASE_TICKS_H
#define ADDCOW_COMMON_BASE_TICKS_H

#include <chrono>
#include <cstdint>

#ifdef __x86_64__
#include <x86intrin.h>
#endif

namespace addcow {

// What a tick is. Constant after CalibrateTicks.
struct TickRate {
  bool of_processor = false;   // else of the system's clock, in nanoseconds
  double microseconds = 1e-3;  // a tick's
};
inline constinit TickRate tick_rate;

// Looks whether the processor has such a counter, and how fast that is, which takes a
// millisecond. Before any other thread asks. Without it the system's clock is used.
void CalibrateTicks();

#if defined(__x86_64__)
inline uint64_t ProcessorTicks() { return __rdtsc(); }
#elif defined(__aarch64__)
inline uint64_t ProcessorTicks() {
  uint64_t ticks = 0;
  asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
}
#else
inline uint64_t ProcessorTicks() { return 0; }
#endif

inline uint64_t Ticks() {
  if (tick_rate.of_processor) [[likely]]
    return ProcessorTicks();
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// From `start`, of Ticks, until now; 0 where processors' counters differ by more than that.
inline uint64_t TicksSince(uint64_t start) {
  const auto ticks = static_cast<int64_t>(Ticks() - start);
  return static_cast<uint64_t>(ticks > 0 ? ticks : 0);
}

// `ticks` are a time, less than 2^63.
inline uint64_t Microseconds(uint64_t ticks) {
  const double time = static_cast<double>(static_cast<int64_t>(ticks)) * tick_rate.microseconds;
  return static_cast<uint64_t>(static_cast<int64_t>(time));
}
inline uint64_t Nanoseconds(uint64_t ticks) {
  return static_cast<uint64_t>(static_cast<double>(ticks) * tick_rate.microseconds * 1000);
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_TICKS_H
