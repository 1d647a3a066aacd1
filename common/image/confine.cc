// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See confine.h.

#include "common/image/confine.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "common/source/nbd_uri.h"
#include "common/source/qemu_server.h"

namespace addcow {

bool SetAllowed(AccessOptions& access, std::string_view words) {
  for (;;) {
    const std::string_view word = words.substr(0, words.find(','));
    if (word != "uri" && word != "formats") return false;
    (word == "uri" ? access.allow_uri : access.allow_formats) = true;
    if (word.size() == words.size()) return true;
    words.remove_prefix(word.size() + 1);
  }
}

Result<std::unique_ptr<File>> OpenConfined(FileSystem& file_system, const AccessOptions& access,
                                           const std::string& named_by, const std::string& name,
                                           OpenMode mode) {
  const std::string& confine = *access.confine;
  const std::string option = std::string(access.option_prefix) + "confine=";
  const auto real = file_system.RealPath(confine);
  if (!real)
    return Fail(Error::Because(EINVAL, confine,
                               fmt::format("the directory of {} cannot be found: {}", option,
                                           ErrnoText(real.error().code()))));
  const std::string& root = *real;
  const std::string directory = DirectoryOf(named_by);
  auto beneath = NameBeneath(root, directory, name);
  // An absolute name may be spelt as the user spelt the directory.
  if (!beneath && name.starts_with('/') && confine.starts_with('/'))
    beneath = NameBeneath(confine, directory, name);
  const auto outside = [&](int code) {
    return Fail(Error::Because(
        code, named_by,
        fmt::format("names the file '{}', which is not beneath {} and so refused ({}); "
                    "absolute symbolic links are not followed there",
                    name, root, option)));
  };
  if (!beneath) return outside(EXDEV);
  auto file = file_system.OpenBeneath(root, *beneath, mode);
  if (file) return file;
  switch (file.error().code()) {
    case EXDEV:
    case ELOOP:
      return outside(file.error().code());
    case ENOSYS:
      return Fail(Error::Because(ENOSYS, root,
                                 option + " needs openat2, which this system does not have"));
    default:
      return file;
  }
}

Status CheckConfined(FileSystem& file_system, const AccessOptions& access,
                     const std::string& named_by, const std::string& name) {
  if (IsNbdUri(name)) return CheckAllowed(access, named_by, {name, "raw"}, true);
  // For QEMU anything else is a server or worse, also where there is such a file.
  if (!name.starts_with('/'))
    return Fail(Error::Because(EXDEV, named_by,
                               fmt::format("names '{}', which is no file and so refused "
                                           "({}confine=)",
                                           name, access.option_prefix)));
  ADDCOW_TRY(OpenConfined(file_system, access, named_by, name, OpenMode::kReadOnly));
  return {};
}

Status CheckOwnExtents(File& vmdk, const AccessOptions& access) {
  // A sparse extent begins so; one of no capacity is a descriptor, which names others.
  // Source: VMware, Virtual Disk Format 5.0, "Hosted Sparse Extent Header".
  constexpr std::string_view kHosted = "KDMV";
  constexpr std::string_view kServer = "COWD";
  constexpr size_t kCapacity = 12;
  std::array<std::byte, 20> bytes{};
  ADDCOW_TRY_ASSIGN(const size_t count, vmdk.Read(bytes, 0));
  const std::string_view magic(reinterpret_cast<const char*>(bytes.data()), kHosted.size());
  const bool has_capacity =
      std::ranges::any_of(bytes.begin() + kCapacity, bytes.end(),
                          [](std::byte byte) { return byte != std::byte{0}; });
  if (count == bytes.size() && (magic == kServer || (magic == kHosted && has_capacity)))
    return {};
  return Fail(Error::Because(
      EXDEV, vmdk.name(),
      fmt::format("is a vmdk of several files, which QEMU opens before it is known where they "
                  "lie, and so refused ({}confine=); convert it: qemu-img convert -f vmdk",
                  access.option_prefix)));
}

Status CheckAllowed(const AccessOptions& access, const std::string& named_by,
                    const NamedFile& backing, bool by_header) {
  if (!access.confine) return {};
  const auto refuse = [&](const std::string& what, const char* value) {
    return Fail(
        Error::Because(EXDEV, named_by,
                       fmt::format("{}, which {}confine= does not let it ({}allow={} does)",
                                   what, access.option_prefix, access.option_prefix, value)));
  };
  if (by_header && IsNbdUri(backing.name) && !access.allow_uri)
    return refuse(fmt::format("names the server {}", backing.name), "uri");
  if (IsQemuFormat(backing.format) && !access.allow_formats)
    return refuse(fmt::format("has qemu-nbd read the backing file as '{}'", backing.format),
                  "formats");
  return {};
}

}  // namespace addcow
