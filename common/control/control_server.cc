// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See control_server.h.

#include "common/control/control_server.h"

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <string_view>
#include <utility>

#include "common/base/start_thread.h"

namespace addcow {

namespace {

// In milliseconds, where there was no file, or no memory, for what should be done.
constexpr int kPause = 100;

// So that a peer that sends without end lets others have their turn.
constexpr size_t kReadAtOnce = 4096;

constexpr std::string_view kTooMany =
    "{\"error\": {\"class\": \"TooMany\", \"desc\": \"too many are connected to the control "
    "socket: end some of them\"}}\n";

size_t MostConnections() {
  rlimit files = {};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY)
    return ControlServer::kMostConnections;
  return std::min<size_t>(static_cast<size_t>(files.rlim_cur) / 2,
                          ControlServer::kMostConnections);
}

}  // namespace

ControlServer::ControlServer(ControlSocket& socket, ControlHandlers handlers, UniqueFd wake)
    : socket_(socket),
      handlers_(std::move(handlers)),
      wake_(std::move(wake)),
      most_connections_(MostConnections()) {}

Result<std::unique_ptr<ControlServer>> ControlServer::Start(ControlSocket& socket,
                                                            ControlHandlers handlers) {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.get() == -1) return Fail(Error::System(errno, "eventfd", socket.path()));
  std::unique_ptr<ControlServer> server(
      new ControlServer(socket, std::move(handlers), std::move(wake)));
  ADDCOW_TRY_ASSIGN(
      server->flush_thread_,
      StartThread(kFlushThreadName, socket.path(), [&server = *server] { server.Flush(); }));
  ADDCOW_TRY_ASSIGN(server->thread_, StartThread(kThreadName, socket.path(),
                                                 [&server = *server] { server.Serve(); }));
  return server;
}

ControlServer::~ControlServer() {
  {
    MutexLock lock(flush_mutex_);
    stop_ = true;
  }
  asked_for_flush_.NotifyAll();
  Wake();
  if (thread_.joinable()) thread_.join();
  if (flush_thread_.joinable()) flush_thread_.join();
}

void ControlServer::Wake() {
  const uint64_t one = 1;
  // Where it is full, it wakes already.
  (void)!::write(wake_.get(), &one, sizeof one);
}

void ControlServer::Serve() {
  std::vector<pollfd> polled;
  while (!stop_) {
    try {
      ServeOnce(polled);
    } catch (const std::exception&) {
      // No memory for the list of connections: they are what can be done without.
      connections_.clear();
    }
  }
  try {
    SayGoodbye();
  } catch (const std::exception&) {
    // They learn it by being disconnected.
  }
  connections_.clear();
}

// Waits for something to be done, and does it.
void ControlServer::ServeOnce(std::vector<pollfd>& polled) {
  polled.clear();
  polled.push_back({wake_.get(), POLLIN, 0});
  polled.push_back({socket_.fd(), static_cast<short>(accepts_ ? POLLIN : 0), 0});
  for (const Connection& connection : connections_) {
    const bool reads = !connection.ended && connection.session.WantsInput();
    const bool writes = !connection.session.output().empty();
    polled.push_back({connection.fd.get(),
                      static_cast<short>((reads ? POLLIN : 0) | (writes ? POLLOUT : 0)), 0});
  }
  const int ready = ::poll(polled.data(), polled.size(), accepts_ ? -1 : kPause);
  if (ready == -1 && errno != EINTR) ::usleep(kPause * 1000);  // no memory in the kernel
  accepts_ = true;
  if (ready <= 0) return;
  if (polled[0].revents != 0) {
    uint64_t times = 0;
    (void)!::read(wake_.get(), &times, sizeof times);
    AnswerFlushes();
  }
  auto events = polled.begin() + 2;
  for (auto connection = connections_.begin(); connection != connections_.end(); ++events) {
    bool stays = false;
    try {
      stays = Attend(*connection, events->revents);
    } catch (const std::exception&) {
      // No memory for what it wants: it is disconnected.
    }
    connection = stays ? std::next(connection) : connections_.erase(connection);
  }
  if (polled[1].revents != 0) Accept();
}

void ControlServer::Accept() {
  UniqueFd fd(::accept4(socket_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd.get() == -1) {
    // One that has gone is no reason to wait.
    accepts_ = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
    return;
  }
  if (connections_.size() < most_connections_)
    connections_.emplace_back(std::move(fd), handlers_);
  else
    (void)::send(fd.get(), kTooMany.data(), kTooMany.size(), MSG_NOSIGNAL);
}

// False: it is over.
bool ControlServer::Attend(Connection& connection, short events) {
  if ((events & (POLLERR | POLLNVAL)) != 0) return false;
  if ((events & POLLIN) != 0 && !Receive(connection)) return false;
  // Where both directions are closed nobody waits for an answer.
  if ((events & POLLHUP) != 0 && (events & POLLIN) == 0) return false;
  if (!Send(connection)) return false;
  if (connection.session.waits_for_flush() && connection.flush == 0) AskForFlush(connection);
  return !connection.ended || !connection.session.output().empty() || connection.flush != 0;
}

bool ControlServer::Receive(Connection& connection) {
  std::array<char, kReadAtOnce> buffer;
  const ssize_t count = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
  if (count == -1) return errno == EAGAIN || errno == EINTR;
  connection.ended = count == 0;
  connection.session.Receive({buffer.data(), static_cast<size_t>(count)});
  return true;
}

bool ControlServer::Send(Connection& connection) {
  const std::string_view output = connection.session.output();
  if (output.empty()) return true;
  const ssize_t count = ::send(connection.fd.get(), output.data(), output.size(), MSG_NOSIGNAL);
  if (count == -1) return errno == EAGAIN || errno == EINTR;
  connection.session.Sent(static_cast<size_t>(count));
  return true;
}

void ControlServer::AskForFlush(Connection& connection) {
  {
    MutexLock lock(flush_mutex_);
    connection.flush = ++asked_;
  }
  asked_for_flush_.NotifyAll();
}

// A flush that ended covers all that were asked for before it began, and those before it:
// if it has failed, nothing is known of theirs either.
void ControlServer::AnswerFlushes() {
  uint64_t done = 0;
  Status result;
  {
    MutexLock lock(flush_mutex_);
    done = done_;
    result = result_;
  }
  for (Connection& connection : connections_) {
    if (connection.flush == 0 || connection.flush > done) continue;
    connection.flush = 0;
    connection.session.FlushDone(result);
  }
}

void ControlServer::Flush() {
  for (;;) {
    uint64_t covered = 0;
    {
      MutexLock lock(flush_mutex_);
      while (asked_ == done_ && !stop_) asked_for_flush_.Wait(flush_mutex_);
      if (stop_) return;
      covered = asked_;
    }
    Status flushed = [&]() -> Status {
      try {
        return handlers_.flush();
      } catch (const std::exception&) {
        return Fail(Error::System(ENOMEM, "flush", ""));
      }
    }();
    {
      MutexLock lock(flush_mutex_);
      done_ = covered;
      result_ = std::move(flushed);
    }
    Wake();
  }
}

void ControlServer::SayGoodbye() {
  if (connections_.empty()) return;
  const ServerStatus status = handlers_.status();
  for (Connection& connection : connections_) {
    connection.session.Goodbye(status);
    (void)Send(connection);
  }
}

}  // namespace addcow
