// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fill.h.

#include "common/jobs/fill.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <utility>

namespace addcow {

namespace {

// With a slow backing file several threads read, so that reading goes on while one writes.
constexpr size_t kThreadsForSlow = 4;

// Of a disk whose clients are busy. As long as a claim.
constexpr uint64_t kShortPiece = kMiB;

// With a rate, so many pieces a second at least, where they are not one cluster.
constexpr uint64_t kPiecesInASecond = 8;

// A killed process loses what came after its last flush. But holes go by at terabytes a
// second, so not more often than the interval.
constexpr uint64_t kFillFlushBytes = 256 * kMiB;
constexpr std::chrono::milliseconds kFillFlushInterval(100);

// Beside busy clients, whose writes a flush brings to the disk as well.
constexpr std::chrono::seconds kFlushIntervalOfBusy(10);

// Until then something else will have happened, or nothing.
constexpr std::chrono::hours kLongWait(1);

}  // namespace

Fill::Fill(Image& image, const Options& options, LogSink log)
    : image_(image),
      layout_(image.files().layout()),
      options_(options),
      log_(log ? std::move(log) : [](LogLevel, const std::string&) {}),
      pace_(options.clients, options.rate) {}

Fill::Clock::duration Fill::Jittered(Clock::duration delay, double random) {
  return std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(delay) * (0.9 + 0.2 * std::clamp(random, 0.0, 1.0)));
}

size_t Fill::Threads() const {
  return image_.backing().pieces_at_once() > 1 ? kThreadsForSlow : 1;
}

uint64_t Fill::BytesOf(ClusterRange range) const {
  return layout_.End(range.end()) - layout_.Start(range.first);
}

void Fill::Changed() {
  changes_++;
  changed_.NotifyAll();
}

Status Fill::Start(FillMode mode, Clock::duration delay, std::optional<uint64_t> rate) {
  if (mode != FillMode::kOff && !image_.writable())
    return Fail(Error::Because(EROFS, image_.files().add_cow_path,
                               "the disk is read only, so nothing is filled"));
  MutexLock lock(mutex_);
  if (rate) pace_.SetRate(*rate, options_.now());
  if (mode != mode_) {
    error_.reset();
    back_off_ = {};
    copied_ = 0;
    flushed_ = options_.now();
  }
  mode_ = mode;
  run_++;
  paused_ = done_ = told_ = ended_ = false;
  failed_.reset();
  next_ = 0;
  begin_ = options_.now() + delay;
  meter_.Begin(copied_, begin_);
  retry_ = {};
  Changed();
  return {};
}

Status Fill::Pause() {
  MutexLock lock(mutex_);
  if (mode_ == FillMode::kOff) return Fail(NoFill("pause"));
  paused_ = true;
  return {};
}

Status Fill::Resume() {
  MutexLock lock(mutex_);
  if (mode_ == FillMode::kOff) return Fail(NoFill("resume"));
  const auto now = options_.now();
  if (std::exchange(paused_, false) || begin_ > now) meter_.Begin(copied_, now);
  begin_ = std::min(begin_, now);
  Changed();
  return {};
}

Error Fill::NoFill(const char* action) const {
  return Error::Because(EINVAL, image_.files().add_cow_path,
                        fmt::format("there is no fill to {} (none was started)", action));
}

void Fill::SetRate(uint64_t rate) {
  MutexLock lock(mutex_);
  pace_.SetRate(rate, options_.now());
  Changed();
}

void Fill::Stop() {
  MutexLock lock(mutex_);
  stop_ = true;
  Changed();
}

bool Fill::WaitUntilIdle(Clock::time_point limit) {
  MutexLock lock(mutex_);
  while (!taken_.empty() || finishing_)
    if (!changed_.WaitUntil(mutex_, limit)) return taken_.empty() && !finishing_;
  return true;
}

std::optional<Error> Fill::failure() {
  MutexLock lock(mutex_);
  return ended_ ? error_ : std::nullopt;
}

uint64_t Fill::BytesLeft(FillMode mode) const {
  if (mode == FillMode::kOff) return 0;
  const AllocationBitmap& bitmap = image_.bitmap();
  if (mode == FillMode::kAll) {
    if (bitmap.all()) return 0;
    const uint64_t last = layout_.clusters() - 1;
    const uint64_t left = (layout_.clusters() - bitmap.allocated()) * layout_.cluster_size();
    const uint64_t beyond = layout_.cluster_size() - BytesOf({last, 1});
    return bitmap.Test(last) || left == 0 ? left : left - beyond;
  }
  uint64_t left = 0;
  for (uint64_t at = image_.NextPartial(0); at < layout_.clusters();
       at = image_.NextPartial(at + 1))
    left += BytesOf({at, 1});
  return left;
}

