// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The ways in which operations are made to fail, one sweep each. A sweep runs
// the same actions again and again and fails operation 1, 2, 3, ... until a
// run in which nothing failed (FaultPlan).

#ifndef ADDCOW_TESTS_FAULT_SWEEP_H
#define ADDCOW_TESTS_FAULT_SWEEP_H

#include <gtest/gtest.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <string>
#include <tuple>

#include "common/base/log.h"
#include "tests/support/expect.h"
#include "tests/support/fault_file.h"
#include "tests/support/forwarding_file.h"

namespace addcow {

struct Sweep {
  const char* name;
  int error;
  FaultPlan::Effect effect;
  FaultPlan::Lasting lasting;
  bool visible;  // false: nobody may notice

  FaultPlan::Fault At(uint64_t at) const {
    return {.at = at, .error = error, .effect = effect, .lasting = lasting, .where = nullptr};
  }

  // GoogleTest would print the bytes, the padding's too, which valgrind minds.
  friend void PrintTo(const Sweep& sweep, std::ostream* out) { *out << sweep.name; }
};

inline constexpr Sweep kSweeps[] = {
    {"EioOnce", EIO, FaultPlan::Effect::kError, FaultPlan::Lasting::kTransient, true},
    {"EioForEver", EIO, FaultPlan::Effect::kError, FaultPlan::Lasting::kPersistent, true},
    {"EnospcOnce", ENOSPC, FaultPlan::Effect::kError, FaultPlan::Lasting::kTransient, true},
    {"EnospcForEver", ENOSPC, FaultPlan::Effect::kError, FaultPlan::Lasting::kPersistent, true},
    {"TornOnce", EIO, FaultPlan::Effect::kTorn, FaultPlan::Lasting::kTransient, true},
    {"TornAndFull", ENOSPC, FaultPlan::Effect::kTorn, FaultPlan::Lasting::kPersistent, true},
    {"EintrOnce", EINTR, FaultPlan::Effect::kError, FaultPlan::Lasting::kTransient, false},
    {"ShortOnce", 0, FaultPlan::Effect::kShort, FaultPlan::Lasting::kTransient, false},
    {"ShortForEver", 0, FaultPlan::Effect::kShort, FaultPlan::Lasting::kPersistent, false},
};

inline std::string SweepName(const testing::TestParamInfo<Sweep>& sweep) {
  return sweep.param.name;
}

inline void NoLog(LogLevel, const std::string&) {}

// After run `at` of a sweep: whether it was the last, for nothing failed any more, or the test
// has. Prints how many faults were tried, as a comment in TAP. `least`: so many there must be.
[[nodiscard]] inline bool SweepEnds(uint64_t at, bool fired, uint64_t least = 0) {
  constexpr uint64_t kMostFaults = 10000;
  if (!fired) {
    EXPECT_GT(at, least) << "hardly an operation was tried";
    std::printf("# %" PRIu64 " faults\n", at - 1);
    return true;
  }
  EXPECT_LT(at, kMostFaults) << "the sweep does not end";
  if (!testing::Test::HasFailure()) return false;
  ADD_FAILURE() << "fault " << at;
  return true;
}

// That an action failed, since an operation did: with the errno of the fault, or EIO.
template <typename T>
testing::AssertionResult FailsOfFault(const Result<T>& result, const FaultPlan& plan,
                                      const Sweep& sweep) {
  if (!plan.fired() || !sweep.visible)
    return testing::AssertionFailure() << "without a fault: " << result.error().Message();
  if (result.error().code() == EIO || result.error().code() == sweep.error)
    return testing::AssertionSuccess();
  return FailsWith(result, sweep.error);
}

// The names of tests that combine a table, whose entries have names, with the sweeps.
inline constexpr auto kCaseAndSweepName = [](const auto& one) {
  return std::string(std::get<0>(one.param).name) + std::get<1>(one.param).name;
};

// Remembers whether a sync has failed: from then on the engine must refuse to
// write, and only then. A sync that a signal interrupted is tried again. A
// durable write is a sync, but where it only finds no room. So is a start of
// writeback, for what it finds out.
class SyncWatch final : public Interceptor {
 public:
  void After(const Operation& operation, int error) override {
    const bool sync = operation.kind == OpKind::kSyncData ||
                      operation.kind == OpKind::kWriteDurably ||
                      operation.kind == OpKind::kStartWriteback;
    const bool no_room = operation.kind == OpKind::kWriteDurably && error == ENOSPC;
    if (sync && error != 0 && error != EINTR && !no_room) failed_ = true;
  }
  bool failed() const { return failed_; }

 private:
  bool failed_ = false;  // one thread only, as in every sweep
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_FAULT_SWEEP_H
