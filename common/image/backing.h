// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is read where nothing is allocated: the backing file's bytes, and zeroes past
// its end or where there is none. The one place that knows of that end.

#ifndef ADDCOW_COMMON_IMAGE_BACKING_H
#define ADDCOW_COMMON_IMAGE_BACKING_H

#include <cstdint>
#include <optional>
#include <span>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/io/file.h"
#include "common/io/holes.h"

namespace addcow {

// Any thread. The file must not change meanwhile; so where it was once found
// to have data, it is not asked again (FindData, FindHole).
class Backing {
 public:
  // `file` is null where there is none, and must outlive this object. `size`
  // is the file's, taken once: a file that ends before it was truncated under
  // us, and reading there fails with EIO.
  Backing(File* file, uint64_t size);

  uint64_t size() const { return size_; }

  Status Read(std::span<std::byte> buffer, uint64_t offset) const;

  // The first byte at or after `offset` that may not read as zero; `end`
  // where there is none before.
  Result<uint64_t> FindData(uint64_t offset, uint64_t end) const;

  // The first byte after `offset` that is in a hole or past the file's end;
  // `end` where there is none before. `offset` came from FindData.
  Result<uint64_t> FindHole(uint64_t offset, uint64_t end) const;

  // Null where there is no file.
  const Holes* holes() const { return holes_ ? &*holes_ : nullptr; }

  Status Prefetch(uint64_t offset, uint64_t length) const;

 private:
  // The end of the data around `offset`, where that is known; else 0.
  uint64_t KnownDataEnd(uint64_t offset) const ADDCOW_EXCLUDES(mutex_);

  // Constant after construction.
  File* const file_;
  const uint64_t size_;
  std::optional<Holes> holes_;

  // Innermost.
  mutable Mutex mutex_;
  // The data that was found last.
  mutable uint64_t data_start_ ADDCOW_GUARDED_BY(mutex_) = 0;
  mutable uint64_t data_end_ ADDCOW_GUARDED_BY(mutex_) = 0;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_BACKING_H
