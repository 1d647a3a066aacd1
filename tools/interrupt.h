// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Signals that ask a command to stop: SIGINT, SIGTERM and SIGHUP. A command that
// writes catches them, to keep what it has done or to take it back, and asks
// between its steps whether one came. A second one ends it at once, as
// SIGKILL does. All other commands just end.
//
// A pipe that nobody reads any more asks the same: what would be printed
// there does not arrive.

#ifndef ADDCOW_TOOLS_INTERRUPT_H
#define ADDCOW_TOOLS_INTERRUPT_H

#include <string>

#include "common/base/error.h"

namespace addcow {

// From now on the signals above are only noted. One that this process was
// started to ignore (nohup) stays ignored. Main thread.
void CatchInterrupts();

// Whether the command shall stop. Any thread.
bool InterruptCame();

// For a command that was stopped: says so on standard error, unless it was a
// pipe that ended it, and returns its exit status, 128 and the signal's number.
int StoppedEarly(const std::string& message);

// The same where `error` comes of a signal: also while the command waited for
// somebody else. Any other error is reported as ever.
int FailedUnlessStopped(const Error& error);

// The same of a command that changed nothing if it was interrupted: `what` is as before.
int FailedAsBefore(const Error& error, const std::string& file, const char* what);

}  // namespace addcow

#endif  // ADDCOW_TOOLS_INTERRUPT_H
