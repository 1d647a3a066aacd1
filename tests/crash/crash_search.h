// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The crash search: random runs, one after the other or several at a time,
// until so many states have been looked at or one is wrong.
//
// Run number i has the seed `seed` + i and depends on nothing else. So a
// search that is given the seed of a run begins with that run.

#ifndef ADDCOW_TESTS_CRASH_CRASH_SEARCH_H
#define ADDCOW_TESTS_CRASH_CRASH_SEARCH_H

#include <cstdint>
#include <functional>
#include <string>

#include "tests/crash/crash_harness.h"

namespace addcow {

struct CrashSearchReport {
  uint64_t states = 0;
  uint64_t disks = 0;           // runs
  CrashHarness::Counts counts;  // what was done, how often
  std::string wrong;            // empty: nothing
  uint64_t wrong_seed = 0;      // of the run that found it

  // One line for each count.
  std::string Counted() const;
};

// So that one disk does not take most of the states.
inline constexpr uint64_t kStatesOfADisk = 4000;

// `progress` is called after each run, by one thread at a time.
CrashSearchReport SearchCrashes(
    uint64_t seed, uint64_t states, uint64_t jobs = 1,
    const std::function<void(const CrashSearchReport&)>& progress = nullptr);

}  // namespace addcow

#endif  // ADDCOW_TESTS_CRASH_CRASH_SEARCH_H
