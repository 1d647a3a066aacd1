// SPDX-License-Identifier: LGPL-2.1-or-later
//
// QemuServer: a qemu-nbd of ours, which serves one image read only, in one format and no
// other. It is started through libnbd's socket activation, on a socket that nobody else
// knows, and ends with its last client: also where this process is killed.

#ifndef ADDCOW_COMMON_SOURCE_QEMU_SERVER_H
#define ADDCOW_COMMON_SOURCE_QEMU_SERVER_H

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/io/file_system.h"
#include "common/source/nbd_server.h"

namespace addcow {

// The formats that are left to QEMU, by its names for them. Which of them a qemu-nbd can
// read depends on how it was built.
std::span<const std::string_view> QemuFormats();
bool IsQemuFormat(std::string_view format);

struct QemuImage {
  std::string path;  // absolute; relative names of what it stands on start from its directory
  std::string format;
  bool is_block_device = false;
  bool lock = true;  // against other programs, as QEMU does
  // Zeroes that are written to it give storage back.
  bool writable = false;
  // Without what it stands on: that is zeroes, and is not opened. Only read.
  bool alone = false;
  // Where QEMU runs, from which relative names of data files start; empty: where `path` is.
  std::string directory = {};

  std::string RunsIn() const { return directory.empty() ? DirectoryOf(path) : directory; }
};

// A file that QEMU opens by this path, and that must be this one whenever it does.
struct QemuHeldFile {
  std::string path;
  FileInfo info;
  std::unique_ptr<File> file;  // kept open, so that no other file gets its number; may be null
};

// ENOENT where there is no qemu-nbd.
Status CheckQemuNbd(const QemuImage& image);

// The same. `held`: files that are kept, and with them their locks, as long as it lives; by
// `file_system` it looks whether they are still where they were.
Result<std::unique_ptr<NbdServer>> ServerOfQemuImage(FileSystem& file_system, QemuImage image,
                                                     std::vector<QemuHeldFile> held = {});

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_QEMU_SERVER_H
