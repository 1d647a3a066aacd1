// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who may change parts of the disk that are not in the image file yet. A thread
// claims a range of subclusters before it looks at their bits for the last time, and
// holds it until what it did there shows in the bits.
//
//   shared     writes, zeroes and trims of whole subclusters. They may be in a
//              subcluster together, as they may in one that is allocated.
//   exclusive  what puts old bytes into the image file: copying up, and writes that
//              end inside a subcluster. It must not put them over a write that it has
//              not seen, neither one that is under way nor one that begins meanwhile.
//
// Reads, and writes to allocated clusters, never come here. The backing file is read
// before a range is claimed, never while one is held.
//
// Ranges are given out in the order in which they were asked for: a request
// waits for those before it that overlap, unless both are shared. So nobody
// waits for ever, whatever the others do.
//
// Order: a thread holds one range at a time, so ranges cannot deadlock. It may take
// the innermost locks meanwhile, and must not flush.

#ifndef ADDCOW_COMMON_IMAGE_RANGE_LOCKS_H
#define ADDCOW_COMMON_IMAGE_RANGE_LOCKS_H

#include <cstdint>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/units.h"
#include "common/format/layout.h"

namespace addcow {

class RangeLocks {
 public:
  enum class Kind { kShared, kExclusive };

  // Most bytes of the disk to be claimed at once, so that a long request does not
  // keep others waiting for all its time.
  static constexpr uint64_t kMost = 16 * kMiB;

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

// A claim on the subclusters that [offset, end) of the disk touches.
class RangeLock {
 public:
  RangeLock(RangeLocks& locks, uint64_t offset, uint64_t end, RangeLocks::Kind kind)
      : locks_(locks),
        ticket_(locks_.Lock({offset / kSubclusterSize,
                             DivideUp(end, kSubclusterSize) - offset / kSubclusterSize},
                            kind)) {}
  ~RangeLock() { locks_.Unlock(ticket_); }
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;

 private:
  RangeLocks& locks_;
  const uint64_t ticket_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_RANGE_LOCKS_H
