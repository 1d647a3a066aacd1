// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See layer_runs.h.

#include "common/ops/layer_runs.h"

#include "common/ops/raw_bitmap.h"

namespace addcow {

Result<std::vector<ByteRange>> AllocatedRanges(const ImageFiles& files) {
  std::vector<ByteRange> allocated;
  if (files.header.all_allocated) {
    allocated.push_back({0, files.virtual_size});
    return allocated;
  }
  ADDCOW_TRY_ASSIGN(const RawPlaces places,
                    RawPlacesOf(*files.add_cow, files.header, files.layout()));
  ADDCOW_TRY(
      VisitAllocated(*files.add_cow, places, files.layout(), [&](ByteRange range) -> Status {
        allocated.push_back(range);
        return {};
      }));
  return allocated;
}

Status VisitLayerRuns(const Holes& holes, const std::vector<ByteRange>& allocated,
                      const std::function<Status(bool data, ByteRange range)>& visit) {
  for (const ByteRange& range : allocated)
    for (uint64_t at = range.offset; at < range.end();) {
      ADDCOW_TRY_ASSIGN(const DataRun run, holes.RunAt(at, range.end()));
      ADDCOW_TRY(visit(run.data, ByteRange{at, run.end - at}));
      at = run.end;
    }
  return {};
}

}  // namespace addcow
