// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Threads: their start, which fails where the user or the system has too many.

#ifndef ADDCOW_COMMON_BASE_START_THREAD_H
#define ADDCOW_COMMON_BASE_START_THREAD_H

#include <pthread.h>

#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "common/base/error.h"

namespace addcow {

// Runs `body` in a thread, which ps(1) and debuggers call `name`: of 15 characters at most.
// `file`: what it is for, in the error (EAGAIN). Any thread.
template <typename Body>
Result<std::thread> StartThread(const char* name, const std::string& file, Body body) {
  try {
    std::thread thread(std::move(body));
    // Fails only where the name is too long.
    (void)::pthread_setname_np(thread.native_handle(), name);
    return thread;
  } catch (const std::system_error& error) {
    return Fail(Error::System(error.code().value(), "start a thread", file));
  }
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_START_THREAD_H
