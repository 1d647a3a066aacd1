// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See compare.h.

#include "common/ops/compare.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/start_thread.h"
#include "common/base/units.h"
#include "common/base/zero_bytes.h"
#include "common/image/backing.h"

namespace addcow {

namespace {

// What is read of both at once, by each of the threads.
constexpr uint64_t kCompareSize = kMiB;
constexpr size_t kCompareThreads = 4;

// How often the caller's thread looks how far it is.
constexpr auto kCompareGlance = std::chrono::milliseconds(100);

// Two disks, of which the shorter is followed by zeroes. Pieces are given out in order, and
// a difference in an earlier one wins.
class Comparison {
 public:
  Comparison(std::unique_ptr<Source> a, std::unique_ptr<Source> b, bool strict)
      : a_(std::move(a), false),
        b_(std::move(b), false),
        strict_(strict),
        end_(std::max(a_.size(), b_.size())) {}

  uint64_t end() const { return end_; }

  // Compares until nothing is left, or it is stopped. Any number of threads at once.
  void Run() {
    std::vector<std::byte> buffer(2 * kCompareSize);
    const std::span both(buffer);
    while (const auto piece = Next()) {
      const Status compared =
          Compare(*piece, both.first(kCompareSize), both.last(kCompareSize));
      MutexLock lock(mutex_);
      if (!compared && !failed_) failed_ = compared.error();
      running_.erase(std::ranges::find(running_, piece->offset));
      changed_.NotifyAll();
    }
    MutexLock lock(mutex_);
    threads_--;
    changed_.NotifyAll();
  }

  void Begin(size_t threads) {
    MutexLock lock(mutex_);
    threads_ = threads;
  }
  void Stop() {
    MutexLock lock(mutex_);
    stop_ = true;
  }

  // Waits a moment; false: all threads are done. `done`: bytes from the beginning.
  bool Wait(uint64_t& done) {
    MutexLock lock(mutex_);
    if (threads_ > 0) (void)changed_.WaitUntil(mutex_, Clock::now() + kCompareGlance);
    done = running_.empty() ? next_ : *std::ranges::min_element(running_);
    return threads_ > 0;
  }

  // Once all threads are done.
  Result<CompareResult> Take() {
    MutexLock lock(mutex_);
    if (failed_) return Fail(*failed_);
    CompareResult result = found_.value_or(CompareResult());
    result.read = read_;
    return result;
  }

 private:
  using Clock = std::chrono::steady_clock;

  struct Piece {
    uint64_t offset = 0;
    uint64_t length = 0;
    bool data_a = false;
    bool data_b = false;
  };

  // The next piece of which either has data.
  std::optional<Piece> Next() ADDCOW_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!stop_ && !failed_ && !found_ && next_ < end_) {
      const uint64_t limit = std::min(next_ + kGiB, end_);
      const auto a = a_.RunAt(next_, limit);
      const auto b = b_.RunAt(next_, limit);
      if (!a || !b) {
        failed_ = a ? b.error() : a.error();
        break;
      }
      Piece piece{next_, std::min(a->end, b->end) - next_, a->data, b->data};
      if (a->data || b->data) piece.length = std::min(piece.length, kCompareSize);
      next_ += piece.length;
      if (!a->data && !b->data) continue;
      running_.push_back(piece.offset);
      return piece;
    }
    return std::nullopt;
  }

  Status Compare(const Piece& piece, std::span<std::byte> a, std::span<std::byte> b) {
    a = a.first(static_cast<size_t>(piece.length));
    b = b.first(static_cast<size_t>(piece.length));
    if (piece.data_a) ADDCOW_TRY(a_.Read(a, piece.offset));
    if (piece.data_b) ADDCOW_TRY(b_.Read(b, piece.offset));
    read_ += piece.length;
    bool same = false;
    if (piece.data_a && piece.data_b)
      same = std::memcmp(a.data(), b.data(), a.size()) == 0;
    else
      same = IsZero(piece.data_a ? a : b);
    if (!same) {
      if (!piece.data_a) std::ranges::fill(a, std::byte{0});
      if (!piece.data_b) std::ranges::fill(b, std::byte{0});
      const auto first = std::ranges::mismatch(a, b).in1 - a.begin();
      Found(Difference::kData, piece.offset + static_cast<uint64_t>(first));
    } else if (strict_ && piece.data_a != piece.data_b) {
      Found(Difference::kAllocation, piece.offset);
    }
    return {};
  }

