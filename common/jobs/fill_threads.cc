// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fill_threads.h.

#include "common/jobs/fill_threads.h"

#include "common/base/start_thread.h"

namespace addcow {

Result<std::unique_ptr<FillThreads>> FillThreads::Start(Fill& fill, Image& image,
                                                        size_t threads) {
  std::unique_ptr<FillThreads> started(new FillThreads(fill));
  started->threads_.resize(threads);
  for (std::thread& thread : started->threads_) {
    ADDCOW_TRY_ASSIGN(thread, StartThread(kThreadName, image.files().add_cow_path,
                                          [&fill] { fill.RunUntilStopped(); }));
  }
  return started;
}

FillThreads::~FillThreads() {
  fill_.Stop();
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
}

}  // namespace addcow
