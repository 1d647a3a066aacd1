// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Fetch: copy-on-read. Makes large reads of a slow backing file out of small ones, once
// for all who wait, and keeps what was read in the image file, where it is found again by
// the next process: a cache.
//
//   Read     what the image file has is read there, holes of the backing file are zeroes.
//            For the rest there is a window (fetch_window.h), made for the first who
//            comes: aligned, and longer than the request. Who needs a piece of it that
//            nobody reads, reads that; who needs one that somebody reads, waits. Each is
//            answered when its own bytes are there.
//   RunOne   a thread of fetch_threads.h reads the rest of the window, as soon as the
//            first has begun, and keeps it (Image::Keep: under a claim, with another look
//            at the bits). Until that is done the window answers readers.
//
// Failures: a read that fails is tried again by each who waits, for its own bytes only,
// and so fails for who wants those that cannot be read. What cannot be kept fails nobody:
// it is logged, and for a while all is only read. What finds no room in memory is only
// read, too.
//
// Threads: any. mutex_ is held while windows are looked up, never across I/O, nor together
// with a window's own. Who waits has claimed nothing, neither blocks nor a range of the disk.

#ifndef ADDCOW_COMMON_JOBS_FETCH_H
#define ADDCOW_COMMON_JOBS_FETCH_H

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/image/image.h"
#include "common/jobs/fetch_window.h"

namespace addcow {

// In bytes, powers of two.
inline constexpr uint64_t kLeastFetchSize = 4 * kKiB;
inline constexpr uint64_t kMostFetchSize = 32 * kMiB;

// What it has done so far, in bytes. Plain values.
struct FetchCounts {
  uint64_t fetched = 0;   // read from the backing file
  uint64_t kept = 0;      // brought to the image file, whatever of it was missing there
  uint64_t failures = 0;  // how often that has failed

  bool operator==(const FetchCounts&) const = default;
};

class Fetch {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    // What is read at once, kLeastFetchSize to kMostFetchSize; 0: DefaultSize. Where the
    // image has no subclusters it is a cluster at least.
    uint64_t size = 0;
    // Most memory for windows, in bytes; there are two at least.
    uint64_t memory = 64 * kMiB;
    // How long nothing is kept after that has failed.
    Clock::duration pause = std::chrono::seconds(10);
  };

  // By what the image stands on: a small one for a local file, a large one for what may
  // be slow to answer.
  static uint64_t DefaultSize(const Image& image);

  // `image` must outlive it, and not be closed before. `log` may be empty.
  Fetch(Image& image, const Options& options, LogSink log);

  // As those of Image. Prefetch also keeps, and waits for room.
  Status Read(std::span<std::byte> buffer, uint64_t offset);
  Status Prefetch(uint64_t offset, uint64_t length);

  // Fetches the rest of the window that has waited longest, and keeps it. False: none
  // waits.
  bool RunOne() ADDCOW_EXCLUDES(mutex_);
  // The same again and again, and waits, until Stop.
  void RunUntilStopped() ADDCOW_EXCLUDES(mutex_);
  // No more is read that nobody asked for. What was read is kept before all
  // RunUntilStopped return. No other call but these follows.
  void Stop() ADDCOW_EXCLUDES(mutex_);

  // In bytes, of windows.
  uint64_t memory_used() ADDCOW_EXCLUDES(mutex_);

  FetchCounts counts() const {
    return {.fetched = fetched_.load(std::memory_order_relaxed),
            .kept = kept_.load(std::memory_order_relaxed),
            .failures = failures_.load(std::memory_order_relaxed)};
  }

 private:
  using Windows = std::list<std::shared_ptr<FetchWindow>>;
  // For one who needs bytes of the backing file.
  struct Place {
    std::shared_ptr<FetchWindow> window;    // null: there is no room for one
    uint64_t end = 0;                       // how far that goes
    std::optional<Windows::iterator> made;  // if it was made for the caller
  };
  class Made;

  bool Active() const;
  Status Serve(std::byte* buffer, uint64_t offset, uint64_t length);
  Result<uint64_t> ServeFromBacking(std::byte* buffer, uint64_t offset, uint64_t end);
  Status ReadOnly(std::span<std::byte> buffer, uint64_t offset);
  DataRun RunAt(uint64_t offset, uint64_t end) const;
  Place PlaceFor(uint64_t offset, uint64_t end, bool wait) ADDCOW_EXCLUDES(mutex_);
  void Queue(Windows::iterator window) ADDCOW_EXCLUDES(mutex_);
  void Drop(Windows::iterator window) ADDCOW_EXCLUDES(mutex_);
  bool stopped() ADDCOW_EXCLUDES(mutex_);
  Status FetchNeeded(FetchWindow& window, ByteRange needed, Made* made = nullptr);
  bool FetchRest(FetchWindow& window);
  Status ReadClaimed(FetchWindow& window, FetchClaim& claim, ByteRange needed, Made* made);
  std::vector<ByteRange> FindMissing(FetchWindow& window, ByteRange claimed);
  void FindData(FetchWindow& window, ByteRange missing, std::vector<ByteRange>& data);
  void Keep(const FetchWindow& window);
  void KeepFailed(const Error& error);

  // Constant after construction; what they name is internally synchronised.
  Image& image_;
  const uint64_t size_;
  const uint64_t unit_;  // what is kept whole if it can be
  const uint64_t memory_;
  const Clock::duration pause_;
  const LogSink log_;

  // When something may be kept again, since the clock's epoch; 0: it may.
  std::atomic<Clock::rep> paused_until_ = 0;
  std::atomic<bool> failing_ = false;  // keeping has failed, and that was logged

  // For who asks.
  std::atomic<uint64_t> fetched_ = 0;
  std::atomic<uint64_t> kept_ = 0;
  std::atomic<uint64_t> failures_ = 0;

  Mutex mutex_;
  ConditionVariable queued_;  // or it is time to stop
  ConditionVariable room_;
  // All windows, by where they begin; they do not overlap.
  std::map<uint64_t, std::shared_ptr<FetchWindow>> windows_ ADDCOW_GUARDED_BY(mutex_);
  uint64_t used_ ADDCOW_GUARDED_BY(mutex_) = 0;  // their bytes
  // Each is in one of these: in the hands of a thread, or waiting for one.
  Windows busy_ ADDCOW_GUARDED_BY(mutex_);
  Windows queue_ ADDCOW_GUARDED_BY(mutex_);
  bool stop_ ADDCOW_GUARDED_BY(mutex_) = false;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_JOBS_FETCH_H
