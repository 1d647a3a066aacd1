// SPDX-License-Identifier: LGPL-2.1-or-later
//
// --wait[=SECONDS]: a command whose image is in use by another program tries
// again until it is free. Nothing is locked in between, so that whom it waits
// for is not in its turn kept from anything.

#ifndef ADDCOW_TOOLS_WAIT_H
#define ADDCOW_TOOLS_WAIT_H

#include <cerrno>
#include <chrono>
#include <string>

#include "common/base/error.h"

namespace CLI {
class App;
}

namespace addcow {

class Wait {
 public:
  // Without --wait nothing is waited for.
  void AddOption(CLI::App& app);

  // Calls `command`, which returns a Result, again and again while it fails with
  // EBUSY (which it does before it changes anything), until the time is over or
  // a signal came. Its last result, which says so of --wait where that was not given.
  template <typename Command>
  auto WhileBusy(Command command) const {
    const Clock::time_point start = Clock::now();
    for (;;) {
      auto result = command();
      if (result || result.error().code() != EBUSY) return result;
      if (asked_.empty())
        return decltype(result)(Fail(result.error().WithNote("--wait waits until it is free")));
      if (!Pause(start)) return result;
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  // False: not again.
  bool Pause(Clock::time_point start) const;

  std::string asked_;  // empty: no --wait; else its value
};

}  // namespace addcow

#endif  // ADDCOW_TOOLS_WAIT_H
