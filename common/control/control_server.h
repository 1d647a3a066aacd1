// SPDX-License-Identifier: LGPL-2.1-or-later
//
// ControlServer: answers at a control socket (control_socket.h) whoever may connect to it,
// any number at once. What is said is ControlSession's.
//
// Threads: Start starts two, so not before the process has forked for the last
// time. One waits for all connections (poll) and does everything but flushes; no peer can
// make it wait, since it reads what is there, and sends what is taken. The other flushes,
// once for all who have asked before it begins.
//
// Locks: flush_mutex_ is held only to pass flushes from one thread to the other.

#ifndef ADDCOW_COMMON_CONTROL_CONTROL_SERVER_H
#define ADDCOW_COMMON_CONTROL_CONTROL_SERVER_H

#include <poll.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/base/unique_fd.h"
#include "common/control/control_session.h"
#include "common/control/control_socket.h"

namespace addcow {

class ControlServer {
 public:
  // What the threads are called, in ps(1) and debuggers.
  static constexpr const char* kThreadName = "addcow-control";
  static constexpr const char* kFlushThreadName = "addcow-ctlflush";
  // And no more than half of the files that the process may open, which clients of the disk
  // need as well. Who comes after them is told so, and disconnected.
  static constexpr size_t kMostConnections = 1000;

  // `socket`, and what the handlers use, must outlive the object.
  static Result<std::unique_ptr<ControlServer>> Start(ControlSocket& socket,
                                                      ControlHandlers handlers);

  // Tells all who are connected how things are now, and disconnects them. A flush under way
  // is waited for.
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

 private:
  struct Connection {
    Connection(UniqueFd socket, const ControlHandlers& handlers)
        : fd(std::move(socket)), session(handlers) {}
    UniqueFd fd;
    ControlSession session;
    uint64_t flush = 0;  // the number of the one that it waits for; 0: none
    bool ended = false;  // the peer sends no more
  };

  ControlServer(ControlSocket& socket, ControlHandlers handlers, UniqueFd wake);

  void Serve();
  void ServeOnce(std::vector<pollfd>& polled);
  void Accept();
  bool Attend(Connection& connection, short events);
  bool Receive(Connection& connection);
  bool Send(Connection& connection);
  void AskForFlush(Connection& connection) ADDCOW_EXCLUDES(flush_mutex_);
  void AnswerFlushes() ADDCOW_EXCLUDES(flush_mutex_);
  void SayGoodbye();
  void Flush() ADDCOW_EXCLUDES(flush_mutex_);
  void Wake();

  // Constant after construction.
  ControlSocket& socket_;
  const ControlHandlers handlers_;
  const UniqueFd wake_;  // an eventfd: a flush is done, or it is time to stop
  const size_t most_connections_;

  std::atomic<bool> stop_ = false;

  // Only the first thread touches them.
  std::list<Connection> connections_;
  bool accepts_ = true;  // false: it has no file to spare for the next one

  Mutex flush_mutex_;
  ConditionVariable asked_for_flush_;
  uint64_t asked_ ADDCOW_GUARDED_BY(flush_mutex_) = 0;  // the number of the last
  uint64_t done_ ADDCOW_GUARDED_BY(flush_mutex_) = 0;   // those up to it are
  Status result_ ADDCOW_GUARDED_BY(flush_mutex_);       // of the last that is

  // The last members: all others are there when they start.
  std::thread thread_;
  std::thread flush_thread_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_CONTROL_CONTROL_SERVER_H
