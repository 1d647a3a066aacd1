// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Allocation: which of the two files has a byte of the disk, and who may change
// that. It owns the bitmap, the bits that wait for a flush, the storage that they
// will need in the add-cow file, the table of partial clusters, and the locks of
// ranges.
//
// Threads: any, but for Load. To ask takes no lock, but for partial clusters. Who
// makes clusters allocated holds them (locks()).

#ifndef ADDCOW_COMMON_IMAGE_ALLOCATION_H
#define ADDCOW_COMMON_IMAGE_ALLOCATION_H

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/image/allocation_bitmap.h"
#include "common/image/bitmap_storage.h"
#include "common/image/bitmap_store.h"
#include "common/image/cluster_locks.h"
#include "common/image/deferral_room.h"
#include "common/image/image_files.h"
#include "common/image/partial_clusters.h"

namespace addcow {

class Allocation {
 public:
  // What is known of the clusters at some place, in the order that makes it
  // true (partial_clusters.h).
  struct View {
    ClusterRun run;
    ValidSectors valid;  // where the run is not allocated
  };

  // `files` must outlive this object. `most_partial`: how many clusters may be
  // partial.
  Allocation(const ImageFiles& files, std::unique_ptr<AllocationBitmap> bitmap,
             const Layout& layout, uint64_t most_partial);

  // Reads the bits, and has storage for new ones where there will be some. Before
  // any other thread is there.
  Status Load();

  const AllocationBitmap& bitmap() const { return *bitmap_; }
  const PartialClusters& partials() const { return partials_; }
  BitmapStore& store() { return store_; }
  ClusterLocks& locks() { return locks_; }

  // The run of clusters in one state at `offset`, no further than the request.
  ClusterRun RunAt(uint64_t offset, uint64_t length) const {
    return bitmap_->RunAt(layout_.Touched(offset, length));
  }
  // The same, and what of it is in the image file although it is not allocated.
  View ViewAt(uint64_t offset, uint64_t length) const;
  // How many bytes of the request at `offset` lie in `run`.
  uint64_t BytesOf(ClusterRun run, uint64_t offset, uint64_t length) const {
    return std::min(layout_.End(run.range.end()) - offset, length);
  }

  // Before a write that will set the bits of these clusters. ENOSPC and the like.
  Status TakeStorage(ClusterRange range) { return storage_.Take(range); }

  // Whether a write to unallocated clusters can do without any copy-up for now.
  // May call for a flush.
  bool CanDefer(uint64_t offset, uint64_t length) ADDCOW_EXCLUDES(crowded_mutex_);

  // All these bytes are in the image file, and no copy-up is under way.
  void NoteWritten(uint64_t offset, uint64_t length);

  // Every byte of the clusters is in the image file.
  void SetAllocated(ClusterRange range);

  // Calls for a flush where many clusters are partial.
  void CallIfCrowded() ADDCOW_EXCLUDES(crowded_mutex_);
  // What is called then (Image::SetCrowdedHandler).
  void SetCrowdedHandler(std::function<void()> handler) ADDCOW_EXCLUDES(crowded_mutex_);
  // A flush has filled all partial clusters.
  void Uncrowd() { crowded_called_.store(false); }
  // So many were filled, and synced, in that time.
  void Filled(uint64_t clusters, double seconds) { partials_.Filled(clusters, seconds); }

  // Clusters that whoever opens the files next would not find allocated.
  uint64_t Unpublished() { return store_.Unpublished() + partials_.count(); }

 private:
  void CallForFlush() ADDCOW_EXCLUDES(crowded_mutex_);

  // Constant after construction.
  const ImageFiles& files_;
  const Layout layout_;

  // Internally synchronised.
  const std::unique_ptr<AllocationBitmap> bitmap_;
  BitmapStorage storage_;
  BitmapStore store_;
  PartialClusters partials_;
  DeferralRoom deferral_room_;
  ClusterLocks locks_;

  // Not again before a flush has filled all of them.
  std::atomic<bool> crowded_called_ = false;
  Mutex crowded_mutex_;  // taken while no other is held
  std::function<void()> crowded_handler_ ADDCOW_GUARDED_BY(crowded_mutex_);
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_ALLOCATION_H
