// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The backing file as a disk reads it: its bytes up to its end, and zeroes after it.
// The one place that knows of that end.

#ifndef ADDCOW_COMMON_IMAGE_BACKING_H
#define ADDCOW_COMMON_IMAGE_BACKING_H

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/counters.h"
#include "common/base/error.h"
#include "common/source/source.h"

namespace addcow {

// Any thread.
class Backing {
 public:
  // `source` is null where there is none, and must outlive this object.
  explicit Backing(Source* source)
      : source_(source), size_(source != nullptr ? source->size() : 0) {}

  uint64_t size() const { return size_; }

  Status Read(std::span<std::byte> buffer, uint64_t offset) const;

  // As those of Source.
  size_t pieces_at_once() const { return source_ != nullptr ? source_->pieces_at_once() : 1; }
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
    return source_ != nullptr ? source_->counts() : SourceCounts();
  }

 private:
  enum class Count { kSource, kZeroes, kCount };

  // Constant after construction.
  Source* const source_;
  const uint64_t size_;

  // Internally synchronised.
  mutable Counters<Count> counters_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_BACKING_H
