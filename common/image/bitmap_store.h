// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Brings a live bitmap, of clusters or of subclusters ("cluster" here is either), to
// the add-cow file and back, in two phases, so that a bit is never on the disk before
// its cluster's data:
//
//   taken = store.Take();          (a) which bits to publish
//   image_file.SyncData();         (b) their data is durable
//   store.Write(taken);            (c) durable bits | taken bits
//   add_cow_file.SyncData();       (d)
//
// Between (a) and (c) other threads go on allocating. Their bits are in the
// same bytes of the live bitmap, but their data may have come after (b): the
// live bitmap itself must never be written. What is written is the live
// bitmap without the bits that are pending, that is, set since (a).
//
// Only the bits on their way are kept twice: a pending page (4096 bytes, the
// bits of 2 GiB of disk by clusters, of 128 MiB by subclusters) exists from the first
// allocation in it until the next flush. What was taken and could not be written is
// put back.

#ifndef ADDCOW_COMMON_IMAGE_BITMAP_STORE_H
#define ADDCOW_COMMON_IMAGE_BITMAP_STORE_H

#include <array>
#include <atomic>
#include <cstdint>
#include <map>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/format/layout.h"
#include "common/image/allocation_bitmap.h"
#include "common/io/file.h"

namespace addcow {

class BitmapStore {
 public:
  static constexpr uint64_t kPageBytes = 4096;
  static constexpr uint64_t kPageWords = kPageBytes / 8;

  // Bits of the bitmap page by page; a 1 is on its way to the disk.
  using Page = std::array<uint64_t, kPageWords>;
  using PageMap = std::map<uint64_t, Page>;

  // Both must outlive this object.
  BitmapStore(File& file, AllocationBitmap& bitmap, const BitmapPlace& place)
      : file_(file), bitmap_(bitmap), place_(place) {}

  // Fills the live bitmap from the file, reading only where it has storage.
  // Call once, before any other thread is there.
  Status Load();

  // Sets bits, in memory. The clusters' bytes must be in the image file
  // already (written, not yet durable). Any thread.
  void Allocate(ClusterRange range) ADDCOW_EXCLUDES(mutex_);

  // How many clusters have a bit that is set and not known to be durable. Any
  // thread.
  uint64_t Unpublished() ADDCOW_EXCLUDES(mutex_);

  // Whether Take would return anything. Any thread.
  bool HasPending() ADDCOW_EXCLUDES(mutex_);

  // How many pages of bits wait to be taken, as of a moment ago. Any thread; no lock.
  uint64_t PendingPages() const { return pending_pages_.load(std::memory_order_relaxed); }

  // Phase (a): all bits set so far and not yet written. Any thread, but the
  // phases of one flush must not mix with another's (Durability).
  PageMap Take() ADDCOW_EXCLUDES(mutex_);

  // Phase (c). The caller syncs the file afterwards.
  Status Write(const PageMap& taken) ADDCOW_EXCLUDES(mutex_);

  // After phase (d): what Take gave is durable, and so are all older bits.
  void Published() ADDCOW_EXCLUDES(mutex_);

  // Whether the bits that are neither pending nor taken are durable. Not so
  // before the first Published: those that were found may come from a process
  // that was killed before it synced them. Any thread.
  bool OldBitsDurable() ADDCOW_EXCLUDES(mutex_);

  // Whether all of these clusters are allocated, and will be after a crash.
  // Any thread.
  bool IsDurable(ClusterRange range) ADDCOW_EXCLUDES(mutex_);

  // Writes zeroes over all pages of the file that may have a bit; the live bitmap
  // stays. The caller syncs the file afterwards, and publishes nothing any more.
  Status Clear();

  // Bytes written to the file so far. Any thread; no lock.
  uint64_t written() const { return written_.load(std::memory_order_relaxed); }

  // Undoes Take, after a phase that failed.
  void PutBack(PageMap taken) ADDCOW_EXCLUDES(mutex_);

 private:
  // What the disk may hold of page `index` once the taken bits' data is there.
  Page Publishable(uint64_t index) ADDCOW_EXCLUDES(mutex_);
  Status LoadRange(uint64_t start, uint64_t end);

  // Constant after construction; the objects are internally synchronised.
  File& file_;
  AllocationBitmap& bitmap_;
  const BitmapPlace place_;

  std::atomic<uint64_t> written_ = 0;

  // The innermost lock: nothing else is locked and no I/O is done under it.
  // It makes "live bit set" and "bit pending" one step for Publishable.
  Mutex mutex_;
  PageMap pending_ ADDCOW_GUARDED_BY(mutex_);
  std::atomic<uint64_t> pending_pages_ = 0;  // written with the mutex held
  PageMap taken_ ADDCOW_GUARDED_BY(mutex_);  // and neither published nor put back
  bool old_bits_durable_ ADDCOW_GUARDED_BY(mutex_) = false;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_BITMAP_STORE_H
