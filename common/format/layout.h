// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where things are: the arithmetic between bytes of the disk, clusters, and
// bits of the COW bitmap. docs/format.md is the text that this follows.

#ifndef ADDCOW_COMMON_FORMAT_LAYOUT_H
#define ADDCOW_COMMON_FORMAT_LAYOUT_H

#include <algorithm>
#include <bit>
#include <cstdint>

#include "common/base/units.h"

namespace addcow {

inline constexpr uint64_t kSubclusterSize = 4096;

// Of version 1.
inline constexpr uint64_t kHeaderPageSize = 4096;
inline constexpr uint64_t kHeaderSize = kHeaderPageSize;  // header pages size is 1
inline constexpr uint64_t kClusterSize = 65536;
inline constexpr uint64_t kBitmapOffset = kHeaderSize;
inline constexpr uint64_t kBitmapPadding = 65536;

// What a header fixes of where things are, whatever its revision: in bytes. As it
// stands here it is that of version 1.
struct Geometry {
  uint64_t cluster_size = kClusterSize;  // a power of two, kSubclusterSize or more
  uint64_t header_size = kHeaderSize;    // where the COW bitmap begins
  uint64_t padding = kBitmapPadding;     // writers round a bitmap's length up to this

  bool operator==(const Geometry&) const = default;
};

// Bytes of the disk.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;

  uint64_t end() const { return offset + length; }
  bool operator==(const ByteRange&) const = default;
};

// The first cluster and how many, or subcluster. In this project a range of them is
// always that pair.
struct ClusterRange {
  uint64_t first = 0;
  uint64_t count = 0;

  uint64_t end() const { return first + count; }
  bool operator==(const ClusterRange&) const = default;
};

// Where a bitmap lies in an add-cow file, a bit for each of so many units. Bit n is
// bit n % 8 of byte n / 8.
struct BitmapPlace {
  uint64_t offset = 0;  // in bytes, a multiple of 4096
  uint64_t bits = 0;
  uint64_t padding = kBitmapPadding;

  uint64_t bytes() const { return DivideUp(bits, 8); }  // what a reader needs
  uint64_t end() const { return offset + bytes(); }
  uint64_t padded_end() const { return offset + RoundUp(bytes(), padding); }
};

// Where things are of one disk. Constant; any thread.
class Layout {
 public:
  // `virtual_size` is in bytes: 1 .. 2^63 - 1.
  Layout(uint64_t virtual_size, const Geometry& geometry)
      : geometry_(geometry),
        virtual_size_(virtual_size),
        cluster_bits_(static_cast<unsigned>(std::countr_zero(geometry.cluster_size))),
        clusters_(DivideUp(virtual_size, geometry.cluster_size)) {}

  const Geometry& geometry() const { return geometry_; }
  uint64_t virtual_size() const { return virtual_size_; }
  uint64_t cluster_size() const { return geometry_.cluster_size; }
  uint64_t clusters() const { return clusters_; }

  BitmapPlace bitmap() const { return {geometry_.header_size, clusters_, geometry_.padding}; }
  // A bit for each subcluster (format.md, SUBCLUSTERS).
  BitmapPlace subcluster_bitmap() const {
    return {bitmap().padded_end(), DivideUp(virtual_size_, kSubclusterSize), geometry_.padding};
  }

  uint64_t ClusterOf(uint64_t offset) const { return offset >> cluster_bits_; }
  uint64_t Start(uint64_t cluster) const { return cluster << cluster_bits_; }

  // The first byte after the clusters before `cluster`: the disk's end where
  // the last of them is partial.
  uint64_t End(uint64_t cluster_end) const {
    return cluster_end >= clusters_ ? virtual_size_ : Start(cluster_end);
  }

  // The clusters that [offset, offset + length) touches; length is 1 or more.
  ClusterRange Touched(uint64_t offset, uint64_t length) const {
    const uint64_t first = ClusterOf(offset);
    return {first, ClusterOf(offset + length - 1) - first + 1};
  }

 private:
  Geometry geometry_;
  uint64_t virtual_size_;
  unsigned cluster_bits_;
  uint64_t clusters_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_FORMAT_LAYOUT_H
