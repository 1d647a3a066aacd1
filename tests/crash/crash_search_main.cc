// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The long crash search: "make crash-search SEED=... STATES=...". From the
// environment: ADDCOW_SEED (new each time), ADDCOW_CRASH_STATES (ten million),
// ADDCOW_CRASH_JOBS (one for each processor). Exits with 1 where a state is
// wrong, and says how to see that again.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "tests/crash/crash_search.h"

int main() {
  using namespace addcow;
  using Clock = std::chrono::steady_clock;
  const uint64_t seed = TestSeed();
  const uint64_t states = EnvironmentNumber("ADDCOW_CRASH_STATES", 10000000);
  const uint64_t jobs = EnvironmentNumber(
      "ADDCOW_CRASH_JOBS", std::max<uint64_t>(std::thread::hardware_concurrency(), 1));
  const Clock::time_point start = Clock::now();
  const auto seconds = [&] {
    return std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - start).count();
  };

  fmt::print("crash search: SEED={} STATES={}, {} at a time\n", seed, states, jobs);
  std::fflush(stdout);
  auto last = seconds();
  const CrashSearchReport report =
      SearchCrashes(seed, states, jobs, [&](const CrashSearchReport& now) {
        if (seconds() < last + 10) return;
        last = seconds();
        fmt::print("{} states of {} disks in {} s\n", now.states, now.disks, last);
        std::fflush(stdout);
      });
  fmt::print("{} states of {} disks in {} s, SEED={}; done in them:\n{}", report.states,
             report.disks, seconds(), seed, report.Counted());
  if (report.wrong.empty()) {
    fmt::print("nothing is wrong\n");
    return 0;
  }
  fmt::print("WRONG: {}\nrepeat it: make crash-search SEED={} STATES=1\n", report.wrong,
             report.wrong_seed);
  return 1;
}
