// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Writes the ones of a new bitmap, in ascending order. What has none stays a hole.

#ifndef ADDCOW_COMMON_OPS_BIT_WRITER_H
#define ADDCOW_COMMON_OPS_BIT_WRITER_H

#include <cstdint>
#include <vector>

#include "common/base/error.h"
#include "common/format/layout.h"
#include "common/io/file.h"

namespace addcow {

class BitWriter {
 public:
  // The file has its length, and zeroes where the bitmap goes; it must outlive this.
  BitWriter(File& add_cow, const BitmapPlace& place) : file_(add_cow), place_(place) {}

  // Ranges come in ascending order, and do not overlap.
  Status Set(ClusterRange range);
  // To be called in the end. Not synced.
  Status Finish();

 private:
  File& file_;
  const BitmapPlace place_;
  uint64_t start_ = 0;  // of what is gathered, in bytes of the bitmap
  std::vector<std::byte> bytes_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_BIT_WRITER_H
