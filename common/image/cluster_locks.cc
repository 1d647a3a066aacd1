// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See cluster_locks.h.

#include "common/image/cluster_locks.h"

#include <algorithm>

namespace addcow {

bool ClusterLocks::IsFree(ClusterRange range) const {
  return std::none_of(held_.begin(), held_.end(), [&](const ClusterRange& held) {
    return range.first < held.end() && held.first < range.end();
  });
}

void ClusterLocks::Lock(ClusterRange range) {
  MutexLock lock(mutex_);
  while (!IsFree(range)) released_.Wait(mutex_);
  held_.push_back(range);
}

void ClusterLocks::Unlock(ClusterRange range) {
  {
    MutexLock lock(mutex_);
    held_.erase(std::find(held_.begin(), held_.end(), range));
  }
  released_.NotifyAll();
}

}  // namespace addcow
