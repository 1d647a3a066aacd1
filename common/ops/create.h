// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow create: makes an add-cow file, and its image file where there is
// none.

#ifndef ADDCOW_COMMON_OPS_CREATE_H
#define ADDCOW_COMMON_OPS_CREATE_H

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/error.h"
#include "common/format/header.h"
#include "common/io/file_system.h"
#include "common/ops/interrupted.h"

namespace addcow {

struct CreateOptions {
  // Relative to the working directory, like any path that a user gives.
  std::string add_cow_path;
  // Stored as they are, and relative to the directory of the add-cow file.
  std::string image_name;
  std::optional<NamedFile> backing;
  // Of a new image file, in bytes, 1 .. 2^63 - 1; none: the backing file's.
  // An image file that is there has its own, which this must agree with.
  std::optional<uint64_t> size;
  // Replace an add-cow file that is there. Any other file is refused.
  bool force = false;
  // Refuse to replace an add-cow file that another program has open.
  bool lock = true;
  // Asked until the add-cow file is there; then it is too late.
  Interrupted interrupted = {};
};

struct CreateResult {
  uint64_t virtual_size = 0;      // bytes
  std::string image_path;         // where image_name leads
  bool image_was_there = false;   // taken as it was
  bool old_data_ignored = false;  // it holds data, which the backing file now hides
};

// All is durable when it returns. On failure nothing is left behind and an
// add-cow file that was there is untouched, with one exception: where it was
// replaced and only the directory's sync failed, the new files stay.
//
// Without a backing file every cluster is allocated, so that what an image
// file holds stays visible.
Result<CreateResult> CreateImage(FileSystem& file_system, const CreateOptions& options);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_CREATE_H
