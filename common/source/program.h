// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Programs of others that are run.

#ifndef ADDCOW_COMMON_SOURCE_PROGRAM_H
#define ADDCOW_COMMON_SOURCE_PROGRAM_H

#include <chrono>
#include <string>
#include <vector>

#include "common/base/error.h"

namespace addcow {

// Whether a program of that name is in $PATH.
bool HasProgram(const std::string& name);

// Runs a program of $PATH in a directory. It reads nothing; gives what it prints. EIO where it
// fails, with what it says of that; ETIMEDOUT where it takes longer, and is killed.
Result<std::string> OutputOf(const std::vector<std::string>& words,
                             const std::string& directory, std::chrono::seconds timeout);

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
