// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One run of the crash search: a random disk and random requests of every
// kind on it, by one thread and by several, with processes that are killed,
// syncs and writes that fail, and crashes one after the other on the same
// files. CrashHarness looks at what a crash may leave at every moment.
//
// The seed decides everything.

#ifndef ADDCOW_TESTS_CRASH_RANDOM_RUN_H
#define ADDCOW_TESTS_CRASH_RANDOM_RUN_H

#include <cstdint>

#include "tests/crash/crash_harness.h"

namespace addcow {

class RandomRun {
 public:
  explicit RandomRun(uint64_t seed);

  // Until something is wrong, or it has done its steps, or so many states
  // have been looked at.
  void Run(uint64_t states);

  const CrashHarness& harness() const { return harness_; }

 private:
  bool Fine() const { return harness_.wrong().empty(); }
  void StartNew();
  void Step();
  CrashRequest FuaOverLast() const;
  CrashRequest SmallWrite();
  CrashRequest WriteBesideLast();
  CrashRequest RandomChange(Fua fua);
  void Change(Fua fua);
  void Do(const CrashRequest& request);
  void Flush();
  void Close();
  void Flatten();
  void Convert();
  void CommitOrRebase(bool commit);
  void Resize();
  void Race();
  void FuaBesideFlush();
  void KillInFlush();
  void FailSync();
  void FailFua();
  void FailChange();

  Random random_;
  CrashHarness harness_;
  CrashRequest last_;  // that changed the disk without FUA
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_CRASH_RANDOM_RUN_H
