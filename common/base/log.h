// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where the engine's rare messages go: the plugin sends them to nbdkit, the
// tool to standard error. Results travel as values (error.h), never this way;
// this is for what no caller is waiting to hear.

#ifndef ADDCOW_COMMON_BASE_LOG_H
#define ADDCOW_COMMON_BASE_LOG_H

#include <functional>
#include <string>

namespace addcow {

// kNote: nothing failed, but somebody should know.
enum class LogLevel { kError, kNote, kDebug };

// Called from any thread. `message` is one line without its end.
using LogSink = std::function<void(LogLevel, const std::string& message)>;

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_LOG_H
