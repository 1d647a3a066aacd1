// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the image file of an image has of the disk, for verbs that copy that: commit and
// export. The files are open, and locked by who calls.

#ifndef ADDCOW_COMMON_OPS_LAYER_RUNS_H
#define ADDCOW_COMMON_OPS_LAYER_RUNS_H

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "common/base/error.h"
#include "common/format/layout.h"
#include "common/image/image_files.h"
#include "common/io/holes.h"

namespace addcow {

struct LayerRuns {
  std::unique_ptr<Holes> holes;  // of the image file
  // Ascending; neighbours are apart. All of the disk with ALL_ALLOCATED.
  std::vector<ByteRange> allocated;
  uint64_t data = 0;    // bytes of these in which the image file has data
  uint64_t zeroes = 0;  // and in which it is a hole

  // Calls `visit` with the ranges in runs of data and of holes, in order. Stops at the first
  // error.
  Status Visit(const std::function<Status(bool data, ByteRange range)>& visit) const;
};

// `files` must outlive the result. `by`: what its image file is synced through, where its holes
// cannot be told before that (Holes).
Result<LayerRuns> FindLayerRuns(const ImageFiles& files, File& by);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_LAYER_RUNS_H
