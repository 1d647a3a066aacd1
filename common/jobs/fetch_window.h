// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A part of the disk whose bytes are being fetched from the backing file into memory,
// once for all who want some of them. It knows of each block of 4 KiB whether somebody
// reads it, and has the bytes of those that were read. Who wants a block that nobody
// reads claims it, reads it, and says what has become of it; all others wait for that.
//
// Threads: any. mutex_ is innermost, and held while the blocks are looked at. The bytes of
// a block are written by who has claimed it, without the lock, and never again once it
// is there.

#ifndef ADDCOW_COMMON_JOBS_FETCH_WINDOW_H
#define ADDCOW_COMMON_JOBS_FETCH_WINDOW_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/units.h"
#include "common/format/layout.h"

namespace addcow {

class FetchWindow {
 public:
  static constexpr uint64_t kBlock = kSubclusterSize;

  enum class Block : uint8_t {
    kIdle,       // nobody has asked for it
    kReading,    // claimed
    kData,       // there
    kZero,       // there; the backing file has no data in it
    kElsewhere,  // in the image file: not to be fetched
    kFailed,     // could not be read, or is not going to be
  };

  // [offset, end) begins at a block, and ends at one or with the disk.
  FetchWindow(uint64_t offset, uint64_t end);

  uint64_t offset() const { return offset_; }
  uint64_t end() const { return end_; }
  uint64_t length() const { return end_ - offset_; }

  // The bytes of a range within: for who has claimed it, or has found it there.
  std::span<std::byte> Bytes(ByteRange range) const {
    return {bytes_.get() + (range.offset - offset_), static_cast<size_t>(range.length)};
  }

  // Claims the first idle block that `wanted` touches and those idle around it, no
  // further than `within`. Empty: there is none. All of it has to be Set, soon.
  ByteRange Claim(ByteRange wanted, ByteRange within) ADDCOW_EXCLUDES(mutex_);
  // All that are idle of those that the range touches.
  std::vector<ByteRange> ClaimAll(ByteRange within) ADDCOW_EXCLUDES(mutex_);
  // What has become of the blocks that the range touches, as far as they were claimed.
  void Set(ByteRange range, Block to) ADDCOW_EXCLUDES(mutex_);
  // Idle ones are kFailed.
  void GiveUpIdle() ADDCOW_EXCLUDES(mutex_);

  // Waits until nobody reads any of the blocks that the range touches. Never while the
  // caller has claimed some.
  enum class Found {
    kThere,  // all of them
    kIdle,   // who had claimed some has not read them: to be claimed again
    kNot,    // some will not be there
  };
  Found Wait(ByteRange range) ADDCOW_EXCLUDES(mutex_);

  // Whether any data is there, or on its way.
  bool NeedsData() const ADDCOW_EXCLUDES(mutex_);

  // Waits until nobody reads any block. Whether all are settled for good, none is idle.
  bool WaitUntilSettled() ADDCOW_EXCLUDES(mutex_);

  // What of the window can be kept, in ranges of whole `grain`s that have data. Of a `unit`,
  // a multiple, that has data and of which nothing failed, it is all, zeroes and what
  // is elsewhere too, so that a cluster gets whole. The disk's end ends either.
  std::vector<ByteRange> ToKeep(uint64_t unit, uint64_t grain) const ADDCOW_EXCLUDES(mutex_);

 private:
  struct Blocks {
    size_t first;
    size_t end;
  };
  Blocks Touched(ByteRange range) const;
  void Change(Blocks blocks, Block from, Block to) ADDCOW_EXCLUDES(mutex_);
  ByteRange RangeOf(Blocks blocks) const;
  void KeepUnit(Blocks unit, size_t grain, std::vector<ByteRange>& ranges) const
      ADDCOW_REQUIRES(mutex_);

  // Constant after construction.
  const uint64_t offset_;
  const uint64_t end_;
  const std::unique_ptr<std::byte[]> bytes_;

  mutable Mutex mutex_;
  ConditionVariable changed_;  // blocks are not being read any more
  std::vector<Block> blocks_ ADDCOW_GUARDED_BY(mutex_);
};

// Blocks that one has claimed. Whatever ends the scope, nobody is left waiting for them.
class FetchClaim {
 public:
  explicit FetchClaim(FetchWindow& window) : window_(window) { ranges_.reserve(1); }
  ~FetchClaim() {
    for (const ByteRange range : ranges_) window_.Set(range, FetchWindow::Block::kFailed);
  }
  FetchClaim(const FetchClaim&) = delete;
  FetchClaim& operator=(const FetchClaim&) = delete;

  // As those of the window, once, one of them. Where the claimed blocks end.
  uint64_t Claim(ByteRange wanted, ByteRange within) {
    const ByteRange range = window_.Claim(wanted, within);
    if (range.length > 0) ranges_.push_back(range);
    return range.end();
  }
  void ClaimAll(ByteRange within) { ranges_ = window_.ClaimAll(within); }

  // No more than these from now on: others may get claimed by somebody else.
  void Only(std::vector<ByteRange> ranges) { ranges_.swap(ranges); }
  const std::vector<ByteRange>& ranges() const { return ranges_; }

 private:
  FetchWindow& window_;
  std::vector<ByteRange> ranges_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_JOBS_FETCH_WINDOW_H
