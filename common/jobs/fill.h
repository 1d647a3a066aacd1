// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Fill: copies up what is not in the image file, while clients use the disk, until the
// image file alone is the disk. It is a client of Image (CopyUp, Flush), so it may be
// killed at any instant, and goes on from the bitmap. `flatten` is the same without a server.
//
// Pieces are taken in ascending order, by one thread or by several, which is faster where
// the backing file is slow: each reads its piece, and then writes it, with a claim of
// 1 MiB or of a cluster at a time. After the last piece it flushes. In the mode kAll, which
// ends with ALL_ALLOCATED, the backing file is let go then. In the mode kTouched it looks
// again from time to time whether there is more to complete.
//
// It gives way (fill_pace.h): while clients are busy, one piece at a time is copied, a short
// one, and a rest follows. It keeps to a rate. So a request never waits behind more than one
// piece of 1 MiB, and only where it goes to that.
//
// Failures: a piece that fails is left for the next round, and nothing is copied until a
// time of back-off is over; then one thread tries another. A failure is logged once, until
// something succeeds again. Only where writing to the image has ended, since a sync failed
// or a file was lost, the fill ends, too.
//
// Threads: any. mutex_ is held while it is looked what is to be done, never across I/O.

#ifndef ADDCOW_COMMON_JOBS_FILL_H
#define ADDCOW_COMMON_JOBS_FILL_H

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/image/image.h"
#include "common/jobs/client_load.h"
#include "common/jobs/fill_pace.h"
#include "common/jobs/fill_status.h"

namespace addcow {

class Fill {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    uint64_t rate = 0;                    // bytes a second, the most; 0: none
    uint64_t piece = 4 * kMiB;            // bytes, what is taken at once if nobody is busy
    const ClientLoad* clients = nullptr;  // gives way to them; null: there are none
    bool retry = true;                    // false: the first failure is the last
    bool let_go = true;                   // the backing file, at the end of kAll
    Clock::duration first_retry = std::chrono::seconds(1);  // doubled each time, up to
    Clock::duration last_retry = std::chrono::seconds(60);
    Clock::duration look_again = std::chrono::seconds(5);  // kTouched, when it is done
    // Called by the thread that found that it is done, each time, without a lock.
    std::function<void()> done = {};
    std::function<Clock::time_point()> now = Clock::now;
  };

  // `image` must outlive it, and not be closed before. `log` may be empty.
  Fill(Image& image, const Options& options, LogSink log);

  // A time around `delay`, off by a tenth at most, for `random` from 0 to 1: of many servers
  // that start together, not all ask their base at the same time.
  static Clock::duration Jittered(Clock::duration delay, double random);

  // From the beginning of the disk, after `delay`. It also ends a pause, a back-off, and a
  // failure that was the last. In the mode that it has it goes on: what was copied counts,
  // and what failed is known. kOff ends a fill. EROFS where the disk is read only.
  // `rate`, where it is given, is as SetRate.
  Status Start(FillMode mode, Clock::duration delay = {}, std::optional<uint64_t> rate = {})
      ADDCOW_EXCLUDES(mutex_);
  // Pieces that are under way are still copied. EINVAL where no fill was started, or that ended
  // it.
  Status Pause() ADDCOW_EXCLUDES(mutex_);
  // Ends a pause, and a delay that is not over. EINVAL as Pause.
  Status Resume() ADDCOW_EXCLUDES(mutex_);
  void SetRate(uint64_t rate) ADDCOW_EXCLUDES(mutex_);

  FillStatus status() ADDCOW_EXCLUDES(mutex_);
  // The one of kFailed.
  std::optional<Error> failure() ADDCOW_EXCLUDES(mutex_);

  // Copies a piece, or does what follows the last. Where there is nothing to be done, it
  // says when there can be something; earlier if another function is called.
  struct Turn {
    bool worked = false;
    Clock::time_point next = {};
    uint64_t changes = 0;  // what was known of
  };
  Turn Step() ADDCOW_EXCLUDES(mutex_);
  // Waits until then, `limit` at the latest.
  void Wait(const Turn& turn, Clock::time_point limit) ADDCOW_EXCLUDES(mutex_);

