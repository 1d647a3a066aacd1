// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow resize: another virtual size, which is that of the image file. What is new reads
// as zeroes, and what was cut off never comes back.
//
// Two files change, and no step changes both. The order of the steps makes either state
// between them one that reads as the old disk or as the new one: bits past the end of a
// disk are ignored, so bits are set before the image file grows, and cleared after it was
// cut. Killed at any time, the image has the old size or the new one, with at worst such
// bits left, which the same command run again, or "addcow check -r all", clears.
//
// The place of a subcluster bitmap depends on the size of the disk, and so does its length,
// by which readers tell. Where these would change, no such state could be read; so
// clusters that are there in part are copied up before, and the bitmap is dropped.

#ifndef ADDCOW_COMMON_OPS_RESIZE_H
#define ADDCOW_COMMON_OPS_RESIZE_H

#include <cstdint>
#include <functional>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/base/log.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

// The size that is wanted: so many bytes, or so many more or fewer than there are.
struct SizeChange {
  enum class Kind { kTo, kGrowBy, kShrinkBy };

  Kind kind = Kind::kTo;
  uint64_t bytes = 0;  // 1 .. kMaxOffset
};

struct ResizeOptions {
  // Its mode is not looked at.
  ImageSource source;
  SizeChange size;
  bool shrink = false;  // else a smaller size is refused
  // Called while clusters are copied up, with the bytes that are done, and of all.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
  Interrupted interrupted = {};
};

struct ResizeResult {
  uint64_t old_size = 0;  // bytes
  uint64_t new_size = 0;
  uint64_t copied = 0;  // bytes of the clusters that were copied up
};

// All is durable when it returns. Where it fails before the image file has its new size,
// the disk is as it was, but that clusters may have been copied up. EINVAL: a size that
// cannot be, or a smaller one without `shrink`. EFBIG: one that a limit of file sizes, or
// the file system, does not allow. With the size that it has, what a killed one left
// is finished.
Result<ResizeResult> ResizeImage(FileSystem& file_system, const ResizeOptions& options,
                                 LogSink log);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_RESIZE_H
