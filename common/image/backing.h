// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The backing file as a disk reads it: its bytes up to its end, and zeroes after it.
// The one place that knows of that end.
//
// It is let go, and what it is made of closed, once nothing needs it any more: when every
// cluster is allocated, for good. Others may have looked at the bits before that, and be
// about to read. So whoever uses it holds it meanwhile (Hold), and looks at the bits after
// it got hold: where it has gone, every bit is found set.
//
//   reader                                   who lets it go
//   ------                                   --------------
//   bit is 0
//                                            sets the last bits, flushes, ALL_ALLOCATED
//                                            marks it as gone
//   holds: it has gone; bit is 1:            waits for who held it before
//   reads from the image file                closes it

#ifndef ADDCOW_COMMON_IMAGE_BACKING_H
#define ADDCOW_COMMON_IMAGE_BACKING_H

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "common/base/counters.h"
#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/source/source.h"

namespace addcow {

// Any thread, but for Start. With a Hold, where it may be let go: all but size, there and
// pieces_at_once.
class Backing {
 public:
  // `source` is null where there is none. `may_go`: whether it may be let go.
  explicit Backing(std::unique_ptr<Source> source, bool may_go = false)
      : source_(std::move(source)),
        size_(source_ != nullptr ? source_->size() : 0),
        may_go_(may_go && source_ != nullptr) {}

  // For a scope, nobody closes it, if it is there.
  class Hold {
   public:
    explicit Hold(const Backing& backing) : backing_(backing), there_(backing.Enter()) {}
    ~Hold() {
      if (there_) backing_.Leave();
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

    // False: it was let go, and every bit is set.
    bool there() const { return there_; }

   private:
    const Backing& backing_;
    const bool there_;
  };

  // See Source. Once, before there are others.
  Status Start() { return source_ != nullptr ? source_->Start() : Status(); }

  // In bytes; that stays, also when it was let go.
  uint64_t size() const { return size_; }
  // Whether there is one, and it was not let go.
  bool there() const {
    return size_ > 0 && (users_.load(std::memory_order_acquire) & kGone) == 0;
  }
  // What storage can be shared with; null if there is nothing.
  const File* shared_file() const {
    return source_ != nullptr ? source_->shared_file() : nullptr;
  }
  Source* source() const { return source_.get(); }

  // See Source. Needs no Hold.
  void Abandon() const {
    const Hold hold(*this);
    if (hold.there() && source_ != nullptr) source_->Abandon();
  }

  // Closes it, when nobody holds it any more; for that it waits, without a Hold of its own.
  // Every bit is set, and ALL_ALLOCATED durable. False: there was nothing to be closed.
  bool LetGo() ADDCOW_EXCLUDES(mutex_, closing_mutex_);

  Status Read(std::span<std::byte> buffer, uint64_t offset) const;

  // As those of Source; 1 where it has gone.
  size_t pieces_at_once() const {
    const Hold hold(*this);
    return hold.there() && source_ != nullptr ? source_->pieces_at_once() : 1;
  }
  Status ReadPieces(std::span<const Source::Piece> pieces,
                    const Source::Arrived& arrived) const;

  // The bytes at `offset` that read alike, up to `limit` at most; they may end where
  // others like them begin. Past the end there is no data.
  Result<DataRun> RunAt(uint64_t offset, uint64_t limit) const;

  // The first byte at or after `offset` that may not read as zero; `end`
  // where there is none before.
  Result<uint64_t> FindData(uint64_t offset, uint64_t end) const;

  // Where the data at `offset` ends, or a place before that; `end` at the latest.
  Result<uint64_t> FindHole(uint64_t offset, uint64_t end) const;

  Status Prefetch(uint64_t offset, uint64_t length) const;

  // In bytes, of all reads so far: what the source was asked for, and what nobody has.
  uint64_t read_from_source() const { return counters_.Sum(Count::kSource); }
  uint64_t read_as_zeroes() const { return counters_.Sum(Count::kZeroes); }
  SourceCounts source_counts() const {
    const Hold hold(*this);
    return hold.there() && source_ != nullptr ? source_->counts() : SourceCounts();
  }

 private:
  enum class Count { kSource, kZeroes, kCount };

  static constexpr uint64_t kGone = uint64_t{1} << 63;

  bool Enter() const {
    if (!may_go_ || (users_.fetch_add(1, std::memory_order_acq_rel) & kGone) == 0) return true;
    Leave();
    return false;
  }
  void Leave() const {
    if (may_go_ && users_.fetch_sub(1, std::memory_order_acq_rel) == (kGone | 1)) NoteLeft();
  }
  void NoteLeft() const ADDCOW_EXCLUDES(mutex_);

  // Constant, but that LetGo closes it when nobody holds it.
  std::unique_ptr<Source> source_;
  const uint64_t size_;
  const bool may_go_;

  // How many hold it, and whether it has gone.
  mutable std::atomic<uint64_t> users_ = 0;
  Mutex closing_mutex_;  // one closes it; held across that
  mutable Mutex mutex_;  // for waiting only; innermost
  mutable ConditionVariable left_;

  // Internally synchronised.
  mutable Counters<Count> counters_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_BACKING_H
