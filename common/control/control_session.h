// SPDX-License-Identifier: LGPL-2.1-or-later
//
// ControlSession: what is said on one connection to a control socket, and nothing of the
// connection itself. One JSON object a line each way (docs/control.md). Bytes go in, in
// whatever pieces they come; lines come out, in the order of what they answer.
//
// What a peer sends costs no more than kMostLine of memory for what it asks, and kMostQueued
// and one reply for what it does not read: the rest is not asked of it (WantsInput).
//
// One thread; the handlers are called in it.

#ifndef ADDCOW_COMMON_CONTROL_CONTROL_SESSION_H
#define ADDCOW_COMMON_CONTROL_CONTROL_SESSION_H

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/error.h"
#include "common/control/server_status.h"
#include "common/control/status_json.h"

namespace addcow {

struct FillCommand {
  enum class Action { kStart, kPause, kResume, kRate };
  Action action = Action::kStart;
  FillMode mode = FillMode::kOff;  // to start: kTouched or kAll
  // Bytes a second, 0: no limit. To start and to resume, none leaves it as it is; kRate has
  // one.
  std::optional<uint64_t> rate = {};
};

// What a server can be asked for. None may be empty.
struct ControlHandlers {
  // These two are not to take long: all who are connected wait.
  std::function<ServerStatus()> status;
  std::function<Status(const FillCommand&)> fill;
  // Called by a thread of its own.
  std::function<Status()> flush;
};

class ControlSession {
 public:
  // In bytes, without its end. A longer one is answered by an error, and skipped.
  static constexpr size_t kMostLine = 4096;
  // With more than so many bytes to be sent nothing is done for the peer.
  static constexpr size_t kMostQueued = 64 * 1024;

  // `handlers` must outlive it.
  explicit ControlSession(const ControlHandlers& handlers) : handlers_(handlers) {}

  // Whether bytes are to be handed over. Do not while it is false.
  bool WantsInput() const { return !waits_for_flush_ && output_.size() < kMostQueued; }
  void Receive(std::string_view bytes);

  // A flush was asked for, and nothing else is done before FlushDone.
  bool waits_for_flush() const { return waits_for_flush_; }
  void FlushDone(const Status& flushed);

  // What is to be sent; how much of it was.
  std::string_view output() const { return output_; }
  void Sent(size_t bytes);

  // The server stops: the last line, with how things were then.
  void Goodbye(const ServerStatus& status);

 private:
  void Proceed();
  void Answer(std::string_view line);
  void Execute(const std::string& command, const ControlJson& arguments);
  void ExecuteFill(const ControlJson& arguments);
  void Return(ControlJson value);
  void Refuse(const char* error_class, const std::string& description);
  void Send(ControlJson reply);

  const ControlHandlers& handlers_;
  std::string input_;  // from the first line that was not answered on
  std::string output_;
  bool skips_ = false;  // to the end of a line that is too long
  bool waits_for_flush_ = false;
  std::string id_;  // of what is being answered, as JSON; empty: it has none
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_CONTROL_CONTROL_SESSION_H
