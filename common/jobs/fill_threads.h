// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The threads of a fill (fill.h).
//
// Threads: Start starts them, so not before the process has forked for the last time. It
// has no lock of its own.

#ifndef ADDCOW_COMMON_JOBS_FILL_THREADS_H
#define ADDCOW_COMMON_JOBS_FILL_THREADS_H

#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/image/image.h"
#include "common/jobs/fill.h"

namespace addcow {

class FillThreads {
 public:
  // What the threads are called, in ps(1) and debuggers.
  static constexpr const char* kThreadName = "addcow-fill";

  // `fill`, and its image, must outlive the object. Fewer than `threads` where there cannot be
  // more now. Where there cannot be one, its error (EAGAIN): `fill` is as it was, not stopped.
  static Result<std::unique_ptr<FillThreads>> Start(Fill& fill, Image& image, size_t threads);

  // Ends the threads when their pieces under way are done. The fill is stopped for good.
  ~FillThreads();
  FillThreads(const FillThreads&) = delete;
  FillThreads& operator=(const FillThreads&) = delete;

 private:
  explicit FillThreads(Fill& fill) : fill_(fill) {}

  Fill& fill_;
  std::vector<std::thread> threads_;  // only who constructs and destroys touches it
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_JOBS_FILL_THREADS_H
