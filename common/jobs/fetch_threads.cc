// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fetch_threads.h.

#include "common/jobs/fetch_threads.h"

#include <pthread.h>

#include <system_error>
#include <utility>

namespace addcow {

Result<std::unique_ptr<FetchThreads>> FetchThreads::Start(Image& image,
                                                          const Fetch::Options& options,
                                                          LogSink log) {
  std::unique_ptr<FetchThreads> threads(new FetchThreads(image, options, std::move(log)));
  try {
    threads->StartThreads();
  } catch (const std::system_error& error) {
    return Fail(
        Error::System(error.code().value(), "start a thread", image.files().add_cow_path));
  }
  return threads;
}

void FetchThreads::StartThreads() {
  threads_.reserve(kThreads);
  while (threads_.size() < kThreads) {
    threads_.emplace_back([this] { fetch_.RunUntilStopped(); });
    // Fails only where the name is too long.
    (void)::pthread_setname_np(threads_.back().native_handle(), kThreadName);
  }
}

FetchThreads::~FetchThreads() {
  fetch_.Stop();
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace addcow
