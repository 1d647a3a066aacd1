// SPDX-License-Identifier: LGPL-2.1-or-later
//
// All that a server tells of itself. Plain values; sizes are in bytes, and counts are those
// since it started. docs/control.md has each with its name in JSON.

#ifndef ADDCOW_COMMON_CONTROL_SERVER_STATUS_H
#define ADDCOW_COMMON_CONTROL_SERVER_STATUS_H

#include <cstdint>
#include <optional>
#include <string>

#include "common/control/request_statistics.h"
#include "common/image/image_counts.h"
#include "common/jobs/fetch.h"
#include "common/jobs/fill_status.h"

namespace addcow {

struct ServerStatus {
  std::string version = {};  // of addcow
  std::string add_cow = {};  // the file's path
  double uptime = 0;         // in seconds
  uint64_t size = 0;         // of the disk
  bool writable = false;     // false: read only, or writing has ended (a failed sync)
  AllRequestCounts requests = {};
  ImageCounts image = {};
  bool copy_on_read = false;
  FetchCounts fetch = {};
  FillStatus fill = {};

  const RequestCounts& Of(RequestKind kind) const {
    return requests[static_cast<size_t>(kind)];
  }
};

// Bytes written to both files for each that clients wrote; none where they wrote nothing.
inline std::optional<double> WriteAmplification(const ServerStatus& status) {
  const uint64_t asked = status.Of(RequestKind::kWrite).bytes;
  if (asked == 0) return std::nullopt;
  const uint64_t written = status.image.written_image + status.image.written_add_cow;
  return static_cast<double>(written) / static_cast<double>(asked);
}

// In seconds, as it goes now; none where it does not.
inline std::optional<double> TimeLeft(const FillStatus& fill) {
  if (fill.state != FillState::kRunning || fill.rate == 0) return std::nullopt;
  return static_cast<double>(fill.left) / static_cast<double>(fill.rate);
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_CONTROL_SERVER_STATUS_H
