// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sees to it that the add-cow file has storage for the bits that are going to be
// set. A bit is written by a flush, after the write that it belongs to was
// answered. Were its page still a hole then, a full file system would fail the
// flush, and a clean stop would lose everything that was acknowledged.
//
// All of the clusters' bitmap gets its storage at once where it is created and where
// it is opened for writing: 2 MiB for a disk of 1 TiB. What is too large for that, or
// finds no room, and the subclusters' bitmap get it page by page, from the first write
// that needs it, and before that write is done: it is the one that fails where there is
// no room.
//
// Invariants: no bit is set before Take has succeeded for it. No set bit is ever
// written over: storage is reserved (fallocate), which changes no byte, or, where
// a file system cannot do that, zeroes are written where zeroes were read. A page
// that Take has not been through is in no flush, so nobody else writes to it.
//
// Threads: TakeAll before others are there; Take any.

#ifndef ADDCOW_COMMON_IMAGE_BITMAP_STORAGE_H
#define ADDCOW_COMMON_IMAGE_BITMAP_STORAGE_H

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/base/units.h"
#include "common/format/layout.h"
#include "common/image/allocation_bitmap.h"
#include "common/io/file.h"

namespace addcow {

class BitmapStorage {
 public:
  // The most that is taken at once, in bytes: the bitmap of a disk of 8 TiB with
  // clusters of 64 KiB, and of 4 TiB where it has to be written. More would take long
  // where the file system is memory.
  static constexpr uint64_t kMostReserved = 16 * kMiB;
  static constexpr uint64_t kMostWritten = 8 * kMiB;

  // `file` is the add-cow file, and must outlive the object. ENOMEM.
  static Result<std::unique_ptr<BitmapStorage>> Create(File& file, const BitmapPlace& place);

  // Storage for all bits, if it is not too much: no more than the above, and
  // than a quarter of the room that is left. Succeeds also where there is no room.
  Status TakeAll();

  // Storage for the bits of these clusters, or subclusters. ENOSPC and the like: not to
  // be had.
  Status Take(ClusterRange range) ADDCOW_EXCLUDES(mutex_);

 private:
  static constexpr uint64_t kPageBytes = 4096;

  BitmapStorage(File& file, const BitmapPlace& place, std::unique_ptr<AllocationBitmap> pages)
      : file_(file), place_(place), pages_(std::move(pages)) {}

  Status TakePages(ClusterRange pages) ADDCOW_EXCLUDES(mutex_);
  // `offset` and `end` are bytes of the bitmap, from its beginning.
  Result<bool> HasAll();
  Status Reserve(uint64_t offset, uint64_t end);
  Status WriteZeroes(uint64_t offset, uint64_t end);
  Status WriteWhereZero(uint64_t offset, uint64_t end);

  // Constant after construction; the file is internally synchronised.
  File& file_;
  const BitmapPlace place_;

  std::atomic<bool> all_ = false;         // every page has it; false to true only
  std::atomic<bool> can_reserve_ = true;  // until it turns out that it cannot

  // Those that have it, a bit each. Set with the mutex held, looked at without.
  const std::unique_ptr<AllocationBitmap> pages_;

  // Held across the I/O for a page, so that one thread does it. Nothing is
  // locked under it, and no claim is held.
  Mutex mutex_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_BITMAP_STORAGE_H