  void Found(Difference difference, uint64_t offset) ADDCOW_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (found_ && found_->offset <= offset) return;
    found_ = CompareResult{.difference = difference, .offset = offset};
  }

  const Backing a_;
  const Backing b_;
  const bool strict_;
  const uint64_t end_;
  std::atomic<uint64_t> read_ = 0;

  // Held while extents are asked for, too, so that pieces come in order.
  Mutex mutex_;
  ConditionVariable changed_;
  uint64_t next_ ADDCOW_GUARDED_BY(mutex_) = 0;
  std::vector<uint64_t> running_ ADDCOW_GUARDED_BY(mutex_);  // where pieces begin
  size_t threads_ ADDCOW_GUARDED_BY(mutex_) = 0;
  bool stop_ ADDCOW_GUARDED_BY(mutex_) = false;
  std::optional<CompareResult> found_ ADDCOW_GUARDED_BY(mutex_);
  std::optional<Error> failed_ ADDCOW_GUARDED_BY(mutex_);
};

// Runs it to its end, in threads of its own.
class CompareThreads {
 public:
  explicit CompareThreads(Comparison& comparison) : comparison_(comparison) {}
  ~CompareThreads() {
    comparison_.Stop();
    for (std::thread& thread : threads_)
      if (thread.joinable()) thread.join();
  }
  CompareThreads(const CompareThreads&) = delete;
  CompareThreads& operator=(const CompareThreads&) = delete;

  // `file`: what an error is to name.
  Status Start(const std::string& file) {
    comparison_.Begin(threads_.size());
    for (std::thread& thread : threads_) {
      ADDCOW_TRY_ASSIGN(thread,
                        StartThread("addcow-compare", file, [this] { comparison_.Run(); }));
    }
    return {};
  }

 private:
  Comparison& comparison_;
  std::array<std::thread, kCompareThreads> threads_;
};

}  // namespace

Result<CompareResult> CompareDisks(FileSystem& file_system, const CompareOptions& options) {
  AccessOptions access = options.access;
  access.interrupted = options.interrupted;
  ADDCOW_TRY_ASSIGN(Base a, OpenNamedDisk(file_system, options.a, access));
  ADDCOW_TRY_ASSIGN(Base b, OpenNamedDisk(file_system, options.b, access));
  std::vector<std::string> notes = a.notes;
  notes.insert(notes.end(), b.notes.begin(), b.notes.end());
  const uint64_t size_a = a.source->size();
  const uint64_t size_b = b.source->size();
  if (options.strict && size_a != size_b)
    return CompareResult{.difference = Difference::kSize,
                         .size_a = size_a,
                         .size_b = size_b,
                         .notes = std::move(notes)};
  Comparison comparison(std::move(a.source), std::move(b.source), options.strict);
  {
    CompareThreads threads(comparison);
    ADDCOW_TRY(threads.Start(options.a.name));
    uint64_t done = 0;
    for (bool more = true; more;) {
      more = comparison.Wait(done);
      if (options.progress) options.progress(done, comparison.end());
      ADDCOW_TRY(CheckInterrupted(options.interrupted, options.a.name));
    }
  }
  ADDCOW_TRY_ASSIGN(CompareResult result, comparison.Take());
  result.size_a = size_a;
  result.size_b = size_b;
  result.notes = std::move(notes);
  return result;
}

}  // namespace addcow
