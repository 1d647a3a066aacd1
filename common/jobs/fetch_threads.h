// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The threads of copy-on-read (fetch.h), in which it reads what nobody waits for, and
// keeps what was read.
//
// Threads: Start starts some, so not before the process has forked for the
// last time. It has no lock of its own.

#ifndef ADDCOW_COMMON_JOBS_FETCH_THREADS_H
#define ADDCOW_COMMON_JOBS_FETCH_THREADS_H

#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/image/image.h"
#include "common/jobs/fetch.h"

namespace addcow {

class FetchThreads {
 public:
  // What the threads are called, in ps(1) and debuggers.
  static constexpr const char* kThreadName = "addcow-fetch";
  // As many windows are read and kept at the same time.
  static constexpr size_t kThreads = 8;

  // `image` must outlive the object, and must not be closed before it has gone.
  static Result<std::unique_ptr<FetchThreads>> Start(Image& image,
                                                     const Fetch::Options& options,
                                                     LogSink log);

  // Ends the threads when their reads of the backing file under way are done, and what
  // was read is kept. No other call is under way.
  ~FetchThreads();
  FetchThreads(const FetchThreads&) = delete;
  FetchThreads& operator=(const FetchThreads&) = delete;

  Fetch& fetch() { return fetch_; }

 private:
  FetchThreads(Image& image, const Fetch::Options& options, LogSink log)
      : fetch_(image, options, std::move(log)) {}

  Fetch fetch_;
  std::vector<std::thread> threads_;  // only who constructs and destroys touches it
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_JOBS_FETCH_THREADS_H
