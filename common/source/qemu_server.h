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
#include "common/io/file.h"
#include "common/source/nbd_server.h"

namespace addcow {

// The formats that are left to QEMU, by its names for them. Which of them a qemu-nbd can
// read depends on how it was built.
std::span<const std::string_view> QemuFormats();
bool IsQemuFormat(std::string_view format);

struct QemuImage {
  std::string path;  // absolute
  std::string format;
  bool is_block_device = false;
  bool lock = true;  // against other programs, as QEMU does
  // Zeroes that are written to it give storage back.
  bool writable = false;
  // Without what it stands on: that is zeroes, and is not opened. Only read.
  bool alone = false;
};

// ENOENT where there is no qemu-nbd.
Status CheckQemuNbd(const QemuImage& image);

// The same. `held`: files that are kept open, and locked, as long as it lives.
Result<std::unique_ptr<NbdServer>> ServerOfQemuImage(
    QemuImage image, std::vector<std::unique_ptr<File>> held = {});

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_QEMU_SERVER_H
