// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See background_flush.h.

#include "common/jobs/background_flush.h"

#include <fmt/format.h>

#include <exception>

#include "common/base/start_thread.h"

namespace addcow {

bool FlushRound::Run() {
  try {
    return Flush();
  } catch (const std::exception& exception) {
    // There was no memory for something before the syncs: the next round may do
    // better.
    if (image_.writable()) return true;
    // The engine has stopped writing (Image::Flush).
    LogEnd(exception);
    return false;
  }
}

bool FlushRound::Flush() {
  if (!image_.writable()) return false;
  const Status flushed = image_.FlushNewBits();
  if (!image_.writable()) {
    // A sync failed, here or for a client, who was told then.
    if (!flushed)
      log_(LogLevel::kError, fmt::format("background flush: {}", flushed.error().Message()));
    return false;
  }
  if (!flushed && !failing_)
    log_(LogLevel::kError,
         fmt::format("background flush: {}; it is tried again, but until it succeeds, what "
                     "was written to new places is lost if this process is killed",
                     flushed.error().Message()));
  failing_ = !flushed;
  // Clients have written all of it, perhaps.
  if (flushed) (void)image_.LetBackingGo();
  return true;
}

// Nothing may leave the thread: that would end the server.
void FlushRound::LogEnd(const std::exception& cause) noexcept {
  try {
    log_(LogLevel::kError,
         fmt::format("background flush: {}; read only from here on", cause.what()));
  } catch (const std::exception&) {
    // No memory to say so. Clients get errors.
  }
}

Result<std::unique_ptr<BackgroundFlush>> BackgroundFlush::Start(Image& image,
                                                                Clock::duration interval,
                                                                LogSink log) {
  std::unique_ptr<BackgroundFlush> flush(new BackgroundFlush(image, interval, std::move(log)));
  ADDCOW_TRY_ASSIGN(flush->thread_, StartThread(kThreadName, image.files().add_cow_path,
                                                [&flush = *flush] { flush.Loop(); }));
  return flush;
}

BackgroundFlush::BackgroundFlush(Image& image, Clock::duration interval, LogSink log)
    : interval_(interval), round_(image, std::move(log)) {}

BackgroundFlush::~BackgroundFlush() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

bool BackgroundFlush::SleepUntil(Clock::time_point time) {
  MutexLock lock(mutex_);
  while (!stop_ && changed_.WaitUntil(mutex_, time)) {
  }
  return !stop_;
}

void BackgroundFlush::Loop() {
  // Counted from the beginning of a round: a write that comes after it has to
  // wait for the next one.
  Clock::time_point next = Clock::now() + interval_;
  while (SleepUntil(next)) {
    next = Clock::now() + interval_;
    if (!round_.Run()) return;
  }
}

}  // namespace addcow
