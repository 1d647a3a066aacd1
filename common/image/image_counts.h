// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What an image has done since it was opened, and what waits in it: plain values, for who
// shows them. Sizes are in bytes.

#ifndef ADDCOW_COMMON_IMAGE_IMAGE_COUNTS_H
#define ADDCOW_COMMON_IMAGE_IMAGE_COUNTS_H

#include <cstdint>

#include "common/base/latency.h"
#include "common/source/source.h"

namespace addcow {

// Of Allocation: as things are.
struct AllocationCounts {
  uint64_t cluster_size = 0;
  uint64_t clusters = 0;
  uint64_t allocated = 0;    // clusters
  uint64_t partial = 0;      // clusters that are not, and of which a part is in the image file
  uint64_t subclusters = 0;  // in those, that are in the image file
  // Bits that are set and not known to be durable.
  uint64_t unpublished_clusters = 0;
  uint64_t unpublished_subclusters = 0;
  uint64_t unpublished_bytes = 0;  // of the disk, that they stand for

  bool operator==(const AllocationCounts&) const = default;
};

struct ImageCounts {
  AllocationCounts allocation;

  uint64_t read_image = 0;    // from the image file
  uint64_t read_backing = 0;  // from the backing file: for clients, and to copy
  uint64_t read_nowhere = 0;  // zeroes for what lies past its end, or has none

  uint64_t written_image = 0;    // data, to the image file
  uint64_t written_add_cow = 0;  // bits and flags
  uint64_t zeroed_image = 0;     // by whatever way the file system has
  uint64_t cloned_image = 0;     // by sharing the backing file's storage

  uint64_t flushes_shared = 0;  // answered by another one, which covered them
  uint64_t flush_errors = 0;    // of those that follow
  Latencies flushes;            // that were done, for whomever

  SourceCounts source;

  bool operator==(const ImageCounts&) const = default;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_IMAGE_COUNTS_H
