// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow map: which file each byte of the disk comes from.

#ifndef ADDCOW_COMMON_OPS_MAP_H
#define ADDCOW_COMMON_OPS_MAP_H

#include <cstdint>
#include <functional>
#include <string>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/image/image.h"
#include "common/io/file_system.h"

namespace addcow {

// One stretch of the disk, in the words of qemu-img map.
struct MapEntry {
  uint64_t start = 0;   // bytes
  uint64_t length = 0;  // bytes
  // 0: the image file, also where it has a hole. 1: the backing file, or, where that is
  // an add-cow file, its image file; 2: what that stands on, and so on. What
  // none supplies is not present, and has the depth of the image past whose backing
  // file it lies, as in qemu-img.
  int depth = 0;
  bool present = false;
  bool zero = false;  // reads as zeroes and has no storage
  bool data = false;  // the opposite
  // The file that it comes from, in which it begins at `start` too; null
  // where it is not present. Valid during the call.
  const std::string* file = nullptr;
};

// Calls `visit` for the whole disk, in order, without gaps, neighbours
// different, until it returns false. Writes nothing; never holds more than
// one entry. All files must be there.
Status MapImage(FileSystem& file_system, ImageSource source, LogSink log,
                const std::function<bool(const MapEntry&)>& visit);

// The same of one that is open already, to be read only.
Status MapImage(Image& image, const std::function<bool(const MapEntry&)>& visit);

// With the files where the header says.
inline Status MapImage(FileSystem& file_system, const std::string& add_cow_path, LogSink log,
                       const std::function<bool(const MapEntry&)>& visit,
                       const AccessOptions& access = {}) {
  return MapImage(file_system, ImageSource{.add_cow_path = add_cow_path, .access = access},
                  std::move(log), visit);
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_MAP_H
