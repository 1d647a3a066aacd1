// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Clusters whose copy-up is deferred. A first write that is smaller than its
// cluster goes to the image file by itself; which sectors of the cluster are
// there is noted here, in memory only. Reads take those from the image file
// and the rest from the backing file. When writes have covered the cluster,
// nothing was copied; else the rest is copied up by the next flush. Only then
// is the cluster's bit set: a partial cluster is unallocated to everybody who
// looks at bits, and after a crash, so what it has in the image file is lost
// with it, as a write that was not flushed may be.
//
// A cluster leaves the table only after its bit was set. So who asks the
// table first and looks at the bit afterwards cannot miss it; the other way
// round, it could find the bit still 0 and the table empty already.
//
// Sectors are added, never taken back, until the cluster leaves.
//
// Threads: any. Who adds sectors holds the cluster's lock, shared or not; who
// fills it, or takes it out, holds it alone or has every byte of it written
// (cluster_locks.h).

#ifndef ADDCOW_COMMON_IMAGE_PARTIAL_CLUSTERS_H
#define ADDCOW_COMMON_IMAGE_PARTIAL_CLUSTERS_H

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <vector>

#include "common/base/mutex.h"
#include "common/format/layout.h"
#include "common/image/allocation_bitmap.h"

namespace addcow {

// Which sectors of a cluster are in the image file.
class SectorSet {
 public:
  static constexpr uint64_t kSectors = kClusterSize / kSectorSize;

  // `first` + `count` is at most kSectors.
  void Add(uint64_t first, uint64_t count);
  bool Has(uint64_t sector) const { return (words_[sector / 64] >> (sector % 64) & 1) != 0; }
  bool HasFirst(uint64_t count) const { return Has(0) && RunEnd(0) >= count; }

  // Where the run of sectors that are all there, or all not, ends that begins
  // at `sector`; kSectors where the cluster does.
  uint64_t RunEnd(uint64_t sector) const;

 private:
  std::array<uint64_t, kSectors / 64> words_ = {};
};

struct PartialCluster {
  uint64_t cluster = 0;
  SectorSet valid;
};

// A walk through what is valid in some unallocated clusters: what the table
// had of them at one moment. One thread.
class ValidSectors {
 public:
  ValidSectors() = default;
  explicit ValidSectors(std::vector<PartialCluster> clusters)
      : clusters_(std::move(clusters)) {}

  bool none() const { return clusters_.empty(); }

  struct Piece {
    bool valid;  // in the image file; else to be taken from the backing file
    uint64_t end;
  };

  // The state at `offset` of the disk and where it ends, at most `limit`.
  // Offsets must not decrease from call to call, and pieces be taken whole.
  Piece At(uint64_t offset, uint64_t limit);

 private:
  Piece ClusterAt(uint64_t offset, uint64_t limit);

  std::vector<PartialCluster> clusters_;  // ascending
  size_t next_ = 0;                       // the first that may reach beyond the last offset
};

class PartialClusters {
 public:
  // How many there may be: as many as were filled and synced in a second, so
  // that a flush does not take much longer; from kLeast to kMost, and kMost
  // before any were. Requests in flight may exceed it by one each.
  static constexpr uint64_t kMost = 65536;
  static constexpr uint64_t kLeast = 256;
  static constexpr uint64_t kEnough = 128;  // to judge by

  // `most`: how many there may be, instead of kMost.
  PartialClusters(const Layout& layout, const AllocationBitmap& bitmap, uint64_t most)
      : layout_(layout), bitmap_(bitmap), most_(most), limit_(most) {}

  // False: at that moment there was none.
  bool any() const { return count_.load() != 0; }
  uint64_t count() const { return count_.load(); }

  // Whether sectors of the cluster may be added.
  bool HasRoomFor(uint64_t cluster) const ADDCOW_EXCLUDES(mutex_);
  // Half of the room is taken: time to fill.
  bool crowded() const { return any() && 2 * count_.load() >= limit_.load(); }

  // Notes that bytes of one unallocated cluster are in the image file: whole
  // sectors, but that the last one may end with the disk. True: now all of the
  // cluster is, so its bit can be set. Of an allocated cluster nothing is
  // noted.
  bool Add(uint64_t offset, uint64_t length) ADDCOW_EXCLUDES(mutex_);

  // Takes out those of the range; their bits are set.
  void Remove(ClusterRange range) ADDCOW_EXCLUDES(mutex_);

  // Those in the range, ascending.
  ValidSectors In(ClusterRange range) const ADDCOW_EXCLUDES(mutex_);

  struct Run {
    bool partial = false;
    ClusterRange range;
  };
  // The run of clusters that are all partial, or all not, at the beginning of
  // the range (one cluster or more).
  Run RunAt(ClusterRange range) const ADDCOW_EXCLUDES(mutex_);

  // All there are, as runs of at most `longest` neighbours.
  std::vector<ClusterRange> Runs(uint64_t longest) const ADDCOW_EXCLUDES(mutex_);

  // So many were filled, and synced, in that time: adapts the limit.
  void Filled(uint64_t clusters, double seconds);

 private:
  // Constant after construction.
  const Layout layout_;
  const AllocationBitmap& bitmap_;
  const uint64_t most_;

  // Innermost: nothing else is locked and no I/O is done under it.
  mutable Mutex mutex_;
  std::map<uint64_t, SectorSet> clusters_ ADDCOW_GUARDED_BY(mutex_);
  std::atomic<uint64_t> count_ = 0;  // of clusters_, for a look without the lock
  std::atomic<uint64_t> limit_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_PARTIAL_CLUSTERS_H
