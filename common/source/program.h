// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Programs of others that are run.

#ifndef ADDCOW_COMMON_SOURCE_PROGRAM_H
#define ADDCOW_COMMON_SOURCE_PROGRAM_H

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"

namespace addcow {

// Whether a program of that name is in $PATH.
bool HasProgram(const std::string& name);

// How long a program is waited for.
struct ProgramLimits {
  // Nothing: for as long as it takes. For what is done in a moment unless something hangs; what
  // has to read much may take hours, and there is no telling whether it does anything.
  std::optional<std::chrono::seconds> timeout = std::nullopt;
  // Ends it at once; may be empty. Asked every 50 ms: a thread is not woken by a signal.
  Interrupted interrupted = {};
  // What the user's program puts before "timeout=", for the message.
  const char* option_prefix = "";
};

// Runs a program of $PATH in a directory. It reads nothing; gives what it prints. EIO where it
// fails, with what it says of that. It is killed, and is gone when this returns, where it takes
// longer (ETIMEDOUT) or somebody interrupts (kErrInterrupted).
Result<std::string> OutputOf(const std::vector<std::string>& words,
                             const std::string& directory, const ProgramLimits& limits);

// By which another process can open a file of this one, as long as that lives.
std::string PathOfFd(int fd);

// What a program says on its standard error, which may be long gone by then: a file
// without a name.
class ErrorOutput {
 public:
  ErrorOutput();
  ~ErrorOutput();
  ErrorOutput(const ErrorOutput&) = delete;
  ErrorOutput& operator=(const ErrorOutput&) = delete;

  std::string path() const { return PathOfFd(fd_); }
  int fd() const { return fd_; }

  void Clear();
  // The last of it, in one line.
  std::string Text() const;

 private:
  const int fd_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_PROGRAM_H
