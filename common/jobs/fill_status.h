// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a fill (fill.h) is asked to do, and how far it is. Plain values, for who shows them.

#ifndef ADDCOW_COMMON_JOBS_FILL_STATUS_H
#define ADDCOW_COMMON_JOBS_FILL_STATUS_H

#include <cstdint>
#include <string>

namespace addcow {

enum class FillMode {
  kOff,
  kTouched,  // completes clusters of which a part is in the image file
  kAll,      // until every cluster is allocated
};

enum class FillState {
  kOff,      // nothing was asked for, or the disk is read only
  kDelayed,  // has not begun (fill-delay=)
  kRunning,
  kPaused,
  kWaiting,  // the backing file fails; it is tried again
  kDone,     // nothing is left to be done in this mode
  kFailed,   // cannot go on: the image file or the add-cow file fails
};

struct FillStatus {
  FillMode mode = FillMode::kOff;
  FillState state = FillState::kOff;
  uint64_t position = 0;  // bytes; nothing that lies before is left to be filled
  uint64_t left = 0;      // bytes of clusters that are to be filled
  uint64_t copied = 0;    // bytes of clusters that it filled since the start
  uint64_t rate = 0;      // bytes a second, lately
  uint64_t limit = 0;     // bytes a second, the most; 0: none
  uint64_t retries = 0;   // how often the backing file was tried again
  std::string error;      // why it waits or has failed, in one line; else empty
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_JOBS_FILL_STATUS_H
