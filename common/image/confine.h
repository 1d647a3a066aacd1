// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a header may name, where the user does not trust it (confine=): files beneath one
// directory, and no server or program of another format unless that is allowed.

#ifndef ADDCOW_COMMON_IMAGE_CONFINE_H
#define ADDCOW_COMMON_IMAGE_CONFINE_H

#include <memory>
#include <string>
#include <string_view>

#include "common/base/error.h"
#include "common/format/header.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

// Takes "uri", "formats" or both, with a comma between them; false where it is anything
// else.
bool SetAllowed(AccessOptions& access, std::string_view words);

// Opens a file that was not given by the user, but is named in the file `named_by`.
// `access` has a directory for that. EXDEV or ELOOP where it is not beneath.
Result<std::unique_ptr<File>> OpenConfined(FileSystem& file_system, const AccessOptions& access,
                                           const std::string& named_by, const std::string& name,
                                           OpenMode mode);

// Whether QEMU may open what an image of one of its formats names. EXDEV or ELOOP where not.
Status CheckConfined(FileSystem& file_system, const AccessOptions& access,
                     const std::string& named_by, const std::string& name);

// Whether the vmdk has all of its data itself. EXDEV where other files may have some: QEMU
// opens those as soon as it looks at it, wherever they lie.
Status CheckOwnExtents(File& vmdk, const AccessOptions& access);

// Whether what the header of `named_by` says of its backing file may be done. EXDEV where
// not. `by_header`: its name is the header's too.
Status CheckAllowed(const AccessOptions& access, const std::string& named_by,
                    const NamedFile& backing, bool by_header);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_CONFINE_H
