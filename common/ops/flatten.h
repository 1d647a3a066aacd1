// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow flatten: copies every cluster that is still in the backing file up
// into the image file, which is then the whole disk.
//
// May be stopped or killed at any time and run again: it goes on where it was
// stopped, or where the last flush was. Nothing else may write to the files meanwhile.

#ifndef ADDCOW_COMMON_OPS_FLATTEN_H
#define ADDCOW_COMMON_OPS_FLATTEN_H

#include <cstdint>
#include <functional>
#include <string>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/base/log.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

struct FlattenResult {
  // Bytes of the clusters that were not allocated; whole, also of those that were in
  // the image file in part.
  uint64_t copied = 0;
  std::string image_path;    // the file that is now the whole disk
  std::string backing_path;  // empty without a backing file
};

// Called now and then, at the beginning and at the end, with the bytes of
// unallocated clusters that are done, and of all there were at the beginning, counted
// as above.
using FlattenProgress = std::function<void(uint64_t done, uint64_t total)>;

// All is durable, and ALL_ALLOCATED set, when it returns: a plain file of version 1,
// without SUBCLUSTERS. Where the files may
// not be written it fails before anything is read. On failure what was copied
// is kept as far as possible, and the error says how far it came. With
// kErrInterrupted all that `progress` was told of is durable.
Result<FlattenResult> FlattenImage(FileSystem& file_system, ImageSource source, LogSink log,
                                   const FlattenProgress& progress,
                                   const Interrupted& interrupted);

// With the files where the header says, to the end.
inline Result<FlattenResult> FlattenImage(FileSystem& file_system,
                                          const std::string& add_cow_path, LogSink log,
                                          const FlattenProgress& progress,
                                          const AccessOptions& access = {}) {
  return FlattenImage(file_system, ImageSource{.add_cow_path = add_cow_path, .access = access},
                      std::move(log), progress, Interrupted());
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_FLATTEN_H
