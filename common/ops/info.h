// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow info: what the header says, and what only the files can say: sizes.

#ifndef ADDCOW_COMMON_OPS_INFO_H
#define ADDCOW_COMMON_OPS_INFO_H

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/error.h"
#include "common/format/header.h"
#include "common/io/file_system.h"

namespace addcow {

struct ImageInfo {
  uint32_t version = 0;
  Header header;
  std::string image_path;     // where the header's name leads
  std::string backing_path;   // the same; empty without a backing file
  uint64_t virtual_size = 0;  // bytes
  uint64_t actual_size = 0;   // storage in use by the add-cow and the image file, bytes
};

// Reads; writes nothing. The image file must be there, since its size is the
// disk's; the backing file need not be, nor be of a format that can be served.
// `confine`: AccessOptions has it. Nothing is locked: what is shown cannot be
// torn by a server that has the files open.
Result<ImageInfo> GetInfo(FileSystem& file_system, const std::string& add_cow_path,
                          const std::optional<std::string>& confine = std::nullopt);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_INFO_H
