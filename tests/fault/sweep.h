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

#include "common/base/log.h"
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

// How many faults a sweep tried, as a comment in TAP.
inline void PrintCount(uint64_t faults) { std::printf("# %" PRIu64 " faults\n", faults); }

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
