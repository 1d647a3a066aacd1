// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NbdPool: the connections to an NBD server. Many commands are in flight on each, up to
// four connections where the server allows, and who waits waits for its own answers only.
//
// A connection that was lost is made again with back-off, and what was in flight on it is
// sent again. What has no answer after the timeout fails; where nothing was connected for
// so long, at once. A server that comes back as another one, by its size or what it says
// itself, is refused for good.
//
// Threads: Start gives each connection a thread that moves bytes. Before it, which is as
// long as the process may still fork, there is one connection, and who waits drives it.
//
// Locks: mutex_ is for what is known of the connections, and is not held while anything
// waits for the server. drive_mutex_ is held for that, before Start.

#ifndef ADDCOW_COMMON_SOURCE_NBD_POOL_H
#define ADDCOW_COMMON_SOURCE_NBD_POOL_H

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/source/nbd_command.h"
#include "common/source/nbd_connection.h"
#include "common/source/nbd_server.h"
#include "common/source/source.h"

namespace addcow {

struct NbdOptions {
  std::chrono::seconds timeout{60};  // at least 1
  // Told when all connections are lost, and when there is one again; may be empty.
  LogSink log = {};
  // Ends what waits for the server, with kErrInterrupted.
  Interrupted interrupted = {};
};

class NbdPool {
 public:
  using Clock = std::chrono::steady_clock;

  static constexpr size_t kMostConnections = 4;

  // Connects, which takes no longer than the timeout, and what looking up a name takes.
  static Result<std::unique_ptr<NbdPool>> Open(std::unique_ptr<NbdServer> server,
                                               NbdOptions options);
  ~NbdPool();
  NbdPool(const NbdPool&) = delete;
  NbdPool& operator=(const NbdPool&) = delete;

  // Once, after the process has forked for the last time.
  Status Start();

  // After Start: commands fail from now on, those in flight as well.
  void Abandon() ADDCOW_EXCLUDES(mutex_);

  // Constant.
  const NbdExport& found() const { return found_; }
  std::string name() const { return server_->name(); }
  // As of now.
  SourceCounts counts() ADDCOW_EXCLUDES(mutex_);

  // Sends the commands and waits for all of them. EIO where the server did not do one, or
  // there is no answer; which is told by the command (`answered`). The batch can be
  // destroyed then, however it went.
  Status Perform(NbdBatch& batch) ADDCOW_EXCLUDES(mutex_);

 private:
  class Line;

  NbdPool(std::unique_ptr<NbdServer> server, NbdOptions options);

  // For the connections; `index` is which one.
  Status MayConnect(size_t index) ADDCOW_EXCLUDES(mutex_);
  Status Accept(size_t index, const NbdExport& found) ADDCOW_EXCLUDES(mutex_);
  // For good, where anything is wrong.
  Status RefuseOther(const std::string& wrong) ADDCOW_EXCLUDES(mutex_);
  // `again`: that connection was there before.
  void Ready(bool again) ADDCOW_EXCLUDES(mutex_);
  void Lost(const Error& error, bool was_ready) ADDCOW_EXCLUDES(mutex_);

  Status Send(NbdCommand& command, Clock::time_point deadline) ADDCOW_EXCLUDES(mutex_);
  // Where there is none that was not there at `generation`, until then. Why, if not.
  Status WaitForConnection(uint64_t generation, Clock::time_point deadline)
      ADDCOW_EXCLUDES(mutex_);
  void Wait(NbdBatch& batch, Clock::time_point deadline);
  void TakeBack(NbdBatch& batch);
  bool WaitUntil(NbdBatch& batch, Clock::time_point time);
  Status CheckInterrupted() const;
  Error Failure(const NbdCommand& command, const std::string& why) const;

  // Constant after Open.
  const std::unique_ptr<NbdServer> server_;
  const NbdOptions options_;
  NbdExport found_;
  bool opened_ = false;

  // Constant after Start.
  std::vector<std::unique_ptr<Line>> lines_;
  bool started_ = false;

  std::atomic<size_t> next_ = 0;  // whose turn it is
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> retries_ = 0;  // commands sent again

  Mutex drive_mutex_;

  Mutex mutex_;
  ConditionVariable changed_;
  uint64_t generation_ ADDCOW_GUARDED_BY(mutex_) = 0;  // of what comes after
  size_t ready_ ADDCOW_GUARDED_BY(mutex_) = 0;         // connections
  uint64_t reconnects_ ADDCOW_GUARDED_BY(mutex_) = 0;
  Clock::time_point down_since_ ADDCOW_GUARDED_BY(mutex_) = Clock::now();  // if none is
  // When something was asked that had no answer; of a server that does not say it is lost.
  std::optional<Clock::time_point> silent_since_ ADDCOW_GUARDED_BY(mutex_);
  std::optional<Error> lost_ ADDCOW_GUARDED_BY(mutex_);  // the last one, by that
  bool refused_ ADDCOW_GUARDED_BY(mutex_) = false;       // for good
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_NBD_POOL_H
