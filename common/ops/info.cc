// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See info.h.

#include "common/ops/info.h"

#include "common/format/raw_header.h"
#include "common/image/image_files.h"

namespace addcow {

Result<ImageInfo> GetInfo(FileSystem& file_system, const std::string& add_cow_path,
                          const std::optional<std::string>& confine) {
  ADDCOW_TRY_ASSIGN(
      const ImageFiles files,
      OpenImageFiles(file_system, {.add_cow_path = add_cow_path,
                                   .image_path = {},
                                   .backing_path = {},
                                   .mode = OpenMode::kReadOnly,
                                   .want_backing = false,
                                   .access = {.lock = false, .confine = confine}}));
  ADDCOW_TRY_ASSIGN(const FileInfo add_cow, files.add_cow->Info());
  ADDCOW_TRY_ASSIGN(const FileInfo image, files.image->Info());
  return ImageInfo{.version = kVersion,  // the only one that can be opened
                   .header = files.header,
                   .image_path = files.image_path,
                   .backing_path = files.backing_path,
                   .virtual_size = files.virtual_size,
                   .actual_size = add_cow.allocated_bytes + image.allocated_bytes};
}

}  // namespace addcow
