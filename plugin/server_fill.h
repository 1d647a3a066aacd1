// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The fill of a server (common/jobs/fill.h): its threads, and with fill-exit=on the end of
// the server when it is done and no client is connected.
//
// Threads: any; not before the server has forked. mutex_ is held for a moment only.

#ifndef ADDCOW_PLUGIN_SERVER_FILL_H
#define ADDCOW_PLUGIN_SERVER_FILL_H

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/image/image.h"
#include "common/jobs/client_load.h"
#include "common/jobs/fill.h"
#include "common/jobs/fill_threads.h"

namespace addcow {

class ServerFill {
 public:
  struct Options {
    uint64_t rate = 0;           // bytes a second; 0: none
    std::function<void()> exit;  // ends the server; empty: it goes on
  };

  // The image must outlive it, and not be closed before.
  ServerFill(Image& image, const ClientLoad& clients, const Options& options, LogSink log);
  // Ends the threads when their pieces under way are done. What a server of the base has not
  // answered in a second is not waited for: nothing can be read from it then any more.
  ~ServerFill();

  // As Fill::Start, and has threads for it; where these cannot be started (EAGAIN) nothing
  // has changed. The delay is off by a tenth at most, by chance.
  Status Start(FillMode mode, std::chrono::seconds delay = {},
               std::optional<uint64_t> rate = {}) ADDCOW_EXCLUDES(mutex_);

  Fill& fill() { return fill_; }

  // A client has come, or gone.
  void Connected() ADDCOW_EXCLUDES(mutex_);
  void Disconnected() ADDCOW_EXCLUDES(mutex_);

 private:
  void ExitIfDone() ADDCOW_EXCLUDES(mutex_);
  Status StartThreads() ADDCOW_EXCLUDES(mutex_);

  Image& image_;
  const std::function<void()> exit_;
  Fill fill_;

  Mutex mutex_;
  uint64_t clients_ ADDCOW_GUARDED_BY(mutex_) = 0;
  // The last member, so that the threads have gone before what they use.
  std::unique_ptr<FillThreads> threads_ ADDCOW_GUARDED_BY(mutex_);
};

}  // namespace addcow

#endif  // ADDCOW_PLUGIN_SERVER_FILL_H
