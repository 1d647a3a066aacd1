// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A disk that a user names for a verb that only reads it: an add-cow image, a raw file or
// block device, what an NBD server exports, or an image that QEMU reads.

#ifndef ADDCOW_COMMON_OPS_NAMED_DISK_H
#define ADDCOW_COMMON_OPS_NAMED_DISK_H

#include <string>

#include "common/base/error.h"
#include "common/image/base.h"
#include "common/io/file_system.h"

namespace addcow {

struct NamedDisk {
  std::string name;    // from the working directory; or an NBD URI
  std::string format;  // empty: FormatByName
};

// By the name alone, never by what is in the file, which a guest can write: add-cow of a
// name that ends so ("x.add-cow"), else raw.
std::string FormatByName(const std::string& name);

// Opens the disk for reading, and starts what it needs threads for. Locked as `access` says.
Result<Base> OpenNamedDisk(FileSystem& file_system, const NamedDisk& disk,
                           const AccessOptions& access);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_NAMED_DISK_H
