// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How a verb that takes long is asked to stop, by a signal for instance: it
// asks between its steps. What it did by then is made to count, or taken back,
// and it fails with kErrInterrupted.

#ifndef ADDCOW_COMMON_BASE_INTERRUPTED_H
#define ADDCOW_COMMON_BASE_INTERRUPTED_H

#include <functional>
#include <string>

#include "common/base/error.h"

namespace addcow {

// True: stop. Called from any thread; cheap. Empty: nobody asks.
using Interrupted = std::function<bool()>;

inline constexpr int kErrInterrupted = ECANCELED;

// Fails where `interrupted` says so. `file` is what was worked on.
inline Status CheckInterrupted(const Interrupted& interrupted, const std::string& file) {
  if (!interrupted || !interrupted()) return {};
  return Fail(Error::Because(kErrInterrupted, file, "interrupted"));
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_INTERRUPTED_H
