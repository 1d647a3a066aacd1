// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Gate parks an operation and releases it when the test says so. That makes
// a race a test with one fixed schedule: every interesting interleaving lies
// between two File calls, so production code needs no hooks.
//
//   Gate::Stop stop = gate.ParkBefore(OpKind::kWrite, kImagePath);
//   std::thread writer([&] { ... });
//   stop.WaitUntilParked();
//   ... what must happen while the writer stands there ...
//   stop.Release();
//   writer.join();
//
// A stop takes the first operation that matches and no other. Parked after:
// the operation is done, but its caller has not been told. Release before
// anything waits for the end of the parked thread, a destructor included.
//
// Threads: any; the gate must outlive the files.

#ifndef ADDCOW_TESTS_SUPPORT_GATED_FILE_H
#define ADDCOW_TESTS_SUPPORT_GATED_FILE_H

#include <functional>
#include <memory>
#include <vector>

#include "common/base/mutex.h"
#include "tests/support/forwarding_file.h"

namespace addcow {

class Gate final : public Interceptor {
 public:
  using Matcher = std::function<bool(const Operation&)>;
  class Stop;

  Stop ParkBefore(Matcher matcher);
  Stop ParkBefore(OpKind kind, const std::string& path);
  Stop ParkAfter(Matcher matcher);
  Stop ParkAfter(OpKind kind, const std::string& path);

  Verdict Before(const Operation& operation) override;
  void After(const Operation& operation, int error) override;

 private:
  enum class State { kArmed, kParked, kReleased };
  struct Entry {
    Matcher matcher;
    bool after;
    State state = State::kArmed;
  };

  Stop Add(Matcher matcher, bool after);
  void ParkIfMatched(const Operation& operation, bool after) ADDCOW_EXCLUDES(mutex_);

  Mutex mutex_;
  ConditionVariable changed_;
  std::vector<std::shared_ptr<Entry>> entries_ ADDCOW_GUARDED_BY(mutex_);
};

// A test's hold on one parked operation; gone, it releases it.
class Gate::Stop {
 public:
  Stop(Stop&&) = default;
  ~Stop() {
    if (entry_ != nullptr) Release();
  }

  // Waits for ever where no operation matches: the test's time limit is then
  // the message.
  void WaitUntilParked();
  bool IsParked() const;
  void Release();

 private:
  friend class Gate;
  Stop(Gate& gate, std::shared_ptr<Entry> entry) : gate_(gate), entry_(std::move(entry)) {}

  Gate& gate_;
  std::shared_ptr<Entry> entry_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_GATED_FILE_H
