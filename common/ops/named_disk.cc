// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See named_disk.h.

#include "common/ops/named_disk.h"

#include <fmt/format.h>

#include <utility>

#include "common/source/nbd_uri.h"

namespace addcow {

std::string FormatByName(const std::string& name) {
  const bool add_cow = !IsNbdUri(name) && name.ends_with(".add-cow");
  return std::string(add_cow ? kAddCowFormat : kRawFormat);
}

Result<Base> OpenNamedDisk(FileSystem& file_system, const NamedDisk& disk,
                           const AccessOptions& access) {
  const std::string format = disk.format.empty() ? FormatByName(disk.name) : disk.format;
  if (!IsBaseFormat(format))
    return Fail(Error::Because(
        kErrUnsupported, disk.name,
        fmt::format("format '{}' is not read here, it must be {}", format, BaseFormats())));
  BaseRequest request{
      .file = nullptr, .path = disk.name, .format = format, .access = access, .role = "disk"};
  if (!IsNbdUri(disk.name)) {
    ADDCOW_TRY_ASSIGN(request.file, file_system.Open(disk.name, OpenMode::kReadOnly));
  }
  ADDCOW_TRY_ASSIGN(Base base, OpenBase(file_system, std::move(request)));
  ADDCOW_TRY(base.source->Start());
  return base;
}

}  // namespace addcow
