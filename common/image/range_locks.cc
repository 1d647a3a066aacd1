// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See range_locks.h.

#include "common/image/range_locks.h"

#include <algorithm>

namespace addcow {

// Whether an earlier request stands against this one.
bool RangeLocks::MustWait(uint64_t ticket) const {
  const auto mine = std::ranges::find(requests_, ticket, &Request::ticket);
  return std::any_of(requests_.begin(), mine, [&](const Request& other) {
    return mine->range.first < other.range.end() && other.range.first < mine->range.end() &&
           (mine->kind == Kind::kExclusive || other.kind == Kind::kExclusive);
  });
}

uint64_t RangeLocks::Lock(ClusterRange range, Kind kind) {
  MutexLock lock(mutex_);
  const uint64_t ticket = next_ticket_++;
  requests_.push_back({ticket, range, kind});
  while (MustWait(ticket)) {
    waiting_++;
    released_.Wait(mutex_);
    waiting_--;
  }
  return ticket;
}

void RangeLocks::Unlock(uint64_t ticket) {
  bool wake;
  {
    MutexLock lock(mutex_);
    requests_.erase(std::ranges::find(requests_, ticket, &Request::ticket));
    wake = waiting_ > 0;
  }
  if (wake) released_.NotifyAll();
}

}  // namespace addcow
