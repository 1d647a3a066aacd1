// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See file_time.h.

#include "common/base/file_time.h"

#include <fmt/format.h>

#include <ctime>

namespace addcow {

std::string TimeText(const FileTime& time) {
  const auto seconds = static_cast<std::time_t>(time.seconds);
  std::tm parts = {};
  // Years of more than four digits are more likely damage than a date.
  if (::gmtime_r(&seconds, &parts) == nullptr || parts.tm_year < -1900 || parts.tm_year > 8099)
    return fmt::format("{}.{:09} s since 1970", time.seconds, time.nanoseconds);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:09} UTC", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     time.nanoseconds);
}

}  // namespace addcow
