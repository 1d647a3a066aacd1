// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Watches what the engine has in the image file, clusters and subclusters, in memory and
// on the disk, while a session of the image fuzzer goes on (see the properties there).
// Looked at are the clusters of the disk's sample, and those that were changed.

#ifndef ADDCOW_FUZZ_ALLOCATION_WATCH_H
#define ADDCOW_FUZZ_ALLOCATION_WATCH_H

#include <cstdint>
#include <set>
#include <vector>

#include "common/image/image.h"
#include "fuzz/disk_model.h"
#include "fuzz/scene.h"

namespace addcow::fuzz {

// What was in the image file at one time.
struct Allocated {
  std::set<uint64_t> clusters;
  std::set<uint64_t> subclusters;
};

class AllocationWatch {
 public:
  // Both outlive it. `read_only`: the image cannot be written.
  AllocationWatch(const Scene& scene, const DiskModel& model, bool read_only)
      : scene_(scene), model_(model), read_only_(read_only), sample_(model.start().Sample()) {}

  // The image was opened, and lies on the disk like this. It outlives what is asked
  // until it is opened again.
  void Opened(Image& image, const DiskByTheRules& disk);

  std::set<uint64_t> Clusters() const;
  std::vector<uint64_t> Subclusters() const;
  // As they were when the engine was last asked.
  const std::set<uint64_t>& live() const { return live_; }
  // SUBCLUSTERS is set, or may be set by the next write.
  bool may_get_subclusters() const { return may_get_subclusters_; }
  // Whether all of it was in the image file: by what was seen, or from the beginning on.
  bool IsIn(const std::set<uint64_t>& seen, uint64_t offset, uint64_t end) const;

  // Asks the engine: nothing went away, nothing came that nobody asked for.
  void Look();
  // The same after an open: a kill may have lost some.
  void LookAfresh();
  Allocated Now();

  // A flush succeeded: what is allocated is so on the disk.
  void Flushed();
  // A FUA write succeeded: its bytes are allocated on the disk.
  void Flushed(uint64_t offset, uint64_t length);
  // The image is closed, or was killed (not `close`), when this was allocated.
  void MustBeOnDisk(const Allocated& last, const DiskByTheRules& disk, bool close) const;
  void MustHaveRightFeatures(const DiskByTheRules& disk);

 private:
  DiskByTheRules OnDisk(const char* when) const;
  std::set<uint64_t> InImage();
  // Whether somebody had to bring the subcluster into the image file.
  bool MayBeInImage(uint64_t subcluster) const;

  const Scene& scene_;
  const DiskModel& model_;
  const bool read_only_;
  const std::vector<uint64_t> sample_;
  Image* image_ = nullptr;
  std::set<uint64_t> allocated_;  // clusters seen as 1 since the last open
  std::set<uint64_t> durable_;    // 1 when a flush succeeded
  // The same of subclusters that are in the image file.
  std::set<uint64_t> live_;
  std::set<uint64_t> durable_subclusters_;
  bool may_get_subclusters_ = false;
  bool had_subclusters_ = false;  // on the disk, since the last open
  bool coarse_ = false;           // writes were rounded to clusters, or may have been
};

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_ALLOCATION_WATCH_H
