// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who may change clusters that are not allocated. A thread holds a range of
// clusters from before it looks at their bits for the last time until what it
// did there shows: in the bits, or among the partial clusters.
//
//   shared     writes that copy nothing: of whole clusters, and of parts whose
//              copy-up is deferred. They may be in a cluster together, as they
//              may in an allocated one.
//   exclusive  whatever copies up. It must not put old bytes over a write that
//              it has not seen yet, neither one that is under way nor one that
//              begins meanwhile.
//
// Reads, and writes to allocated clusters, never come here.
//
// Ranges are given out in the order in which they were asked for: a request
// waits for those before it that overlap, unless both are shared. So nobody
// waits for ever, whatever the others do.
//
// Order: a thread holds one range at a time, so ranges cannot deadlock. It
// may take the locks of BitmapStore and PartialClusters meanwhile, and must
// not flush.

#ifndef ADDCOW_COMMON_IMAGE_CLUSTER_LOCKS_H
#define ADDCOW_COMMON_IMAGE_CLUSTER_LOCKS_H

#include <cstdint>
#include <vector>

#include "common/base/mutex.h"
#include "common/format/layout.h"

namespace addcow {

class ClusterLocks {
 public:
  enum class Kind { kShared, kExclusive };

  // Most clusters to be locked at once (16 MiB), so that a long request does not
  // keep others waiting for all its time.
  static constexpr uint64_t kMaxLocked = 256;

  // Waits for its turn. Returns what Unlock wants.
  uint64_t Lock(ClusterRange range, Kind kind) ADDCOW_EXCLUDES(mutex_);
  void Unlock(uint64_t ticket) ADDCOW_EXCLUDES(mutex_);

 private:
  struct Request {
    uint64_t ticket;
    ClusterRange range;
    Kind kind;
  };

  bool MustWait(uint64_t ticket) const ADDCOW_REQUIRES(mutex_);

  Mutex mutex_;
  ConditionVariable released_;
  uint64_t next_ticket_ ADDCOW_GUARDED_BY(mutex_) = 0;
  uint64_t waiting_ ADDCOW_GUARDED_BY(mutex_) = 0;
  // Held and waiting, in the order of their coming. One entry for each
  // allocating request in flight: few, so a list.
  std::vector<Request> requests_ ADDCOW_GUARDED_BY(mutex_);
};

class ClusterRangeLock {
 public:
  ClusterRangeLock(ClusterLocks& locks, ClusterRange range, ClusterLocks::Kind kind)
      : locks_(locks), ticket_(locks_.Lock(range, kind)) {}
  ~ClusterRangeLock() { locks_.Unlock(ticket_); }
  ClusterRangeLock(const ClusterRangeLock&) = delete;
  ClusterRangeLock& operator=(const ClusterRangeLock&) = delete;

 private:
  ClusterLocks& locks_;
  const uint64_t ticket_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_CLUSTER_LOCKS_H
