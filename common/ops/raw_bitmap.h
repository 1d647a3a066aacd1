// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The bitmaps as they lie in the add-cow file. The engine's view of them
// (AllocationBitmap) honours ALL_ALLOCATED and hides the bits past the end of the
// disk; check must see what is really there.
//
// There is no locking here: of a file that a server writes to, bits are seen
// as 0 or as 1 where they become 1 meanwhile.

#ifndef ADDCOW_COMMON_OPS_RAW_BITMAP_H
#define ADDCOW_COMMON_OPS_RAW_BITMAP_H

#include <cstdint>
#include <functional>
#include <vector>

#include "common/base/error.h"
#include "common/format/header.h"
#include "common/format/layout.h"
#include "common/image/allocation_bitmap.h"
#include "common/io/file.h"
#include "common/io/holes.h"

namespace addcow {

// All bits that have a place in a file: also those past the end of the disk.
struct RawPlaces {
  BitmapPlace clusters;     // ends where the second bitmap begins, or the file ends
  BitmapPlace subclusters;  // no bits where they do not count
};

// Of a file that OpenImageFiles has accepted.
Result<RawPlaces> RawPlacesOf(File& add_cow, const Header& header, const Layout& layout);

// All of the file after the header, for one of which no more is known. No more
// than the largest disk's bitmaps could have.
Result<BitmapPlace> WholeRawBitmap(File& add_cow, const Geometry& geometry);

// Reads one bitmap, best in ascending order. Only what has storage is read.
class RawBitmap {
 public:
  // `add_cow` must outlive this object.
  RawBitmap(File& add_cow, const BitmapPlace& place)
      : file_(add_cow), place_(place), holes_(add_cow) {}

  // The run of equal bits that starts at `range.first`, cut at the range's end; the
  // range has one bit or more, and lies within the bitmap.
  Result<ClusterRun> RunAt(ClusterRange range);

 private:
  Status Look(uint64_t byte);
  uint64_t RunEnd(uint64_t bit, bool set) const;

  File& file_;
  const BitmapPlace place_;
  Holes holes_;
  bool settled_ = false;
  // What was looked at last, in bytes of the bitmap, from a whole word on: a hole, or in
  // the buffer.
  uint64_t start_ = 0;
  uint64_t end_ = 0;
  bool hole_ = false;
  std::vector<std::byte> buffer_;
};

// Calls `visit` with the runs of equal bits, in order, without gaps, neighbours
// different. Stops at the first error, of `visit` too.
Status VisitRawBits(File& add_cow, const BitmapPlace& place,
                    const std::function<Status(const ClusterRun&)>& visit);

// What of a disk is in the image file, by the bits.
struct BitCounts {
  uint64_t allocated_clusters = 0;
  // Of clusters that are not allocated: those with a subcluster's bit, and these bits.
  uint64_t partial_clusters = 0;
  uint64_t subclusters = 0;

  uint64_t clusters_with_data() const { return allocated_clusters + partial_clusters; }
};

// ALL_ALLOCATED is not looked at.
Result<BitCounts> CountRawBits(File& add_cow, const RawPlaces& places, const Layout& layout);

// The same of the bits past the end of the disk.
Result<BitCounts> CountStrayBits(File& add_cow, const RawPlaces& places, const Layout& layout);

// Whether any bit of either bitmap is 1, also past the end of the disk.
Result<bool> AnyRawBit(File& add_cow, const RawPlaces& places);

// Calls `visit` with the stretches of the disk that the image file has by the bits, in
// order, neighbours apart. ALL_ALLOCATED is not looked at. Stops at the first error.
Status VisitAllocated(File& add_cow, const RawPlaces& places, const Layout& layout,
                      const std::function<Status(ByteRange)>& visit);

// Sets the bits of `range` to `value` in the file, where they must have their
// place already. Not synced.
Status FillRawBits(File& add_cow, const BitmapPlace& place, ClusterRange range, bool value);

// Clears the bits from `first` on that are set, and writes nowhere else. Not synced.
Status ClearRawBitsFrom(File& add_cow, const BitmapPlace& place, uint64_t first);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_RAW_BITMAP_H
