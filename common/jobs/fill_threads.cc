// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fill_threads.h.

#include "common/jobs/fill_threads.h"

#include <utility>

#include "common/base/start_thread.h"

namespace addcow {

Result<std::unique_ptr<FillThreads>> FillThreads::Start(Fill& fill, Image& image,
                                                        size_t threads) {
  std::unique_ptr<FillThreads> started(new FillThreads(fill));
  started->threads_.reserve(threads);
  while (started->threads_.size() < threads) {
    auto thread = StartThread(kThreadName, image.files().add_cow_path,
                              [&fill] { fill.RunUntilStopped(); });
    if (thread) {
      started->threads_.push_back(std::move(*thread));
      continue;
    }
    if (started->threads_.empty()) return Fail(thread.error());
    break;  // with fewer it is slower only
  }
  return started;
}

FillThreads::~FillThreads() {
  // Where none could be started the fill can have others later.
  if (threads_.empty()) return;
  fill_.Stop();
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace addcow