FillStatus Fill::status() {
  FillStatus status;
  {
    MutexLock lock(mutex_);
    const auto now = options_.now();
    status.mode = mode_;
    status.limit = pace_.rate();
    status.retries = retries_;
    if (mode_ == FillMode::kOff) return status;
    status.copied = copied_;
    uint64_t first = std::min(next_, failed_.value_or(next_));
    if (!taken_.empty()) first = std::min(first, *taken_.begin());
    status.position = done_ ? layout_.virtual_size() : layout_.End(first);
    if (error_) status.error = error_->Message();
    if (ended_)
      status.state = FillState::kFailed;
    else if (done_)
      status.state = FillState::kDone;
    else if (paused_)
      status.state = FillState::kPaused;
    else if (now < begin_)
      status.state = FillState::kDelayed;
    else
      status.state = error_ ? FillState::kWaiting : FillState::kRunning;
    if (status.state == FillState::kRunning) status.rate = meter_.Rate(copied_, now);
  }
  status.left = BytesLeft(status.mode);
  return status;
}

uint64_t Fill::PieceClusters() const {
  uint64_t bytes = pace_.GivesWay() ? std::min(options_.piece, kShortPiece) : options_.piece;
  if (pace_.rate() > 0) bytes = std::min(bytes, pace_.rate() / kPiecesInASecond);
  return std::max<uint64_t>(bytes / layout_.cluster_size(), 1);
}

// The first cluster at or after `from` that is to be filled; the disk's end where none is.
uint64_t Fill::NextMissing(uint64_t from) const {
  const uint64_t count = layout_.clusters();
  if (mode_ == FillMode::kTouched) return image_.NextPartial(from);
  while (mode_ == FillMode::kAll && from < count && image_.bitmap().Test(from))
    from = image_.bitmap().RunAt({from, count - from}).range.end();
  return from;
}

// Goes on to the next cluster that is to be filled. False: there is none.
bool Fill::FindNext() {
  next_ = NextMissing(next_);
  return next_ < layout_.clusters();
}

// From what FindNext found.
ClusterRange Fill::NextPiece() const {
  const ClusterRange most{next_, std::min(layout_.clusters() - next_, PieceClusters())};
  if (mode_ == FillMode::kAll) return image_.bitmap().RunAt(most).range;
  uint64_t end = next_ + 1;
  while (end < most.end() && image_.NextPartial(end) == end) end++;
  return {next_, end - next_};
}

Fill::Task Fill::TakeTask(Clock::time_point now) {
  const Task later{.next = now + kLongWait};
  if (stop_ || mode_ == FillMode::kOff || paused_ || ended_ || finishing_) return later;
  if (done_ && mode_ != FillMode::kTouched) return later;
  if (now < begin_) return {.next = begin_};
  if (now < retry_) return {.next = retry_};
  // After a failure one goes first.
  if (error_ && !taken_.empty()) return later;
  if (done_) next_ = 0;
  bool found = FindNext();
  if (!found && taken_.empty() && failed_) {
    failed_.reset();
    next_ = 0;
    found = FindNext();
  }
  if (found) {
    // Not done, also while it rests: it is not looked for from the beginning then.
    if (std::exchange(done_, false)) meter_.Begin(copied_, now);
    if (const auto next = pace_.Next(now); next > now) return {.next = next};
    if (pace_.GivesWay() && !taken_.empty()) return later;
    const ClusterRange range = NextPiece();
    taken_.insert(range.first);
    next_ = range.end();
    return {.kind = Task::Kind::kPiece, .range = range};
  }
  if (done_) return {.next = begin_ = now + options_.look_again};
  if (!taken_.empty()) return later;
  finishing_ = true;
  return {.kind = Task::Kind::kFinish};
}

Fill::Turn Fill::Step() {
  Task task;
  uint64_t changes = 0;
  {
    MutexLock lock(mutex_);
    changes = changes_;
    task = TakeTask(options_.now());
  }
  if (task.kind == Task::Kind::kWait) return {false, task.next, changes};
  if (task.kind == Task::Kind::kPiece)
    Copy(task.range);
  else
    Finish();
  return {.worked = true};
}

void Fill::Wait(const Turn& turn, Clock::time_point limit) {
  MutexLock lock(mutex_);
  while (!stop_ && changes_ == turn.changes &&
         changed_.WaitUntil(mutex_, std::min(turn.next, limit))) {
  }
}

