// SPDX-License-Identifier: LGPL-2.1-or-later
//
// ControlClient: the other end of a control socket. One command at a time; one thread.

#ifndef ADDCOW_COMMON_CONTROL_CONTROL_CLIENT_H
#define ADDCOW_COMMON_CONTROL_CONTROL_CLIENT_H

#include <chrono>
#include <optional>
#include <string>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/base/unique_fd.h"
#include "common/control/control_session.h"
#include "common/control/server_status.h"

namespace addcow {

class ControlClient {
 public:
  // How long a server may take to take a command and to answer it.
  static constexpr std::chrono::seconds kTimeout{30};
  // In bytes; no answer is longer.
  static constexpr size_t kMostAnswer = 1024 * 1024;

  // `interrupted` ends what waits for the server, with kErrInterrupted.
  // ENOENT: nothing is at `path`; ENOTSOCK; ECONNREFUSED: no server listens there any more.
  static Result<ControlClient> Connect(const std::string& path,
                                       std::chrono::milliseconds timeout = kTimeout,
                                       Interrupted interrupted = {});

  // ECONNRESET: the server has gone (see last()); ETIMEDOUT: it does not answer; EPROTO: it
  // is none of ours. Any other error is the server's own.
  Result<ServerStatus> GetStatus();
  Status Fill(const FillCommand& command);

  // With what a server that has gone said good-bye, if it did.
  const std::optional<ServerStatus>& last() const { return last_; }

 private:
  ControlClient(std::string path, UniqueFd fd, std::chrono::milliseconds timeout,
                Interrupted interrupted)
      : path_(std::move(path)),
        fd_(std::move(fd)),
        timeout_(timeout),
        interrupted_(std::move(interrupted)) {}

  Result<ControlJson> Execute(const ControlJson& command);
  Status SendLine(const std::string& line);
  Result<std::string> ReceiveLine();
  Status WaitFor(short events, std::chrono::steady_clock::time_point deadline) const;
  Error Broken(int code, const std::string& why) const;

  std::string path_;
  UniqueFd fd_;
  std::chrono::milliseconds timeout_;
  Interrupted interrupted_;
  std::string input_;  // what came after the last line
  std::optional<ServerStatus> last_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_CONTROL_CONTROL_CLIENT_H
