// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See layer_runs.h.

#include "common/ops/layer_runs.h"

#include "common/ops/raw_bitmap.h"

namespace addcow {

namespace {

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

}  // namespace

Status LayerRuns::Visit(const std::function<Status(bool data, ByteRange range)>& visit) const {
  for (const ByteRange& range : allocated)
    for (uint64_t at = range.offset; at < range.end();) {
      ADDCOW_TRY_ASSIGN(const DataRun run, holes->RunAt(at, range.end()));
      ADDCOW_TRY(visit(run.data, ByteRange{at, run.end - at}));
      at = run.end;
    }
  return {};
}

Result<LayerRuns> FindLayerRuns(const ImageFiles& files, File& by) {
  LayerRuns runs;
  runs.holes = std::make_unique<Holes>(*files.image);
  ADDCOW_TRY(runs.holes->Settle(by));
  ADDCOW_TRY_ASSIGN(runs.allocated, AllocatedRanges(files));
  ADDCOW_TRY(runs.Visit([&](bool data, ByteRange range) -> Status {
    (data ? runs.data : runs.zeroes) += range.length;
    return {};
  }));
  return runs;
}

}  // namespace addcow
