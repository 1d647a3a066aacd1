// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See interrupt.h.

#include "tools/interrupt.h"

#include <atomic>
#include <csignal>

#include "common/base/interrupted.h"
#include "common/base/printable.h"
#include "tools/output.h"
#include "tools/verbs.h"

namespace addcow {

namespace {

// The first signal that came, or 0. Lock free, so a handler may set it.
std::atomic<int> caught = 0;
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void NoteSignal(int signal) {
  int none = 0;
  caught.compare_exchange_strong(none, signal);
}

}  // namespace

void CatchInterrupts() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old = {};
    if (::sigaction(signal, nullptr, &old) != 0 || old.sa_handler == SIG_IGN) continue;
    struct sigaction action = {};
    action.sa_handler = NoteSignal;
    // Once: the next one finds the default, which ends the process.
    action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
    ::sigemptyset(&action.sa_mask);
    (void)::sigaction(signal, &action, nullptr);
  }
}

bool InterruptCame() { return caught.load() != 0 || OutputPipeClosed(); }

int StoppedEarly(const std::string& message) {
  const int signal = caught.load();
  if (signal != 0) PrintError(message);
  return 128 + (signal != 0 ? signal : SIGPIPE);
}

int FailedUnlessStopped(const Error& error) {
  const bool stopped = error.code() == kErrInterrupted || error.code() == EBUSY;
  return stopped && InterruptCame() ? StoppedEarly(error.Message()) : Failed(error);
}

int FailedAsBefore(const Error& error, const std::string& file, const char* what) {
  if (error.code() != kErrInterrupted) return FailedUnlessStopped(error);
  return StoppedEarly(
      fmt::format("{}: interrupted: {} is as before; run it again", Printable(file), what));
}

}  // namespace addcow
