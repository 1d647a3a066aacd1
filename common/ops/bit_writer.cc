// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See bit_writer.h.

#include "common/ops/bit_writer.h"

#include <algorithm>

#include "common/base/units.h"

namespace addcow {

namespace {

// What is written at once, and the longest stretch without a one in it, in bytes.
constexpr uint64_t kPiece = 64 * kKiB;
constexpr uint64_t kGap = 4 * kKiB;

}  // namespace

Status BitWriter::Set(ClusterRange range) {
  for (uint64_t bit = range.first; bit < range.end();) {
    const uint64_t byte = bit / 8;
    if (!bytes_.empty() && (byte >= start_ + kPiece || byte >= start_ + bytes_.size() + kGap))
      ADDCOW_TRY(Finish());
    if (bytes_.empty()) start_ = byte;
    const uint64_t end = std::min(range.end(), 8 * (start_ + kPiece));
    bytes_.resize(std::max<uint64_t>(bytes_.size(), DivideUp(end, 8) - start_));
    for (; bit < end && bit % 8 != 0; bit++)
      bytes_[bit / 8 - start_] |= std::byte{1} << (bit % 8);
    const uint64_t whole = end / 8;
    if (bit / 8 < whole)
      std::fill(bytes_.begin() + static_cast<std::ptrdiff_t>(bit / 8 - start_),
                bytes_.begin() + static_cast<std::ptrdiff_t>(whole - start_), std::byte{0xff});
    bit = std::max(bit, std::min(8 * whole, end));
    for (; bit < end; bit++) bytes_[bit / 8 - start_] |= std::byte{1} << (bit % 8);
  }
  return {};
}

Status BitWriter::Finish() {
  if (bytes_.empty()) return {};
  ADDCOW_TRY(file_.Write(bytes_, place_.offset + start_));
  bytes_.clear();
  return {};
}

}  // namespace addcow
