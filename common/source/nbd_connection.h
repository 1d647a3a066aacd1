// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NbdConnection: one connection to an NBD server, made anew with back-off when it was
// lost, and the commands in flight on it. A thin layer over libnbd's asynchronous calls.
//
// Threads: one at a time drives it (Run, Close): it moves bytes, and waits for them. Any
// thread may Send, which waits for nothing, and Drop.
//
// Locks: mutex_ keeps the handle from being closed while a thread sends. Under it come
// libnbd's own lock and an NbdBatch's. Nothing waits for the server with a lock held.

#ifndef ADDCOW_COMMON_SOURCE_NBD_CONNECTION_H
#define ADDCOW_COMMON_SOURCE_NBD_CONNECTION_H

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/base/unique_fd.h"
#include "common/source/nbd_command.h"

struct nbd_handle;

namespace addcow {

// What a server says of its export. Source: the NBD protocol,
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
struct NbdExport {
  uint64_t size = 0;        // bytes
  uint64_t minimum = 0;     // what offsets and lengths are multiples of, but the export's end
  uint64_t maximum = 0;     // bytes that a read can have; a multiple of `minimum`
  bool multi_conn = false;  // several connections are as good as one
  bool block_status = false;
  bool cache = false;  // there is a command CACHE
};

class NbdConnection {
 public:
  using Clock = std::chrono::steady_clock;

  // Who makes the connection, and hears of it. Called by the thread that drives.
  class Peer {
   public:
    virtual ~Peer() = default;
    // Whether it is to be made. An error ends all, as of Accept.
    virtual Status MayConnect() { return {}; }
    // Begins to connect the handle by one of libnbd's asynchronous calls. Its result.
    virtual int Connect(nbd_handle* handle) = 0;
    // Whether that is what was to be found. An error ends all, it is not tried again.
    virtual Status Accept(nbd_handle* handle, const NbdExport& found) = 0;
    // Commands can be sent.
    virtual void Ready() = 0;
    // It could not be made, or was lost, and is tried again, or was not accepted.
    virtual void Lost(const Error& error) = 0;
    // The handle is about to be closed.
    virtual void Closing(nbd_handle* handle) = 0;
  };

  // `name` is for messages. `timeout`: what it may take to make a connection.
  NbdConnection(Peer& peer, std::string name, Clock::duration timeout);
  // It must be closed.
  ~NbdConnection();
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  // Sends it; its batch hears when it ends, however that is. False: there is no
  // connection, and it was not sent.
  bool Send(NbdCommand& command) ADDCOW_EXCLUDES(mutex_);

  // Has the connection closed, with what is in flight, and made anew. Takes no lock.
  void Drop();

  // Ends a Run that waits. Takes no lock.
  void Wake();

  // One step: connects, or moves what can be moved, or waits for that, until then at most.
  void Run(Clock::time_point until) ADDCOW_EXCLUDES(mutex_);

  // Nothing is tried any more. For who drives it.
  bool closed() const { return closed_; }

  // Says goodbye to the server. After it nothing can be sent, and Run does nothing.
  void Close() ADDCOW_EXCLUDES(mutex_);

 private:
  struct CloseHandle {
    Peer* peer;
    void operator()(nbd_handle* handle) const;
  };
  using Handle = std::unique_ptr<nbd_handle, CloseHandle>;

  void Connect() ADDCOW_EXCLUDES(mutex_);
  void Establish() ADDCOW_EXCLUDES(mutex_);
  void Lose(const Error& error) ADDCOW_EXCLUDES(mutex_);
  void Refuse(const Error& error) ADDCOW_EXCLUDES(mutex_);
  void Forget() ADDCOW_EXCLUDES(mutex_);
  // Waits for the socket and lets libnbd work; what it says where that fails.
  Status Move(Clock::time_point until);
  bool Poll(int fd, short events, short* happened, Clock::time_point until);
  Error LibnbdError() const;

  static constexpr Clock::duration kFirstBackOff = std::chrono::milliseconds(100);
  static constexpr Clock::duration kLastBackOff = std::chrono::seconds(10);

  // Constant after construction.
  Peer& peer_;
  const std::string name_;
  const Clock::duration timeout_;
  const UniqueFd wake_;

  // The driver's alone.
  bool closed_ = false;
  bool established_ = false;
  Clock::time_point connect_at_ = {};  // not before
  Clock::time_point connect_by_ = {};  // else it has failed
  Clock::time_point established_at_ = {};
  Clock::duration back_off_ = kFirstBackOff;

  std::atomic<bool> drop_ = false;

  Mutex mutex_;
  // Set by the driver alone, which reads it without the lock.
  Handle handle_;
  bool ready_ ADDCOW_GUARDED_BY(mutex_) = false;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_NBD_CONNECTION_H
