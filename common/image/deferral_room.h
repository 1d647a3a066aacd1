// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether a copy-up may be left to the next flush (partial_clusters.h). What was
// acknowledged must not be lost because the flush then finds no room for the
// rest of the cluster. So a copy-up is deferred only while the file system has
// far more room than all that wait will need, and never past the process's limit
// of file sizes. Else the write copies up by itself, and is itself refused where
// there is no room.
//
// The system is asked now and then, not for each write: after so many clusters
// that what they take is far less than what was left over at the last look.
// Other programs can fill the file system meanwhile; then a flush may fail still.
//
// Threads: any.

#ifndef ADDCOW_COMMON_IMAGE_DEFERRAL_ROOM_H
#define ADDCOW_COMMON_IMAGE_DEFERRAL_ROOM_H

#include <atomic>
#include <cstdint>

#include "common/base/error.h"
#include "common/base/units.h"
#include "common/format/layout.h"
#include "common/io/file.h"

namespace addcow {

class DeferralRoom {
 public:
  // Room that stays for others, in bytes, and the clusters between two looks.
  static constexpr uint64_t kSpare = 32 * kMiB;
  static constexpr uint64_t kClustersALook = 64;

  // `image` is the image file, and must outlive this object.
  explicit DeferralRoom(File& image) : image_(image) {}

  // The first look, at opening.
  Status Start() {
    ADDCOW_TRY(Look(0));
    return {};
  }

  // Before a write to `clusters` that are not allocated, while the copy-up of
  // `waiting` others is deferred. Where the system cannot tell there is room.
  bool Has(uint64_t clusters, uint64_t waiting);

  // Whether all of a cluster that ends at `end` can be written at all.
  bool Reaches(uint64_t end) const { return end <= limit_.load(std::memory_order_relaxed); }

 private:
  // Whether there is room for the copy-up of so many clusters, and more.
  Result<bool> Look(uint64_t clusters);

  File& image_;
  std::atomic<int64_t> left_ = 0;             // clusters until the next look
  std::atomic<uint64_t> limit_ = UINT64_MAX;  // as of the last look
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_DEFERRAL_ROOM_H
