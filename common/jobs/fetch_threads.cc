// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fetch_threads.h.

#include "common/jobs/fetch_threads.h"

#include <utility>

#include "common/base/start_thread.h"

namespace addcow {

Result<std::unique_ptr<FetchThreads>> FetchThreads::Start(Image& image,
                                                          const Fetch::Options& options,
                                                          LogSink log) {
  std::unique_ptr<FetchThreads> started(new FetchThreads(image, options, std::move(log)));
  started->threads_.resize(kThreads);
  for (std::thread& thread : started->threads_) {
    ADDCOW_TRY_ASSIGN(thread,
                      StartThread(kThreadName, image.files().add_cow_path,
                                  [&fetch = started->fetch_] { fetch.RunUntilStopped(); }));
  }
  return started;
}

FetchThreads::~FetchThreads() {
  fetch_.Stop();
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
}

}  // namespace addcow
