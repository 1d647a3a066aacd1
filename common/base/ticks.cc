// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See ticks.h.

#include "common/base/ticks.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace addcow {

namespace {

// A counter that runs at one rate, also in another state of the processor, and is the same
// on all of them. On AArch64 there is no other.
bool HasSteadyCounter() {
#if defined(__x86_64__)
  constexpr unsigned kPowerManagement = 0x80000007;
  constexpr unsigned kInvariant = 1u << 8;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(kPowerManagement, &a, &b, &c, &d) == 1 && (d & kInvariant) != 0;
#elif defined(__aarch64__)
  return true;
#else
  return false;
#endif
}

}  // namespace

void CalibrateTicks() {
  using Clock = std::chrono::steady_clock;
  if (!HasSteadyCounter()) return;
  // Read one after the other, the two are half a microsecond apart at worst where nobody
  // interrupts: of a millisecond that is less than a thousandth.
  constexpr auto kLongEnough = std::chrono::milliseconds(1);
  const auto start = Clock::now();
  const uint64_t first = ProcessorTicks();
  auto now = start;
  while (now - start < kLongEnough) now = Clock::now();
  const uint64_t ticks = ProcessorTicks() - first;
  if (ticks == 0 || ticks > uint64_t{1} << 32) return;  // it does not count as it should
  tick_rate = {.of_processor = true,
               .microseconds = std::chrono::duration<double, std::micro>(now - start).count() /
                               static_cast<double>(ticks)};
}

}  // namespace addcow
