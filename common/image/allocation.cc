// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See allocation.h.

#include "common/image/allocation.h"

#include <bit>
#include <utility>
#include <vector>

#include "common/base/zero_bytes.h"
#include "common/io/holes.h"

namespace addcow {

namespace {

constexpr uint64_t kBufferSize = 64 * kKiB;

ClusterRange Subclusters(uint64_t offset, uint64_t end) {
  return {offset / kSubclusterSize, DivideUp(end, kSubclusterSize) - offset / kSubclusterSize};
}

}  // namespace

Result<Allocation::Level> Allocation::MakeLevel(const ImageFiles& files,
                                                const BitmapPlace& place) {
  Level level;
  ADDCOW_TRY_ASSIGN(level.bitmap, AllocationBitmap::Create(place.bits, files.add_cow_path));
  ADDCOW_TRY_ASSIGN(level.storage, BitmapStorage::Create(*files.add_cow, place));
  level.store = std::make_unique<BitmapStore>(*files.add_cow, *level.bitmap, place);
  return level;
}

Status Allocation::Open(bool subclusters) {
  ADDCOW_TRY_ASSIGN(clusters_, MakeLevel(files_, layout_.bitmap()));
  grain_ = layout_.cluster_size();
  if (!files_.header.all_allocated) ADDCOW_TRY(OpenSubclusters(subclusters));
  return Load();
}

Status Allocation::OpenSubclusters(bool subclusters) {
  const bool found = files_.header.subclusters;
  if (!found) {
    const bool wanted = subclusters && !files_.header.no_subclusters &&
                        files_.mode == OpenMode::kReadWrite && grain_ > kSubclusterSize;
    if (!wanted) return {};
    ADDCOW_TRY_ASSIGN(const bool may_grow, MayGrow());
    if (!may_grow) return {};
  }
  auto level = MakeLevel(files_, layout_.subcluster_bitmap());
  // A disk of exbibytes has more subclusters than there are addresses for bits.
  if (!level && found) return Fail(level.error());
  if (!level) return {};
  subclusters_ = std::move(*level);
  grain_ = kSubclusterSize;
  grown_ = found;
  return {};
}

Status Allocation::Load() {
  if (files_.header.all_allocated) {
    clusters_.bitmap->SetAll();
  } else {
    ADDCOW_TRY(clusters_.store->Load());
    if (files_.header.subclusters) ADDCOW_TRY(subclusters_.store->Load());
  }
  if (files_.mode == OpenMode::kReadOnly || clusters().all()) return {};
  ADDCOW_TRY(clusters_.storage->TakeAll());
  return CompleteClusters();
}

// A process that was killed between writing the two bitmaps leaves clusters that are
// not allocated and have all of their subclusters.
Status Allocation::CompleteClusters() {
  const uint64_t count = has_subclusters() ? subclusters_.bitmap->clusters() : 0;
  for (uint64_t position = 0; position < count;) {
    const ClusterRun run = subclusters_.bitmap->RunAt({position, count - position});
    position = run.range.end();
    const uint64_t end =
        position == count ? layout_.clusters() : layout_.ClusterOf(position * kSubclusterSize);
    uint64_t cluster = DivideUp(run.range.first * kSubclusterSize, layout_.cluster_size());
    for (; run.allocated && cluster < end; cluster++) {
      if (clusters().Test(cluster)) continue;
      Status taken = clusters_.storage->Take({cluster, 1});
      if (!taken) return taken.error().IsNoRoom() ? Status() : taken;
      clusters_.store->Allocate({cluster, 1});
    }
  }
  return {};
}

Allocation::Run Allocation::RunAt(uint64_t offset, uint64_t end) const {
  const ClusterRun run = ClustersAt(offset, end - offset);
  const uint64_t run_end = std::min(layout_.End(run.range.end()), end);
  if (run.allocated || !has_subclusters()) return {run.allocated, run_end};
  const ClusterRun subs = subclusters_.bitmap->RunAt(Subclusters(offset, run_end));
  return {subs.allocated, std::min(subs.range.end() * kSubclusterSize, run_end)};
}

bool Allocation::AnySubcluster(uint64_t offset, uint64_t end) const {
  if (!has_subclusters() || subclusters_.bitmap->allocated() == 0) return false;
  const ClusterRange range = Subclusters(offset, end);
  const ClusterRun run = subclusters_.bitmap->RunAt(range);
  return run.allocated || run.range != range;
}

Status Allocation::TakeStorage(uint64_t offset, uint64_t end) {
  // Also of a cluster whose last subcluster this is.
  ADDCOW_TRY(clusters_.storage->Take(layout_.Touched(offset, end - offset)));
  if (grain_ == layout_.cluster_size() || !publishes_them()) return {};
  Status taken = TakeSubclusterStorage(offset, end);
  // Nobody needs any where all has become allocated meanwhile, and the file was cut.
  return publishes_them() ? taken : Status();
}

// Clusters that are written whole get their own bits only, but where they have
// subclusters already.
Status Allocation::TakeSubclusterStorage(uint64_t offset, uint64_t end) {
  const uint64_t first = layout_.Start(DivideUp(offset, layout_.cluster_size()));
  const uint64_t last =
      end == layout_.virtual_size() ? end : RoundDown(end, layout_.cluster_size());
  const bool none_whole = first >= last || AnySubcluster(first, last);
  if (!none_whole && first == offset && last == end) return {};
  ADDCOW_TRY(Grow());
  const auto take = [&](uint64_t from, uint64_t to) {
    return from < to ? subclusters_.storage->Take(Subclusters(from, to)) : Status();
  };
  if (none_whole) return take(offset, end);
  ADDCOW_TRY(take(offset, first));
  return take(last, end);
}

// Whether a subcluster bitmap can have its place: a device cannot grow, and a file no
// more than the limit of file sizes allows. What is there already may be the bits of
// a larger disk, which will be there again when its image file is.
Result<bool> Allocation::MayGrow() {
  ADDCOW_TRY_ASSIGN(const FileInfo info, files_.add_cow->Info());
  const BitmapPlace place = layout_.subcluster_bitmap();
  if (info.is_block_device || place.padded_end() > info.size_limit) return false;
  ADDCOW_TRY_ASSIGN(const uint64_t size, files_.add_cow->Size());
  if (size <= place.offset) return true;
  place_taken_ = size > place.padded_end();
  if (place_taken_) return false;
  Holes holes(*files_.add_cow);
  ADDCOW_TRY(holes.Settle(*files_.add_cow));
  std::vector<std::byte> buffer(kBufferSize);
  for (uint64_t offset = place.offset; offset < size;) {
    ADDCOW_TRY_ASSIGN(const uint64_t data, holes.FindData(offset));
    offset = std::max(offset, data);
    if (offset >= size) break;
    ADDCOW_TRY_ASSIGN(const uint64_t hole, holes.FindHole(offset));
    const uint64_t end = hole > offset ? std::min(hole, size) : size;
    const auto part =
        std::span(buffer).first(static_cast<size_t>(std::min(end - offset, kBufferSize)));
    ADDCOW_TRY(files_.add_cow->ReadExactly(part, offset));
    place_taken_ = !IsZero(part);
    if (place_taken_) return false;
    offset += part.size();
  }
  return true;
}

// Room for the subcluster bitmap, as a hole; what was there before is zero (MayGrow). A
// flush makes it durable before it sets SUBCLUSTERS.
Status Allocation::Grow() {
  if (grown_.load(std::memory_order_acquire)) return {};
  MutexLock lock(growing_mutex_);
  if (grown_.load(std::memory_order_relaxed)) return {};
  const BitmapPlace place = layout_.subcluster_bitmap();
  ADDCOW_TRY_ASSIGN(const uint64_t size, files_.add_cow->Size());
  // Made longer, it would hide from a flush what it has lost.
  if (size < layout_.bitmap().end())
    return Fail(Error::Because(EIO, files_.add_cow->name(), "was truncated while in use"));
  if (size != place.padded_end()) ADDCOW_TRY(files_.add_cow->Truncate(place.padded_end()));
  grown_.store(true, std::memory_order_release);
  return {};
}

void Allocation::SetInImage(uint64_t offset, uint64_t end) {
  const bool to_the_end = end == layout_.virtual_size();
  while (offset < end) {
    const uint64_t cluster = layout_.ClusterOf(offset);
    // Clusters that are covered, all at once.
    const uint64_t covered = to_the_end ? layout_.clusters() : layout_.ClusterOf(end);
    if (offset == layout_.Start(cluster) && covered > cluster) {
      clusters_.store->Allocate({cluster, covered - cluster});
      offset = layout_.End(covered);
      continue;
    }
    const uint64_t part_end = std::min(end, layout_.End(cluster + 1));
    subclusters_.store->Allocate(Subclusters(offset, part_end));
    const ClusterRange all = Subclusters(layout_.Start(cluster), layout_.End(cluster + 1));
    const ClusterRun run = subclusters_.bitmap->RunAt(all);
    if (run.allocated && run.range == all) clusters_.store->Allocate({cluster, 1});
    offset = part_end;
  }
}

bool Allocation::IsDurable(uint64_t offset, uint64_t end) {
  while (offset < end) {
    const uint64_t cluster = layout_.ClusterOf(offset);
    const uint64_t part_end = std::min(end, layout_.End(cluster + 1));
    if (!clusters_.store->IsDurable({cluster, 1}) &&
        !(has_subclusters() && subclusters_.store->IsDurable(Subclusters(offset, part_end))))
      return false;
    offset = part_end;
  }
  return true;
}

uint64_t Allocation::end_of_bits() const {
  const bool both = publishes_them() && grown_.load(std::memory_order_acquire);
  return (both ? layout_.subcluster_bitmap() : layout_.bitmap()).end();
}

uint64_t Allocation::UnpublishedBytes() {
  uint64_t bytes = clusters_.store->Unpublished() * layout_.cluster_size();
  if (publishes_them()) bytes += subclusters_.store->Unpublished() * kSubclusterSize;
  return bytes;
}

uint64_t Allocation::PendingPages() {
  return clusters_.store->PendingPages() +
         (publishes_them() ? subclusters_.store->PendingPages() : 0);
}

uint64_t Allocation::NextPartial(uint64_t cluster) const {
  if (!has_subclusters() || cluster >= layout_.clusters()) return layout_.clusters();
  const uint64_t count = subclusters_.bitmap->clusters();
  for (uint64_t at = layout_.Start(cluster) / kSubclusterSize; at < count;) {
    const ClusterRun run = subclusters_.bitmap->RunAt({at, count - at});
    at = run.range.end();
    if (!run.allocated) continue;
    const uint64_t start = run.range.first * kSubclusterSize;
    const uint64_t end = std::min(at * kSubclusterSize, layout_.virtual_size());
    const ClusterRun above = ClustersAt(start, end - start);
    if (!above.allocated) return layout_.ClusterOf(start);
    if (layout_.End(above.range.end()) < end) return above.range.end();
  }
  return layout_.clusters();
}

// By the words of the subclusters' bitmap, of which those of empty pages are skipped.
Allocation::Partial Allocation::CountPartial(uint64_t allocated, uint64_t of_clusters) const {
  Partial partial{.allocated = allocated, .of_clusters = of_clusters};
  const AllocationBitmap& bits = *subclusters_.bitmap;
  const uint64_t in_cluster = layout_.cluster_size() / kSubclusterSize;
  const uint64_t count = bits.clusters();
  for (uint64_t position = 0; position < count;) {
    const uint64_t word = bits.word(position / 64) >> (position % 64);
    if (word == 0) {
      const ClusterRun run = bits.RunAt({position, count - position});
      if (!run.allocated) position = run.range.end();  // else it has just been set
      continue;
    }
    position += static_cast<uint64_t>(std::countr_zero(word));
    const uint64_t cluster = position / in_cluster;
    const uint64_t end = std::min((cluster + 1) * in_cluster, count);
    if (!clusters().Test(cluster)) {
      partial.clusters++;
      while (position < end) {
        const uint64_t here = std::min(end, RoundDown(position, 64) + 64);
        const uint64_t mask = ~uint64_t{0} >> (64 - (here - position));
        partial.subclusters += static_cast<uint64_t>(
            std::popcount(bits.word(position / 64) >> (position % 64) & mask));
        position = here;
      }
    }
    position = end;
  }
  return partial;
}

AllocationCounts Allocation::Counts() {
  AllocationCounts counts{
      .cluster_size = layout_.cluster_size(),
      .clusters = layout_.clusters(),
      .allocated = clusters().all() ? layout_.clusters() : clusters().allocated()};
  counts.unpublished_clusters = clusters_.store->Unpublished();
  counts.unpublished_bytes = counts.unpublished_clusters * layout_.cluster_size();
  if (publishes_them()) {
    counts.unpublished_subclusters = subclusters_.store->Unpublished();
    counts.unpublished_bytes += counts.unpublished_subclusters * kSubclusterSize;
  }
  if (!has_subclusters() || clusters().all()) return counts;
  MutexLock lock(counting_mutex_);
  const uint64_t allocated = clusters().allocated();
  const uint64_t of_clusters = subclusters_.bitmap->allocated();
  if (partial_.allocated != allocated || partial_.of_clusters != of_clusters)
    partial_ = CountPartial(allocated, of_clusters);
  counts.partial = partial_.clusters;
  counts.subclusters = partial_.subclusters;
  return counts;
}

uint64_t Allocation::written() const {
  return clusters_.store->written() + (has_subclusters() ? subclusters_.store->written() : 0);
}

bool Allocation::HasPending() {
  return clusters_.store->HasPending() ||
         (publishes_them() && subclusters_.store->HasPending());
}

bool Allocation::DropSubclusters() {
  dropped_.store(true, std::memory_order_release);
  return grown_.load(std::memory_order_acquire);
}

Allocation::Taken Allocation::Take() {
  Taken taken;
  taken.clusters = clusters_.store->Take();
  if (publishes_them()) taken.subclusters = subclusters_.store->Take();
  return taken;
}

Status Allocation::Write(const Taken& taken) {
  if (has_subclusters()) ADDCOW_TRY(subclusters_.store->Write(taken.subclusters));
  return clusters_.store->Write(taken.clusters);
}

void Allocation::PutBack(Taken taken) {
  clusters_.store->PutBack(std::move(taken.clusters));
  if (has_subclusters()) subclusters_.store->PutBack(std::move(taken.subclusters));
}

void Allocation::Published() {
  clusters_.store->Published();
  if (has_subclusters()) subclusters_.store->Published();
}

}  // namespace addcow
