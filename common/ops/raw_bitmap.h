// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The COW bitmap as it lies in the add-cow file. The engine's view of it
// (AllocationBitmap) honours ALL_ALLOCATED and hides the bits past the last
// cluster; check must see what is really there.
//
// There is no locking here: of a file that a server writes to, bits are seen
// as 0 or as 1 where they become 1 meanwhile.

#ifndef ADDCOW_COMMON_OPS_RAW_BITMAP_H
#define ADDCOW_COMMON_OPS_RAW_BITMAP_H

#include <cstdint>
#include <functional>

#include "common/base/error.h"
#include "common/format/layout.h"
#include "common/image/allocation_bitmap.h"
#include "common/io/file.h"

namespace addcow {

// How many bytes of bitmap there are in `add_cow`: all of the file after the
// header, but no more than the largest disk's bitmap could have.
Result<uint64_t> RawBitmapBytes(File& add_cow);

// Calls `visit` with the runs of equal bits of the first `bytes` bytes of the
// bitmap, in order, without gaps, neighbours different. Only what has storage
// is read. Stops at the first error, of `visit` too.
Status VisitRawBits(File& add_cow, uint64_t bytes,
                    const std::function<Status(const ClusterRun&)>& visit);

// Whether any bit that there is in `add_cow` is 1.
Result<bool> AnyRawBit(File& add_cow);

// Sets the bits of `range` to `value` in the file, where they must have their
// place already. Not synced.
Status FillRawBits(File& add_cow, ClusterRange range, bool value);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_RAW_BITMAP_H
