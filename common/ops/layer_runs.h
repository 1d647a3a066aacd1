// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the image file of an image has of the disk, for verbs that copy that: commit and
// export. The files are open, and locked by who calls.

#ifndef ADDCOW_COMMON_OPS_LAYER_RUNS_H
#define ADDCOW_COMMON_OPS_LAYER_RUNS_H

#include <functional>
#include <vector>

#include "common/base/error.h"
#include "common/format/layout.h"
#include "common/image/image_files.h"
#include "common/io/holes.h"

namespace addcow {

// Ascending; neighbours are apart. All of the disk with ALL_ALLOCATED.
Result<std::vector<ByteRange>> AllocatedRanges(const ImageFiles& files);

// Calls `visit` with the ranges in runs of data and of holes, in order. `holes` are the image
// file's. Stops at the first error.
Status VisitLayerRuns(const Holes& holes, const std::vector<ByteRange>& allocated,
                      const std::function<Status(bool data, ByteRange range)>& visit);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_LAYER_RUNS_H