void Fill::Copy(ClusterRange range) {
  const auto begun = options_.now();
  CopyUp::Told told;
  Status copied;
  try {
    copied = image_.CopyUp(range, &told);
  } catch (const std::bad_alloc&) {
    copied = Fail(Error::System(ENOMEM, "copy up", image_.files().add_cow_path));
  }
  {
    MutexLock lock(mutex_);
    const auto now = options_.now();
    taken_.erase(taken_.find(range.first));
    pace_.Copied(told.data, begun, now);
    // Also of one that failed what could be had counts.
    copied_ += told.filled;
    unflushed_ += told.filled;
    if (copied) {
      meter_.Note(copied_, now);
    } else if (const uint64_t missing = NextMissing(range.first); missing < range.end()) {
      failed_ = std::min(missing, failed_.value_or(missing));
    }
    Changed();
  }
  if (!copied) return Failed(copied.error(), told.backing_failed);
  if (const Status flushed = FlushIfDue(); !flushed) return Failed(flushed.error(), false);
  // Holes say nothing of a server that was lost.
  if (told.data > 0) Succeeded();
}

Status Fill::Flush() {
  try {
    return image_.Flush();
  } catch (const std::bad_alloc&) {
    return Fail(Error::System(ENOMEM, "flush", image_.files().add_cow_path));
  }
}

Status Fill::FlushIfDue() {
  uint64_t bytes = 0;
  const auto begun = options_.now();
  {
    MutexLock lock(mutex_);
    const Clock::duration interval =
        pace_.GivesWay() ? Clock::duration(kFlushIntervalOfBusy) : kFillFlushInterval;
    if (unflushed_ < kFillFlushBytes || flushing_ || begun - flushed_ < interval) return {};
    flushing_ = true;
    bytes = unflushed_;
  }
  const Status flushed = Flush();
  MutexLock lock(mutex_);
  flushing_ = false;
  if (!flushed) return flushed;
  flushed_ = options_.now();
  pace_.Copied(0, begun, flushed_);  // it is work, after which clients have their turn
  unflushed_ -= bytes;
  return {};
}

// Nothing is left. In kAll all bits are set, so that this flush sets ALL_ALLOCATED.
void Fill::Finish() {
  uint64_t run = 0;
  FillMode mode = FillMode::kOff;
  {
    MutexLock lock(mutex_);
    run = run_;
    mode = mode_;
  }
  const Status flushed = Flush();
  if (!flushed) {
    {
      MutexLock lock(mutex_);
      finishing_ = false;
      Changed();
    }
    return Failed(flushed.error(), false);
  }
  Succeeded();
  const bool let_go = options_.let_go && image_.LetBackingGo();
  bool done = false;
  bool first = false;
  uint64_t copied = 0;
  {
    MutexLock lock(mutex_);
    finishing_ = false;
    done = run == run_ && mode_ != FillMode::kOff;
    if (done) {
      first = !std::exchange(told_, true);
      done_ = true;
      unflushed_ = 0;
      copied = copied_;
      begin_ = options_.now() + options_.look_again;
    }
    Changed();
  }
  if (!done) return;
  if (mode == FillMode::kTouched && first)
    log_(LogLevel::kNote,
         Error::Because(0, image_.files().add_cow_path,
                        fmt::format("fill: no cluster is in the image file in part only "
                                    "({} bytes were completed)",
                                    copied))
             .Message());
  if (mode == FillMode::kAll && !let_go)
    log_(LogLevel::kNote,
         Error::Because(0, image_.files().add_cow_path,
                        "fill: all of the disk is in " + image_.files().image_path)
             .Message());
  if (options_.done) options_.done();
}

void Fill::Succeeded() {
  {
    MutexLock lock(mutex_);
    if (!error_ || ended_) return;
    error_.reset();
    back_off_ = {};
    meter_.Begin(copied_, options_.now());
    Changed();
  }
  log_(LogLevel::kNote,
       Error::Because(0, image_.files().add_cow_path, "fill: it goes on").Message());
}

void Fill::Failed(const Error& error, bool backing) {
  // A sync failed, or a file was lost.
  const bool last = !image_.writable() || !options_.retry;
  bool first = false;
  {
    MutexLock lock(mutex_);
    // Its reads may have been abandoned.
    if (stop_ && backing) return;
    first = !error_ || (last && !ended_);
    error_ = error;
    ended_ = last;
    back_off_ = back_off_ == Clock::duration() ? options_.first_retry
                                               : std::min(2 * back_off_, options_.last_retry);
    retry_ = options_.now() + back_off_;
    retries_++;
    Changed();
  }
  if (!first || !options_.retry) return;
  const char* const what = last ? "so the fill has ended"
                           : backing
                               ? "so the fill waits for the backing file, and tries it "
                                 "again from time to time"
                               : "so the fill waits, and tries it again from time to time";
  log_(LogLevel::kError, error.WithNote(what).Message());
}

void Fill::RunUntilStopped() {
  const auto stopped = [this] {
    MutexLock lock(mutex_);
    return stop_;
  };
  while (!stopped()) {
    Turn turn;
    try {
      turn = Step();
    } catch (const std::bad_alloc&) {
      MutexLock lock(mutex_);
      turn = {.next = options_.now() + options_.first_retry, .changes = changes_};
    }
    if (!turn.worked) Wait(turn, turn.next);
  }
}

}  // namespace addcow
