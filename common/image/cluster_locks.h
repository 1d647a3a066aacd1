// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who may make clusters allocated. A thread holds a range of clusters from
// before it looks at their bits for the last time until it has set them, and
// nobody else allocates in that range meanwhile: neither a copy-up, which
// would put old bytes over a new write, nor a write of whole clusters.
//
// Reads, and writes to allocated clusters, never come here.
//
// Order: a thread holds one range at a time, so ranges cannot deadlock. It
// may take BitmapStore's lock meanwhile, and must not flush.

#ifndef ADDCOW_COMMON_IMAGE_CLUSTER_LOCKS_H
#define ADDCOW_COMMON_IMAGE_CLUSTER_LOCKS_H

#include <vector>

#include "common/base/mutex.h"
#include "common/format/layout.h"

namespace addcow {

class ClusterLocks {
 public:
  // Waits until no held range overlaps.
  void Lock(ClusterRange range) ADDCOW_EXCLUDES(mutex_);
  void Unlock(ClusterRange range) ADDCOW_EXCLUDES(mutex_);

 private:
  bool IsFree(ClusterRange range) const ADDCOW_REQUIRES(mutex_);

  Mutex mutex_;
  ConditionVariable released_;
  // One entry for each allocating request in flight: few, so a list.
  std::vector<ClusterRange> held_ ADDCOW_GUARDED_BY(mutex_);
};

class ClusterRangeLock {
 public:
  ClusterRangeLock(ClusterLocks& locks, ClusterRange range) : locks_(locks), range_(range) {
    locks_.Lock(range_);
  }
  ~ClusterRangeLock() { locks_.Unlock(range_); }
  ClusterRangeLock(const ClusterRangeLock&) = delete;
  ClusterRangeLock& operator=(const ClusterRangeLock&) = delete;

 private:
  ClusterLocks& locks_;
  const ClusterRange range_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_CLUSTER_LOCKS_H