  // The same again and again, and waits, until Stop. In as many threads as Threads() says.
  void RunUntilStopped() ADDCOW_EXCLUDES(mutex_);
  void Stop() ADDCOW_EXCLUDES(mutex_);
  // After Stop: until no piece is under way. False: one still is at that time.
  bool WaitUntilIdle(Clock::time_point limit) ADDCOW_EXCLUDES(mutex_);
  size_t Threads() const;

 private:
  // What a thread does next: nothing, or a piece, or what follows the last.
  struct Task {
    enum class Kind { kWait, kPiece, kFinish };
    Kind kind = Kind::kWait;
    Clock::time_point next = {};
    ClusterRange range = {};
  };

  Task TakeTask(Clock::time_point now) ADDCOW_REQUIRES(mutex_);
  uint64_t NextMissing(uint64_t from) const ADDCOW_REQUIRES(mutex_);
  bool FindNext() ADDCOW_REQUIRES(mutex_);
  ClusterRange NextPiece() const ADDCOW_REQUIRES(mutex_);
  uint64_t PieceClusters() const ADDCOW_REQUIRES(mutex_);
  void Copy(ClusterRange range) ADDCOW_EXCLUDES(mutex_);
  void Finish() ADDCOW_EXCLUDES(mutex_);
  Status Flush() ADDCOW_EXCLUDES(mutex_);
  Status FlushIfDue() ADDCOW_EXCLUDES(mutex_);
  void Succeeded() ADDCOW_EXCLUDES(mutex_);
  void Failed(const Error& error, bool backing) ADDCOW_EXCLUDES(mutex_);
  void Changed() ADDCOW_REQUIRES(mutex_);
  Error NoFill(const char* action) const;
  uint64_t BytesOf(ClusterRange range) const;
  uint64_t BytesLeft(FillMode mode) const;

  // Constant after construction; what they name is internally synchronised.
  Image& image_;
  const Layout layout_;
  const Options options_;
  const LogSink log_;

  Mutex mutex_;
  ConditionVariable changed_;  // there may be something to be done
  uint64_t changes_ ADDCOW_GUARDED_BY(mutex_) = 0;
  bool stop_ ADDCOW_GUARDED_BY(mutex_) = false;
  FillMode mode_ ADDCOW_GUARDED_BY(mutex_) = FillMode::kOff;
  uint64_t run_ ADDCOW_GUARDED_BY(mutex_) = 0;  // of what Start began
  bool paused_ ADDCOW_GUARDED_BY(mutex_) = false;
  bool done_ ADDCOW_GUARDED_BY(mutex_) = false;
  bool told_ ADDCOW_GUARDED_BY(mutex_) = false;  // that it is done
  bool finishing_ ADDCOW_GUARDED_BY(mutex_) = false;
  std::optional<uint64_t> failed_ ADDCOW_GUARDED_BY(mutex_);  // the first cluster that this
                                                              // round could not fill
  uint64_t next_ ADDCOW_GUARDED_BY(mutex_) = 0;               // the first cluster not taken
  std::multiset<uint64_t> taken_ ADDCOW_GUARDED_BY(mutex_);   // first clusters of pieces
  Clock::time_point begin_ ADDCOW_GUARDED_BY(mutex_) = {};    // not earlier
  Clock::time_point retry_ ADDCOW_GUARDED_BY(mutex_) = {};    // not earlier
  Clock::duration back_off_ ADDCOW_GUARDED_BY(mutex_) = {};   // 0: nothing fails
  std::optional<Error> error_ ADDCOW_GUARDED_BY(mutex_);      // why it waits, or ended
  bool ended_ ADDCOW_GUARDED_BY(mutex_) = false;              // by that
  uint64_t retries_ ADDCOW_GUARDED_BY(mutex_) = 0;
  uint64_t copied_ ADDCOW_GUARDED_BY(mutex_) = 0;     // bytes
  uint64_t unflushed_ ADDCOW_GUARDED_BY(mutex_) = 0;  // bytes of these
  bool flushing_ ADDCOW_GUARDED_BY(mutex_) = false;
  Clock::time_point flushed_ ADDCOW_GUARDED_BY(mutex_) = {};
  FillPace pace_ ADDCOW_GUARDED_BY(mutex_);
  FillMeter meter_ ADDCOW_GUARDED_BY(mutex_);
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_JOBS_FILL_H
