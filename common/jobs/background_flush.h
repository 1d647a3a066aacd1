// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Bounded loss for clients that do not flush: a thread that brings new bits to
// the add-cow file every few seconds. Data in the image file outlives a killed
// process, since the kernel has it; a bit that is only in memory does not, and
// takes the data that it stands for with it.
//
// What it does is a flush (Image::FlushNewBits), so the order of data and bits
// is the same one. Where no bit waits, it makes no system call at all. Where a flush,
// whoever made it, has set ALL_ALLOCATED, it lets the backing file go.
//
// The bound: rounds begin `interval` apart, or as soon as the one before is
// done where that took longer. So a write that was answered longer ago than
// the interval and the time of its round (and of a flush that this had to wait
// for) survives the process.
//
// Failures: no client hears of them. Bits that could not be written are tried
// again at the next round, and logged once until that succeeds. A failed sync
// is final; the engine has logged it, and the thread ends.
//
// Threads: Start starts one, so not before the process has forked for the
// last time. It holds mutex_ only to sleep, never while it flushes.

#ifndef ADDCOW_COMMON_JOBS_BACKGROUND_FLUSH_H
#define ADDCOW_COMMON_JOBS_BACKGROUND_FLUSH_H

#include <chrono>
#include <exception>
#include <memory>
#include <thread>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/image/image.h"

namespace addcow {

// One round, and what has to be remembered from one to the next. One thread.
class FlushRound {
 public:
  FlushRound(Image& image, LogSink log) : image_(image), log_(std::move(log)) {}

  // False: there is nothing left that another round could do.
  bool Run();

 private:
  bool Flush();
  void LogEnd(const std::exception& cause) noexcept;

  Image& image_;
  const LogSink log_;
  bool failing_ = false;  // the last round failed, and that was logged
};

class BackgroundFlush {
 public:
  using Clock = std::chrono::steady_clock;

  // What the thread is called, in ps(1) and debuggers.
  static constexpr const char* kThreadName = "addcow-flush";

  // `interval` is longer than 0. `image` must outlive the object, and must not
  // be closed before it has gone.
  static Result<std::unique_ptr<BackgroundFlush>> Start(Image& image, Clock::duration interval,
                                                        LogSink log);

  // Ends the thread: at once where it sleeps, else when its round is done.
  ~BackgroundFlush() ADDCOW_EXCLUDES(mutex_);
  BackgroundFlush(const BackgroundFlush&) = delete;
  BackgroundFlush& operator=(const BackgroundFlush&) = delete;

 private:
  BackgroundFlush(Image& image, Clock::duration interval, LogSink log);

  void Loop();
  // Sleeps until then. False: it is time to end.
  bool SleepUntil(Clock::time_point time) ADDCOW_EXCLUDES(mutex_);

  const Clock::duration interval_;

  // Only the thread touches it.
  FlushRound round_;

  Mutex mutex_;
  ConditionVariable changed_;
  bool stop_ ADDCOW_GUARDED_BY(mutex_) = false;

  // Only who starts and destroys touches it.
  std::thread thread_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_JOBS_BACKGROUND_FLUSH_H
