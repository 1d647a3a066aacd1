// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See partial_clusters.h.

#include "common/image/partial_clusters.h"

#include <algorithm>
#include <bit>

namespace addcow {

void SectorSet::Add(uint64_t first, uint64_t count) {
  while (count > 0) {
    const uint64_t shift = first % 64;
    const uint64_t part = std::min(64 - shift, count);
    const uint64_t ones = part == 64 ? ~uint64_t{0} : (uint64_t{1} << part) - 1;
    words_[first / 64] |= ones << shift;
    first += part;
    count -= part;
  }
}

uint64_t SectorSet::RunEnd(uint64_t sector) const {
  const bool there = Has(sector);
  while (sector < kSectors) {
    const uint64_t shift = sector % 64;
    const uint64_t word = words_[sector / 64] >> shift;
    const auto same = static_cast<uint64_t>(std::countr_one(there ? word : ~word));
    // Bits that were shifted in from above count for neither.
    sector += std::min(same, 64 - shift);
    if (same < 64 - shift) break;
  }
  return sector;
}

ValidSectors::Piece ValidSectors::ClusterAt(uint64_t offset, uint64_t limit) {
  const uint64_t cluster = offset / kClusterSize;
  while (next_ < clusters_.size() && clusters_[next_].cluster < cluster) next_++;
  if (next_ == clusters_.size()) return {false, limit};
  const PartialCluster& found = clusters_[next_];
  const uint64_t start = found.cluster * kClusterSize;
  if (found.cluster > cluster) return {false, std::min(start, limit)};
  const uint64_t sector = (offset - start) / kSectorSize;
  return {found.valid.Has(sector),
          std::min(start + found.valid.RunEnd(sector) * kSectorSize, limit)};
}

ValidSectors::Piece ValidSectors::At(uint64_t offset, uint64_t limit) {
  Piece piece = ClusterAt(offset, limit);
  while (piece.end < limit) {
    const Piece more = ClusterAt(piece.end, limit);
    if (more.valid != piece.valid) break;
    piece.end = more.end;
  }
  return piece;
}

bool PartialClusters::HasRoomFor(uint64_t cluster) const {
  if (count_.load() < limit_.load()) return true;
  MutexLock lock(mutex_);
  return clusters_.contains(cluster);
}

bool PartialClusters::Add(uint64_t offset, uint64_t length) {
  const uint64_t cluster = layout_.ClusterOf(offset);
  const uint64_t start = layout_.Start(cluster);
  const uint64_t first = (offset - start) / kSectorSize;
  const uint64_t end = DivideUp(offset + length - start, kSectorSize);
  const uint64_t sectors = DivideUp(layout_.End(cluster + 1) - start, kSectorSize);
  MutexLock lock(mutex_);
  // Another thread has completed it, and perhaps taken it out already.
  if (bitmap_.Test(cluster)) return false;
  SectorSet& valid = clusters_[cluster];
  valid.Add(first, end - first);
  count_.store(clusters_.size());
  return valid.HasFirst(sectors);
}

void PartialClusters::Remove(ClusterRange range) {
  // Under the lock even where there seems to be none: one may just be added.
  MutexLock lock(mutex_);
  clusters_.erase(clusters_.lower_bound(range.first), clusters_.lower_bound(range.end()));
  count_.store(clusters_.size());
}

ValidSectors PartialClusters::In(ClusterRange range) const {
  if (!any()) return {};
  std::vector<PartialCluster> found;
  MutexLock lock(mutex_);
  for (auto at = clusters_.lower_bound(range.first);
       at != clusters_.end() && at->first < range.end(); ++at)
    found.push_back({at->first, at->second});
  return ValidSectors(std::move(found));
}

PartialClusters::Run PartialClusters::RunAt(ClusterRange range) const {
  if (!any()) return {false, range};
  MutexLock lock(mutex_);
  auto at = clusters_.lower_bound(range.first);
  const bool partial = at != clusters_.end() && at->first == range.first;
  uint64_t end = range.first;
  if (partial)
    for (; at != clusters_.end() && at->first == end; ++at) end++;
  else
    end = at == clusters_.end() ? range.end() : at->first;
  return {partial, {range.first, std::min(end, range.end()) - range.first}};
}

std::vector<ClusterRange> PartialClusters::Runs(uint64_t longest) const {
  std::vector<ClusterRange> runs;
  MutexLock lock(mutex_);
  for (const auto& [cluster, valid] : clusters_) {
    if (!runs.empty() && runs.back().end() == cluster && runs.back().count < longest)
      runs.back().count++;
    else
      runs.push_back({cluster, 1});
  }
  return runs;
}

void PartialClusters::Filled(uint64_t clusters, double seconds) {
  // A few say nothing of the rest.
  if (clusters < kEnough || seconds <= 0) return;
  const double in_a_second = static_cast<double>(clusters) / seconds;
  const auto limit = static_cast<uint64_t>(std::min(in_a_second, static_cast<double>(kMost)));
  limit_.store(std::min(std::max(limit, kLeast), most_));
}

}  // namespace addcow
