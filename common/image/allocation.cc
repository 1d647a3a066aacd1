// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See allocation.h.

#include "common/image/allocation.h"

#include <algorithm>
#include <utility>

namespace addcow {

Allocation::Allocation(const ImageFiles& files, std::unique_ptr<AllocationBitmap> bitmap,
                       const Layout& layout, uint64_t most_partial)
    : files_(files),
      layout_(layout),
      bitmap_(std::move(bitmap)),
      storage_(*files_.add_cow, layout_.bitmap()),
      store_(*files_.add_cow, *bitmap_, layout_.bitmap()),
      partials_(layout_, *bitmap_, most_partial),
      deferral_room_(*files_.image) {}

Status Allocation::Load() {
  if (files_.header.all_allocated)
    bitmap_->SetAll();
  else
    ADDCOW_TRY(store_.Load());
  if (files_.mode == OpenMode::kReadOnly || bitmap_->all()) return {};
  ADDCOW_TRY(storage_.TakeAll());
  return deferral_room_.Start();
}

Allocation::View Allocation::ViewAt(uint64_t offset, uint64_t length) const {
  const bool any_partial = partials_.any();
  ClusterRun run = RunAt(offset, length);
  if (run.allocated || !any_partial) return {run, {}};
  ValidSectors valid = partials_.In(run.range);
  // The bits once more: a cluster that has just left the table has its bit set.
  run = bitmap_->RunAt(run.range);
  return {run, std::move(valid)};
}

bool Allocation::CanDefer(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  const bool room =
      deferral_room_.Has(layout_.Touched(offset, length).count, partials_.count());
  // Those that wait get theirs while there is some.
  if (!room && partials_.any()) CallForFlush();
  const auto partial = [&](uint64_t edge) { return edge % layout_.cluster_size() != 0; };
  const auto deferrable = [&](uint64_t edge, uint64_t cluster) {
    return room && edge % kSectorSize == 0 && partials_.HasRoomFor(cluster) &&
           deferral_room_.Reaches(layout_.End(cluster + 1));
  };
  return (!partial(offset) || deferrable(offset, layout_.ClusterOf(offset))) &&
         (!partial(end) || end == layout_.virtual_size() ||
          deferrable(end, layout_.ClusterOf(end)));
}

void Allocation::NoteWritten(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  while (offset < end) {
    const uint64_t cluster = layout_.ClusterOf(offset);
    // Of clusters that are covered all at once.
    const uint64_t covered =
        end == layout_.virtual_size() ? layout_.clusters() : layout_.ClusterOf(end);
    if (offset % layout_.cluster_size() == 0 && covered > cluster) {
      SetAllocated({cluster, covered - cluster});
      offset = layout_.End(covered);
      continue;
    }
    const uint64_t part = std::min(end, layout_.End(cluster + 1)) - offset;
    if (partials_.Add(offset, part)) SetAllocated({cluster, 1});
    offset += part;
  }
}

void Allocation::SetAllocated(ClusterRange range) {
  store_.Allocate(range);
  partials_.Remove(range);  // in this order, see partial_clusters.h
}

void Allocation::SetCrowdedHandler(std::function<void()> handler) {
  MutexLock lock(crowded_mutex_);
  crowded_handler_ = std::move(handler);
}

void Allocation::CallIfCrowded() {
  if (partials_.crowded()) CallForFlush();
}

void Allocation::CallForFlush() {
  if (crowded_called_.exchange(true)) return;
  MutexLock lock(crowded_mutex_);
  if (crowded_handler_) crowded_handler_();
}

}  // namespace addcow
