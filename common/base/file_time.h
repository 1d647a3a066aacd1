// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A point in time as file systems have it.

#ifndef ADDCOW_COMMON_BASE_FILE_TIME_H
#define ADDCOW_COMMON_BASE_FILE_TIME_H

#include <compare>
#include <cstdint>
#include <string>

namespace addcow {

struct FileTime {
  int64_t seconds = 0;       // since 1970-01-01 00:00 UTC; before it: negative
  uint32_t nanoseconds = 0;  // 0 .. 999999999, added to the seconds

  auto operator<=>(const FileTime&) const = default;
};

// "2026-11-27 23:15:04.123456789 UTC"; the seconds as a number where no
// calendar has them. Any thread.
std::string TimeText(const FileTime& time);

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_FILE_TIME_H
