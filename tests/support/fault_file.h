// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FaultPlan makes the N-th operation fail, counted over all files and the
// file systems that share the plan. A sweep runs the same actions with
// N = 1, 2, 3, ... until a run in which the fault did not fire; so every
// operation that the code does has failed once, without a list of them.
//
// Faults: an errno (the operation is not done); a short transfer (half of a
// read or write is done and reported); a torn write (half is done, then the
// errno). Transient: that one operation only. Persistent: from it on, every
// operation of the kinds that the plan counts.
//
// Threads: any. Which operation is the N-th is only determined where one
// thread works.

#ifndef ADDCOW_TESTS_SUPPORT_FAULT_FILE_H
#define ADDCOW_TESTS_SUPPORT_FAULT_FILE_H

#include <cstdint>
#include <functional>
#include <string>

#include "common/base/mutex.h"
#include "tests/support/forwarding_file.h"

namespace addcow {

class FaultPlan final : public Interceptor {
 public:
  enum class Effect {
    kError,  // fails, nothing done
    kShort,  // transfers half (at least one byte), no error
    kTorn,   // a write of half (perhaps nothing), then the error
  };
  enum class Lasting { kTransient, kPersistent };

  struct Fault {
    uint64_t at = 0;  // 1 is the first operation; 0: never
    int error = EIO;
    Effect effect = Effect::kError;
    Lasting lasting = Lasting::kTransient;
    // Which operations are counted and hit; null: all.
    std::function<bool(const Operation&)> where = nullptr;
  };

  FaultPlan() = default;
  explicit FaultPlan(Fault fault) : fault_(std::move(fault)) {}

  // Starts anew: counts from 1 again.
  void Set(Fault fault);
  void Clear() { Set({}); }

  uint64_t counted() const;
  bool fired() const;
  // What was hit first, for messages; empty where nothing was.
  std::string hit() const;

  Verdict Before(const Operation& operation) override;

 private:
  static bool Applies(const Fault& fault, const Operation& operation);

  mutable Mutex mutex_;
  Fault fault_ ADDCOW_GUARDED_BY(mutex_);
  uint64_t counted_ ADDCOW_GUARDED_BY(mutex_) = 0;
  bool fired_ ADDCOW_GUARDED_BY(mutex_) = false;
  std::string hit_ ADDCOW_GUARDED_BY(mutex_);
};

// For Fault::where: changes and syncs, what a full or broken disk refuses.
inline bool ChangesOrSyncs(const Operation& operation) {
  return IsChange(operation.kind) || IsSync(operation.kind);
}

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_FAULT_FILE_H
