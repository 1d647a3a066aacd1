// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See control_client.h.

#include "common/control/control_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "common/control/control_socket.h"

namespace addcow {

namespace {

using ClientClock = std::chrono::steady_clock;

// What an NBD server begins with.
constexpr std::string_view kNbdGreeting = "NBDMAGIC";

std::string TextOf(const ControlJson& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// What a flawed server could send is not to be a second line of a message.
std::string OneLine(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  return text;
}

}  // namespace

Result<ControlClient> ControlClient::Connect(const std::string& path,
                                             std::chrono::milliseconds timeout,
                                             Interrupted interrupted) {
  ADDCOW_TRY_ASSIGN(const sockaddr_un address, SocketAddress(path));
  if (const auto found = FindSocket(path); !found) {
    const int code = found.error().code();
    if (code == ENOENT)
      return Fail(Error::Because(
          code, path.empty() ? "''" : path,
          "there is no such control socket: is the server started with control=? One that "
          "has ended has removed it"));
    if (code == ENOTSOCK)
      return Fail(Error::Because(code, path,
                                 "is no socket: name the control socket, which a server makes "
                                 "that is started with control="));
    return Fail(found.error());
  }
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() == -1) return Fail(Error::System(errno, "socket", path));
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  const auto deadline = ClientClock::now() + timeout;
  ControlClient client(path, std::move(fd), timeout, std::move(interrupted));
  while (::connect(client.fd_.get(), generic, sizeof address) != 0) {
    if (errno == ECONNREFUSED)
      return Fail(Error::Because(ECONNREFUSED, path,
                                 "no server listens at this control socket any more (one that "
                                 "was killed leaves it, and the next with control= takes it)"));
    // A Unix socket does not connect later: its queue is full, and nothing says when it has
    // room again.
    if ((errno != EAGAIN && errno != EINTR) || ClientClock::now() >= deadline)
      return Fail(Error::System(errno == EAGAIN ? ETIMEDOUT : errno, "connect", path));
    ADDCOW_TRY(CheckInterrupted(client.interrupted_, path));
    if (errno == EAGAIN) (void)::poll(nullptr, 0, 10);
  }
  return client;
}

Error ControlClient::Broken(int code, const std::string& why) const {
  return Error::Because(code, path_, why);
}

Status ControlClient::WaitFor(short events, ClientClock::time_point deadline) const {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - ClientClock::now());
    if (left.count() <= 0)
      return Fail(Broken(ETIMEDOUT, fmt::format("the server does not answer in {} s",
                                                timeout_.count() / 1000)));
    ADDCOW_TRY(CheckInterrupted(interrupted_, path_));
    pollfd polled = {fd_.get(), events, 0};
    // Between two looks at a signal.
    const int most = 100;
    if (::poll(&polled, 1, static_cast<int>(std::min<int64_t>(left.count(), most))) > 0)
      return {};
  }
}

Status ControlClient::SendLine(const std::string& line) {
  const auto deadline = ClientClock::now() + timeout_;
  for (size_t sent = 0; sent < line.size();) {
    const ssize_t count =
        ::send(fd_.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (count >= 0) {
      sent += static_cast<size_t>(count);
    } else if (errno == EAGAIN) {
      ADDCOW_TRY(WaitFor(POLLOUT, deadline));
    } else if (errno != EINTR) {
      // It may have said why before.
      return {};
    }
  }
  return {};
}

Result<std::string> ControlClient::ReceiveLine() {
  const auto deadline = ClientClock::now() + timeout_;
  for (size_t seen = 0;;) {
    if (const size_t end = input_.find('\n', seen); end != std::string::npos) {
      std::string line = input_.substr(0, end);
      input_.erase(0, end + 1);
      return line;
    }
    seen = input_.size();
    // It does not end the line, but waits for what a client of the disk says.
    if (input_.starts_with(kNbdGreeting))
      return Fail(Broken(EPROTO,
                         "this is the socket by which clients use the disk: name the control "
                         "socket, which a server makes that is started with control="));
    if (seen > kMostAnswer)
      return Fail(Broken(EPROTO, "what answers at this socket is no addcow server"));
    std::array<char, 64 * 1024> buffer;
    const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (count > 0) {
      input_.append(buffer.data(), static_cast<size_t>(count));
    } else if (count == -1 && errno == EAGAIN) {
      ADDCOW_TRY(WaitFor(POLLIN, deadline));
    } else if (count == 0 || errno != EINTR) {
      return Fail(Broken(ECONNRESET, "the server has ended"));
    }
  }
}

Result<ControlJson> ControlClient::Execute(const ControlJson& command) {
  ADDCOW_TRY(SendLine(command.dump() + "\n"));
  for (;;) {
    ADDCOW_TRY_ASSIGN(const std::string line, ReceiveLine());
    auto answer = ControlJson::parse(line, nullptr, false);
    if (!answer.is_object())
      return Fail(Broken(EPROTO, "what answers at this socket is no addcow server"));
    if (answer.contains("event")) {
      const auto status = answer.find("status");
      if (status != answer.end()) last_ = StatusFromJson(*status);
      continue;  // the end of the connection follows
    }
    if (const auto value = answer.find("return"); value != answer.end())
      return std::move(*value);
    const auto error = answer.find("error");
    const std::string why =
        error != answer.end() && error->is_object() ? TextOf(*error, "desc") : "";
    return Fail(Broken(EIO, why.empty() ? "the server says neither result nor error"
                                        : "the server says: " + OneLine(why)));
  }
}

Result<ServerStatus> ControlClient::GetStatus() {
  ADDCOW_TRY_ASSIGN(const ControlJson json, Execute({{"execute", "status"}}));
  return StatusFromJson(json);
}

Status ControlClient::Fill(const FillCommand& command) {
  using Action = FillCommand::Action;
  ControlJson arguments = ControlJson::object();
  switch (command.action) {
    case Action::kStart:
      arguments["action"] = "start";
      arguments["mode"] = NameOf(command.mode);
      break;
    case Action::kPause:
      arguments["action"] = "pause";
      break;
    case Action::kResume:
      arguments["action"] = "resume";
      break;
    case Action::kRate:
      arguments["action"] = "rate";
      break;
  }
  if (command.rate) arguments["rate"] = *command.rate;
  ADDCOW_TRY(Execute({{"execute", "fill"}, {"arguments", std::move(arguments)}}));
  return {};
}

}  // namespace addcow
