// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which subclusters the engine has in the image file, by what anybody can see from
// outside: its map, and its bitmap of clusters, which must agree.

#ifndef ADDCOW_FUZZ_IMAGE_VIEW_H
#define ADDCOW_FUZZ_IMAGE_VIEW_H

#include <cstdint>
#include <iterator>
#include <set>

#include "common/image/image.h"
#include "fuzz/format_rules.h"
#include "fuzz/must.h"

namespace addcow::fuzz {

inline uint64_t NextSubcluster(uint64_t offset) {
  return (offset / kSubcluster + 1) * kSubcluster;
}

// Those of the clusters, of so many bytes, that are in the image file. None is in both
// files.
inline std::set<uint64_t> SubclustersInImage(Image& image, const std::set<uint64_t>& clusters,
                                             uint64_t cluster_size) {
  std::set<uint64_t> found;
  for (const uint64_t cluster : clusters) {
    const uint64_t start = cluster * cluster_size;
    const uint64_t stop = std::min(start + cluster_size, image.virtual_size());
    uint64_t bytes = 0;
    const Status done = image.Map(start, stop - start, [&](const Extent& extent) {
      if (extent.source != Extent::Source::kImage) return true;
      const uint64_t end = extent.offset + extent.length;
      for (uint64_t at = extent.offset; at < end; at = NextSubcluster(at)) {
        const bool begins = at % kSubcluster == 0;  // or a hole does
        FUZZ_MUST(begins || found.contains(at / kSubcluster), "subcluster {} is in both files",
                  at / kSubcluster);
        found.insert(found.end(), at / kSubcluster);
      }
      bytes += extent.length;
      return true;
    });
    FUZZ_MUST_SUCCEED(done, "map");
    // Were one there in part, there would be fewer bytes.
    uint64_t whole = 0;
    for (auto at = found.lower_bound(start / kSubcluster); at != found.end(); ++at)
      whole += std::min(kSubcluster, stop - *at * kSubcluster);
    FUZZ_MUST(bytes == whole, "a subcluster of cluster {} is in both files", cluster);
    FUZZ_MUST(!image.bitmap().Test(cluster) || bytes == stop - start,
              "cluster {} is allocated, but the map has some of it elsewhere", cluster);
  }
  return found;
}

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_IMAGE_VIEW_H
