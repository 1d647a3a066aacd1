// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The files that QEMU opens for an image of one of its formats: that one, what it stands
// on, and what else they name. Asked of qemu-img; no format is decoded here.

#ifndef ADDCOW_COMMON_SOURCE_QEMU_CHAIN_H
#define ADDCOW_COMMON_SOURCE_QEMU_CHAIN_H

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/source/program.h"

namespace addcow {

// A file, or what else QEMU can open.
struct QemuFile {
  std::string name;           // absolute, where it is a file
  std::string named_by;       // the image that stands on it; empty of the first one
  std::string format;         // empty: with contents of that image
  uint64_t virtual_size = 0;  // bytes; 0 where it has no format, or is raw
  uint64_t actual_size = 0;   // the same, of storage
};

// Of a name, as QEMU tells it: what stands before a colon that comes before any slash. Nothing:
// it is a file's.
std::optional<std::string_view> QemuProtocolOf(std::string_view name);

// The image at `path`, and those that it needs, in the order in which they are found. Each
// but the first is shown to `accept` before, and not opened where that refuses it. EINVAL
// where one is named without its format, which QEMU would guess, or in a way that may hide
// that.
// Relative names start as QEMU has it: from the directory of the name by which an image is
// opened, a link or not, and of data files from `directory`, where QEMU runs.
Result<std::vector<QemuFile>> FilesOfQemuImage(
    const std::string& path, const std::string& format, const std::string& directory,
    const ProgramLimits& limits, const std::function<Status(const QemuFile&)>& accept);

// What qemu-img prints of one image, in JSON. EINVAL where it names a file by what is no UTF-8,
// of which JSON does not say what it is. `directory`: where QEMU runs,
// from which relative names of data files start.
struct QemuImageInfo {
  std::string backing;         // as it can be opened; empty: it stands on nothing
  std::string backing_format;  // empty: it does not say
  std::string backing_as_named;
  std::vector<std::string> extents;  // files with its contents, other than itself
  uint64_t virtual_size = 0;         // bytes; 0: it does not say
  uint64_t actual_size = 0;          // the same, of storage
};
Result<QemuImageInfo> ParseQemuInfo(const std::string& json, const std::string& path,
                                    const std::string& directory);

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_QEMU_CHAIN_H
