// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See allocation_watch.h.

#include "fuzz/allocation_watch.h"

#include "fuzz/image_view.h"
#include "fuzz/must.h"

namespace addcow::fuzz {

void AllocationWatch::Opened(Image& image, const DiskByTheRules& disk) {
  image_ = &image;
  const HeaderFields& header = disk.header();
  may_get_subclusters_ =
      header.subclusters || (scene_.subclusters && !header.no_subclusters &&
                             disk.per_cluster() > 1 && !disk.SubclusterPlaceIsTaken());
  // There the bitmap may be larger than the address space.
  coarse_ = coarse_ || !may_get_subclusters_ || !disk.IsSurelyOpened();
  had_subclusters_ = header.subclusters;
}

std::set<uint64_t> AllocationWatch::Clusters() const {
  std::set<uint64_t> watched(sample_.begin(), sample_.end());
  for (const auto& [subcluster, bytes] : model_.changed())
    watched.insert(subcluster / model_.start().per_cluster());
  return watched;
}

std::vector<uint64_t> AllocationWatch::Subclusters() const {
  const DiskByTheRules& disk = model_.start();
  std::vector<uint64_t> watched;
  for (const uint64_t cluster : Clusters())
    for (uint64_t at = disk.Start(cluster); at < disk.EndOf(cluster); at = NextSubcluster(at))
      watched.push_back(at / kSubcluster);
  return watched;
}

std::set<uint64_t> AllocationWatch::InImage() {
  return SubclustersInImage(*image_, Clusters(), model_.start().cluster());
}

Allocated AllocationWatch::Now() {
  Allocated now;
  for (const uint64_t cluster : Clusters())
    if (image_->bitmap().Test(cluster)) now.clusters.insert(cluster);
  now.subclusters = InImage();
  return now;
}

bool AllocationWatch::IsIn(const std::set<uint64_t>& seen, uint64_t offset,
                           uint64_t end) const {
  for (; offset < end; offset = NextSubcluster(offset))
    if (!seen.contains(offset / kSubcluster) && !model_.start().IsInImage(offset / kSubcluster))
      return false;
  return true;
}

bool AllocationWatch::MayBeInImage(uint64_t subcluster) const {
  const auto& changed = model_.changed();
  if (model_.start().IsInImage(subcluster) || changed.contains(subcluster)) return true;
  const uint64_t per_cluster = model_.start().per_cluster();
  const uint64_t first = subcluster / per_cluster * per_cluster;
  const auto near = changed.lower_bound(first);
  return coarse_ && near != changed.end() && near->first < first + per_cluster;
}

void AllocationWatch::Look() {
  for (const uint64_t cluster : Clusters()) {
    const bool set = image_->bitmap().Test(cluster);
    FUZZ_MUST(set || !allocated_.contains(cluster), "bit {} went from 1 to 0", cluster);
    if (set) allocated_.insert(cluster);
  }
  std::set<uint64_t> now = InImage();
  for (const uint64_t subcluster : now)
    FUZZ_MUST(MayBeInImage(subcluster), "subcluster {} was copied, but nobody asked for it",
              subcluster);
  for (const uint64_t subcluster : live_)
    FUZZ_MUST(now.contains(subcluster), "subcluster {} was there and is not", subcluster);
  live_ = std::move(now);
}

void AllocationWatch::LookAfresh() {
  allocated_.clear();
  live_.clear();
  Look();
}

DiskByTheRules AllocationWatch::OnDisk(const char* when) const {
  const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
  FUZZ_MUST(disk.has_value(), "the files are not sound after a {}", when);
  return *disk;
}

void AllocationWatch::Flushed(uint64_t offset, uint64_t length) {
  const DiskByTheRules disk = OnDisk("FUA write");
  for (uint64_t at = offset; at < offset + length; at = NextSubcluster(at)) {
    FUZZ_MUST(disk.IsInImage(at / kSubcluster),
              "written with FUA, but subcluster {} is not allocated on the disk",
              at / kSubcluster);
    durable_subclusters_.insert(at / kSubcluster);
    if (disk.IsAllocated(at / disk.cluster())) durable_.insert(at / disk.cluster());
  }
  MustHaveRightFeatures(disk);
}

void AllocationWatch::Flushed() {
  const DiskByTheRules disk = OnDisk("flush");
  for (const uint64_t cluster : Clusters()) {
    const bool live = image_->bitmap().Test(cluster);
    FUZZ_MUST(disk.IsAllocated(cluster) == live, "flushed, but bit {} is {} on the disk",
              cluster, !live);
    if (live) durable_.insert(cluster);
  }
  const std::set<uint64_t> live = InImage();
  for (const uint64_t subcluster : Subclusters())
    FUZZ_MUST(disk.IsInImage(subcluster) == live.contains(subcluster),
              "flushed, but subcluster {} is {} on the disk", subcluster,
              disk.IsInImage(subcluster));
  durable_subclusters_.insert(live.begin(), live.end());
  MustHaveRightFeatures(disk);
  FUZZ_MUST(disk.header().all_allocated == image_->bitmap().all(), "ALL_ALLOCATED");
}

void AllocationWatch::MustBeOnDisk(const Allocated& last, const DiskByTheRules& disk,
                                   bool close) const {
  const bool all = close && !read_only_;
  for (const uint64_t cluster : Clusters()) {
    const bool on_disk = disk.IsAllocated(cluster);
    const bool was = last.clusters.contains(cluster);
    FUZZ_MUST(!on_disk || was, "bit {} came out of nothing", cluster);
    FUZZ_MUST(on_disk || !all || !was, "bit {} was lost by a close", cluster);
    FUZZ_MUST(on_disk || !durable_.contains(cluster), "bit {} went from 1 to 0", cluster);
  }
  for (const uint64_t subcluster : Subclusters()) {
    const bool on_disk = disk.IsInImage(subcluster);
    const bool was = last.subclusters.contains(subcluster);
    FUZZ_MUST(!on_disk || was, "subcluster {} came out of nothing", subcluster);
    FUZZ_MUST(on_disk || !all || !was, "subcluster {} was lost by a close", subcluster);
    FUZZ_MUST(on_disk || !durable_subclusters_.contains(subcluster),
              "subcluster {} was there and is not", subcluster);
  }
}

void AllocationWatch::MustHaveRightFeatures(const DiskByTheRules& disk) {
  const HeaderFields& start = model_.start().header();
  const HeaderFields& now = disk.header();
  had_subclusters_ = had_subclusters_ || now.subclusters;
  FUZZ_MUST(now.revision == start.revision && now.cluster == start.cluster,
            "the revision or the cluster size was changed");
  FUZZ_MUST(!had_subclusters_ || now.subclusters || !disk.AnySubclusterBit(),
            "SUBCLUSTERS was cleared, but not the bits");
  FUZZ_MUST(!now.subclusters || start.subclusters ||
                (may_get_subclusters_ && !read_only_ && !start.all_allocated),
            "SUBCLUSTERS was set where it may not be");
  FUZZ_MUST(!now.subclusters || !now.all_allocated || start.all_allocated,
            "SUBCLUSTERS was left with ALL_ALLOCATED");
  FUZZ_MUST(now.optional_features == start.optional_features &&
                now.no_subclusters == start.no_subclusters,
            "the optional features were changed");
  FUZZ_MUST(now.noted_size == start.noted_size && now.noted_seconds == start.noted_seconds &&
                now.noted_edge == start.noted_edge && now.noted_hash == start.noted_hash,
            "what is noted of the backing file was changed");
  FUZZ_MUST(now.all_allocated || !start.all_allocated, "ALL_ALLOCATED was cleared");
  // It may have been so from the beginning.
  FUZZ_MUST(!disk.IsUnpadded() || model_.start().IsUnpadded(), "the padding was cut");
}

}  // namespace addcow::fuzz
