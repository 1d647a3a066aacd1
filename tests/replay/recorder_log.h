// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Writes the log of record.h. Lives inside of nbdkit, in the recorder's shared
// object, and is called from any thread, also before constructors have run.
//
// A record is written out before the call goes on: what is in the log when the
// process is killed is what happened.

#ifndef ADDCOW_TESTS_REPLAY_RECORDER_LOG_H
#define ADDCOW_TESTS_REPLAY_RECORDER_LOG_H

#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <span>

#include "tests/replay/record.h"

namespace addcow::recorder {

// What a descriptor leads to.
enum class Watch { kOther, kRecorded, kReadOnly };
struct Watched {
  Watch watch = Watch::kOther;
  uint32_t file = 0;
};
Watched Find(int fd);

// Whether syncs of that file are to be left out.
bool DropsSync(uint32_t file);

// Fills in the id, and returns it. The data is that of `header.length`.
uint64_t Begin(RecordHeader header, std::span<const iovec> data = {});
void End(uint64_t id, int64_t result);

// Ends the process: something was done that the log cannot say.
[[noreturn]] void Die(const char* what);

}  // namespace addcow::recorder

#endif  // ADDCOW_TESTS_REPLAY_RECORDER_LOG_H
