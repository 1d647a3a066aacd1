// SPDX-License-Identifier: LGPL-2.1-or-later
//
// For verbs that write: where OpenImageFiles had to fall back to reading only,
// it does not say why. This does.

#ifndef ADDCOW_COMMON_OPS_REQUIRE_WRITABLE_H
#define ADDCOW_COMMON_OPS_REQUIRE_WRITABLE_H

#include <string>

#include "common/base/error.h"
#include "common/image/image_files.h"

namespace addcow {

// Fails where the add-cow file or the image file cannot be written, with the
// error of opening that one.
inline Status RequireWritable(FileSystem& file_system, const ImageFiles& files) {
  if (files.mode == OpenMode::kReadWrite) return {};
  for (const std::string& path : {files.add_cow_path, files.image_path})
    ADDCOW_TRY(file_system.Open(path, OpenMode::kReadWrite));
  return Fail(Error::System(EROFS, "open", files.image_path));
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_REQUIRE_WRITABLE_H
