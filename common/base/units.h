// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sizes and rounding. All offsets and lengths are bytes in uint64_t; nothing
// in this project counts sectors, so nothing can be cut to 32 bits.

#ifndef ADDCOW_COMMON_BASE_UNITS_H
#define ADDCOW_COMMON_BASE_UNITS_H

#include <cstdint>
#include <limits>
#include <string>

namespace addcow {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kTiB = 1024 * kGiB;

// The unit of which storage keeps the whole when power fails.
inline constexpr uint64_t kSectorSize = 512;

// The largest file offset that the system calls take (off_t).
inline constexpr uint64_t kMaxOffset =
    static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

constexpr uint64_t DivideUp(uint64_t value, uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}

constexpr uint64_t RoundDown(uint64_t value, uint64_t unit) { return value - value % unit; }

// `value` must be at most 2^63: no caller is near the wrap-around.
constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return DivideUp(value, unit) * unit;
}

// Whether [offset, offset + length) lies within [0, size), without overflow.
constexpr bool RangeFits(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}

// "1 cluster", "2 clusters".
inline std::string Counted(uint64_t count, const std::string& thing) {
  return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_UNITS_H
