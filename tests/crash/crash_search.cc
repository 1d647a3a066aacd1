// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See crash_search.h.

#include "tests/crash/crash_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "tests/crash/random_run.h"

namespace addcow {

namespace {

class Searcher {
 public:
  Searcher(uint64_t seed, uint64_t states,
           const std::function<void(const CrashSearchReport&)>& progress)
      : seed_(seed), states_(states), progress_(progress) {}

  // Does runs until the search is over. Any number of threads.
  void Work() {
    for (uint64_t run = 0, limit = 0; NextRun(run, limit);) {
      RandomRun random_run(seed_ + run);
      random_run.Run(limit);
      Add(seed_ + run, random_run.harness());
    }
  }

  CrashSearchReport report() {
    MutexLock lock(mutex_);
    return report_;
  }

 private:
  bool NextRun(uint64_t& run, uint64_t& limit) {
    MutexLock lock(mutex_);
    if (report_.states >= states_ || !report_.wrong.empty()) return false;
    run = next_++;
    limit = std::min(states_ - report_.states, kStatesOfADisk);
    return true;
  }

  void Add(uint64_t seed, const CrashHarness& harness) {
    MutexLock lock(mutex_);
    report_.disks++;
    report_.states += harness.states();
    for (const auto& [what, count] : harness.counts()) report_.counts[what] += count;
    if (report_.wrong.empty() && !harness.wrong().empty()) {
      report_.wrong = harness.wrong();
      report_.wrong_seed = seed;
    }
    if (progress_) progress_(report_);
  }

  const uint64_t seed_;
  const uint64_t states_;
  const std::function<void(const CrashSearchReport&)>& progress_;

  Mutex mutex_;
  uint64_t next_ ADDCOW_GUARDED_BY(mutex_) = 0;
  CrashSearchReport report_ ADDCOW_GUARDED_BY(mutex_);
};

}  // namespace

std::string CrashSearchReport::Counted() const {
  std::string text;
  for (const auto& [what, count] : counts) text += fmt::format("{:>9} {}\n", count, what);
  return text;
}

CrashSearchReport SearchCrashes(uint64_t seed, uint64_t states, uint64_t jobs,
                                const std::function<void(const CrashSearchReport&)>& progress) {
  Searcher searcher(seed, states, progress);
  std::vector<std::thread> others;
  for (uint64_t i = 1; i < jobs; i++) others.emplace_back([&] { searcher.Work(); });
  searcher.Work();
  for (std::thread& other : others) other.join();
  return searcher.report();
}

}  // namespace addcow
