// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NBD commands that are on their way, and the thread that waits for them.

#ifndef ADDCOW_COMMON_SOURCE_NBD_COMMAND_H
#define ADDCOW_COMMON_SOURCE_NBD_COMMAND_H

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <utility>
#include <vector>

#include "common/base/mutex.h"

namespace addcow {

class NbdBatch;
class NbdConnection;

struct NbdCommand {
  enum class Kind { kRead, kBlockStatus, kCache };

  // Of block status: what the server says of so many bytes.
  struct Block {
    uint64_t length = 0;
    bool zero = false;
  };

  Kind kind = Kind::kRead;
  uint64_t offset = 0;
  uint64_t length = 0;          // bytes; no more than one command can have
  std::byte* buffer = nullptr;  // of a read; libnbd's as long as the command is in flight
  // If not empty, told that it succeeded. In the driver's thread, which holds libnbd's lock.
  std::function<void()> succeeded = {};

  // How it ended. For its owner, once it is not in flight.
  bool answered = false;  // by the server; else it was not sent, or the connection was lost
  int error = 0;          // the server's answer, an errno; 0: it succeeded
  std::vector<Block> blocks = {};  // from `offset` on; may be fewer, or more, than asked for
  uint64_t received = 0;           // bytes of a read

  // The connection's and the batch's.
  NbdBatch* batch = nullptr;
  NbdConnection* on = nullptr;
  bool in_flight = false;
};

// The commands of one thread, which sends them and waits for all of them. They end in any
// thread.
class NbdBatch {
 public:
  using Clock = std::chrono::steady_clock;

  NbdBatch() = default;
  NbdBatch(const NbdBatch&) = delete;
  NbdBatch& operator=(const NbdBatch&) = delete;

  // For the owner, while none is in flight. They stay where they are.
  NbdCommand& Add(NbdCommand command) {
    command.batch = this;
    return commands_.emplace_back(std::move(command));
  }
  std::list<NbdCommand>& commands() { return commands_; }

  // For the connection: from now on, and no longer, it may touch the command and its buffer.
  void Started(NbdCommand& command) ADDCOW_EXCLUDES(mutex_);
  void Ended(NbdCommand& command) ADDCOW_EXCLUDES(mutex_);

  // Until no command is in flight; false: not by then.
  bool WaitUntil(Clock::time_point time) ADDCOW_EXCLUDES(mutex_);

  // The connections of those that are.
  void VisitInFlight(const std::function<void(NbdConnection&)>& visit) ADDCOW_EXCLUDES(mutex_);

 private:
  std::list<NbdCommand> commands_;

  // Innermost: it is taken under libnbd's own lock.
  Mutex mutex_;
  ConditionVariable changed_;
  size_t in_flight_ ADDCOW_GUARDED_BY(mutex_) = 0;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_NBD_COMMAND_H
