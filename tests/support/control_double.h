// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a control session or server asks, answered by a test.

#ifndef ADDCOW_TESTS_SUPPORT_CONTROL_DOUBLE_H
#define ADDCOW_TESTS_SUPPORT_CONTROL_DOUBLE_H

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/mutex.h"
#include "common/control/control_session.h"

namespace addcow {

// A status of which nothing is known but that of its fill.
inline ServerStatus WithFill(FillState state, const std::string& error = "") {
  ServerStatus status;
  status.fill.state = state;
  status.fill.error = error;
  return status;
}

// Any thread.
class ControlDouble {
 public:
  ControlHandlers Handlers() {
    return {.status = [this] { return status(); },
            .fill = [this](const FillCommand& command) { return Fill(command); },
            .flush = [this] { return Flush(); }};
  }

  ServerStatus status() {
    MutexLock lock(mutex_);
    return status_;
  }
  void SetStatus(const ServerStatus& status) {
    MutexLock lock(mutex_);
    status_ = status;
  }
  std::vector<FillCommand> fills() {
    MutexLock lock(mutex_);
    return fills_;
  }
  // Flushes wait from now on, until they are held no more.
  void HoldFlushes(bool held) {
    {
      MutexLock lock(mutex_);
      held_ = held;
    }
    changed_.NotifyAll();
  }
  void WaitForFlush() {
    MutexLock lock(mutex_);
    while (flushes_ == 0) changed_.Wait(mutex_);
  }
  int flushes() {
    MutexLock lock(mutex_);
    return flushes_;
  }
  void Fail(const std::string& why) {
    MutexLock lock(mutex_);
    failure_ = why;
  }

 private:
  Status Result() ADDCOW_REQUIRES(mutex_) {
    return failure_.empty() ? Status()
                            : addcow::Fail(Error::Because(EIO, "x.add-cow", failure_));
  }
  Status Fill(const FillCommand& command) {
    MutexLock lock(mutex_);
    fills_.push_back(command);
    return Result();
  }
  Status Flush() {
    {
      MutexLock lock(mutex_);
      flushes_++;
    }
    changed_.NotifyAll();
    MutexLock lock(mutex_);
    while (held_) changed_.Wait(mutex_);
    return Result();
  }

  Mutex mutex_;
  ConditionVariable changed_;
  ServerStatus status_ ADDCOW_GUARDED_BY(mutex_);
  std::vector<FillCommand> fills_ ADDCOW_GUARDED_BY(mutex_);
  bool held_ ADDCOW_GUARDED_BY(mutex_) = false;
  int flushes_ ADDCOW_GUARDED_BY(mutex_) = 0;
  std::string failure_ ADDCOW_GUARDED_BY(mutex_);
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_CONTROL_DOUBLE_H
