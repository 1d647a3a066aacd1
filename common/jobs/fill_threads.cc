// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fill_threads.h.

#include "common/jobs/fill_threads.h"

#include <pthread.h>

#include <system_error>

namespace addcow {

Result<std::unique_ptr<FillThreads>> FillThreads::Start(Fill& fill, Image& image,
                                                        size_t threads) {
  std::unique_ptr<FillThreads> started(new FillThreads(fill));
  try {
    started->StartThreads(threads);
  } catch (const std::system_error& error) {
    return Fail(
        Error::System(error.code().value(), "start a thread", image.files().add_cow_path));
  }
  return started;
}

void FillThreads::StartThreads(size_t threads) {
  threads_.reserve(threads);
  while (threads_.size() < threads) {
    threads_.emplace_back([this] { fill_.RunUntilStopped(); });
    // Fails only where the name is too long.
    (void)::pthread_setname_np(threads_.back().native_handle(), kThreadName);
  }
}

FillThreads::~FillThreads() {
  fill_.Stop();
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace addcow
