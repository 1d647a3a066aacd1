// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Allocation: which of the two files has a byte of the disk, and who may change
// that. A cluster's bit decides first; where it is 0, the bits of its subclusters do.
// Both are the same thing: a bitmap that is read without a lock, and a store that
// publishes it in two phases.
//
// Where images may not have subclusters (subclusters=off, or they could have no
// bitmap), a write is rounded to whole clusters.
//
// Bits go from 0 to 1 only. So nothing that was seen in the image file ever goes
// back, and no order between the two bitmaps has to be kept.
//
// Threads: any, but for Open. To ask takes no lock. Who changes where a byte is holds
// a claim on it (locks()).

#ifndef ADDCOW_COMMON_IMAGE_ALLOCATION_H
#define ADDCOW_COMMON_IMAGE_ALLOCATION_H

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/image/allocation_bitmap.h"
#include "common/image/bitmap_storage.h"
#include "common/image/bitmap_store.h"
#include "common/image/image_counts.h"
#include "common/image/image_files.h"
#include "common/image/range_locks.h"

namespace addcow {

class Allocation {
 public:
  // Neighbouring bytes of the disk that the same file has.
  struct Run {
    bool in_image = false;
    uint64_t end = 0;
  };

  // `files` must outlive it. Open comes first.
  explicit Allocation(const ImageFiles& files) : files_(files), layout_(files.layout()) {}

  // Reads the bits, and has storage for new ones where there will be some. Before
  // any other thread is there. `subclusters`: whether a file without may get them.
  Status Open(bool subclusters);

  // No subclusters, for something else lies in their place.
  bool place_taken() const { return place_taken_; }
  const AllocationBitmap& clusters() const { return *clusters_.bitmap; }
  RangeLocks& locks() { return locks_; }

  // A write is rounded to grains: subclusters, or clusters. In bytes.
  uint64_t grain() const { return grain_; }
  uint64_t GrainStart(uint64_t offset) const { return RoundDown(offset, grain_); }
  uint64_t GrainEnd(uint64_t end) const {
    return std::min(RoundUp(end, grain_), layout_.virtual_size());
  }

  // The run of clusters in one state at `offset`, no further than the request.
  ClusterRun ClustersAt(uint64_t offset, uint64_t length) const {
    return clusters().RunAt(layout_.Touched(offset, length));
  }
  // The bytes in one file at `offset`; ends at `end` at the latest.
  Run RunAt(uint64_t offset, uint64_t end) const;
  // Whether any of it is in the image file although its cluster is not allocated.
  bool AnySubcluster(uint64_t offset, uint64_t end) const;

  // Before the write that will set bits for [offset, end): storage for them in the
  // add-cow file. ENOSPC and the like: not to be had, nothing may be written.
  Status TakeStorage(uint64_t offset, uint64_t end) ADDCOW_EXCLUDES(growing_mutex_);

  // All of [offset, end), whole grains, is in the image file; the caller holds a claim.
  void SetInImage(uint64_t offset, uint64_t end);

  // Whether all of the range is in the image file, and will be after a crash.
  bool IsDurable(uint64_t offset, uint64_t end);

  // Up to where the add-cow file must reach, in bytes.
  uint64_t end_of_bits() const;

  // Whether bits wait for a flush; so many that one should not be put off.
  bool HasPending();
  bool IsFull() { return PendingPages() >= kMostPendingPages; }
  // Bytes of the disk that whoever opens the files next would not find.
  uint64_t UnpublishedBytes();
  // Whether a subcluster bit counts: of a cluster that is not allocated.
  bool AnyPartial() const { return NextPartial(0) < layout_.clusters(); }
  // The first cluster from `cluster` on that has one; or how many there are.
  uint64_t NextPartial(uint64_t cluster) const;

  // How much of the disk is allocated, and what waits. It looks through the subclusters'
  // bits where any has changed since the last call: 0.1 s for a TiB of partial clusters.
  AllocationCounts Counts() ADDCOW_EXCLUDES(counting_mutex_);
  // Bytes of bits written to the add-cow file so far.
  uint64_t written() const;

  // For Durability: the steps of a flush (bitmap_store.h) for both bitmaps.
  struct Taken {
    BitmapStore::PageMap clusters;
    BitmapStore::PageMap subclusters;
    bool empty() const { return clusters.empty() && subclusters.empty(); }
  };
  Taken Take();
  Status Write(const Taken& taken);
  void PutBack(Taken taken);
  void Published();
  bool OldBitsDurable() { return clusters_.store->OldBitsDurable(); }
  // Their bits in the file become 0. Those in memory stay, and count no more.
  Status ClearSubclusters() { return subclusters_.store->Clear(); }
  // No subcluster bit is published from now on; one may still be set, by a write that
  // began before. Whether the file has been made longer for them.
  bool DropSubclusters();

 private:
  // Clusters of which a part is in the image file, as they were when so many bits were
  // set. Bits are never taken back, so as many are the same ones.
  struct Partial {
    uint64_t allocated = 0;    // clusters' bits
    uint64_t of_clusters = 0;  // subclusters' bits
    uint64_t clusters = 0;
    uint64_t subclusters = 0;
  };

  // 64 MiB of memory: 32 TiB of clusters, or 2 TiB of subclusters.
  static constexpr uint64_t kMostPendingPages = 16384;

  struct Level {
    std::unique_ptr<AllocationBitmap> bitmap;
    std::unique_ptr<BitmapStorage> storage;
    std::unique_ptr<BitmapStore> store;
  };

  Status OpenSubclusters(bool subclusters);
  Status Load();
  static Result<Level> MakeLevel(const ImageFiles& files, const BitmapPlace& place);
  Status TakeSubclusterStorage(uint64_t offset, uint64_t end) ADDCOW_EXCLUDES(growing_mutex_);
  Status CompleteClusters();
  Result<bool> MayGrow();
  Status Grow() ADDCOW_EXCLUDES(growing_mutex_);
  bool has_subclusters() const { return subclusters_.bitmap != nullptr; }
  bool publishes_them() const {
    return has_subclusters() && !dropped_.load(std::memory_order_acquire);
  }
  uint64_t PendingPages();
  Partial CountPartial(uint64_t allocated, uint64_t of_clusters) const;

  // Constant after Open.
  const ImageFiles& files_;
  const Layout layout_;
  uint64_t grain_ = 0;
  bool place_taken_ = false;

  // Internally synchronised.
  Level clusters_;
  Level subclusters_;  // null where there are none, and may be none
  RangeLocks locks_;

  // The add-cow file has room for the subcluster bitmap, zero where no bit was set.
  std::atomic<bool> grown_ = false;
  std::atomic<bool> dropped_ = false;
  Mutex growing_mutex_;  // held across the I/O; innermost

  Mutex counting_mutex_;  // one counts for all who ask; innermost
  Partial partial_ ADDCOW_GUARDED_BY(counting_mutex_);
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_ALLOCATION_H
