// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See nbd_connection.h.

#include "common/source/nbd_connection.h"

#include <fmt/format.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <new>
#include <utility>

#include "common/base/units.h"
#include "common/source/libnbd_words.h"

namespace addcow {

namespace {

// The most that libnbd takes, and the longest block status that is a multiple of any
// minimum.
constexpr uint64_t kMostLength = 32 * kMiB;
// What is kept of an answer, which can have millions: 1 MiB. Where it ends it is asked again.
constexpr size_t kMostBlocks = 64 * kKiB;

// libnbd's callbacks. It calls `free` last, whatever has become of the command: only then
// it lets go of it.
int OnAnswer(void* data, int* error) {
  auto& command = *static_cast<NbdCommand*>(data);
  // A structured reply can end before all of it was sent. libnbd minds only where it is
  // asked for the command later, which nobody does.
  if (*error == 0 && command.kind == NbdCommand::Kind::kRead &&
      command.received != command.length)
    *error = EPROTO;
  // ENOTCONN is libnbd's own word, for what was in flight when the connection was lost; a
  // server that ends says ESHUTDOWN.
  command.answered = *error != ENOTCONN && *error != ESHUTDOWN;
  command.error = *error;
  if (*error == ESHUTDOWN) command.on->Drop();
  return 1;  // libnbd need not keep it
}

void OnEnd(void* data) {
  auto& command = *static_cast<NbdCommand*>(data);
  command.batch->Ended(command);
}

int OnChunk(void* data, const void*, size_t count, uint64_t, unsigned status, int*) {
  if (status != LIBNBD_READ_ERROR) static_cast<NbdCommand*>(data)->received += count;
  return 0;
}

int OnExtents(void* data, const char*, uint64_t, uint32_t* entries, size_t count,
              int* error) try {
  auto& command = *static_cast<NbdCommand*>(data);
  for (size_t i = 0; i + 1 < count && command.blocks.size() < kMostBlocks; i += 2)
    command.blocks.push_back(
        {.length = entries[i], .zero = (entries[i + 1] & LIBNBD_STATE_ZERO) != 0});
  return 0;
} catch (const std::bad_alloc&) {
  // Nothing may be thrown through libnbd.
  *error = ENOMEM;
  return -1;
}

int64_t SendTo(nbd_handle* handle, NbdCommand& command) {
  const nbd_completion_callback end = {
      .callback = OnAnswer, .user_data = &command, .free = OnEnd};
  switch (command.kind) {
    case NbdCommand::Kind::kRead:
      return nbd_aio_pread_structured(
          handle, command.buffer, command.length, command.offset,
          {.callback = OnChunk, .user_data = &command, .free = nullptr}, end, 0);
    case NbdCommand::Kind::kBlockStatus:
      return nbd_aio_block_status(
          handle, command.length, command.offset,
          {.callback = OnExtents, .user_data = &command, .free = nullptr}, end, 0);
    case NbdCommand::Kind::kCache:
      return nbd_aio_cache(handle, command.length, command.offset, end, 0);
  }
  return -1;
}

bool IsGone(nbd_handle* handle) {
  return nbd_aio_is_dead(handle) != 0 || nbd_aio_is_closed(handle) != 0;
}

NbdExport ExportOf(nbd_handle* handle) {
  NbdExport found;
  const int64_t size = nbd_get_size(handle);
  found.size = size > 0 ? static_cast<uint64_t>(size) : 0;
  found.minimum = BlockSizeOf(handle, LIBNBD_SIZE_MINIMUM, kUsualMinimum);
  found.maximum =
      std::min(BlockSizeOf(handle, LIBNBD_SIZE_MAXIMUM, kUsualMaximum), kMostLength);
  found.maximum = std::max(RoundDown(found.maximum, found.minimum), found.minimum);
  found.multi_conn = nbd_can_multi_conn(handle) == 1;
  found.block_status = nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
  found.cache = nbd_can_cache(handle) == 1;
  return found;
}

// So that a host that has gone without a word is noticed within half a minute or so, and
// not only by a command that is never answered. Of a Unix socket it cannot be asked.
void KeepAlive(int fd) {
  const auto set = [fd](int level, int option, int value) {
    return ::setsockopt(fd, level, option, &value, sizeof value);
  };
  if (set(IPPROTO_TCP, TCP_KEEPIDLE, 10) == -1) return;
  (void)set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  (void)set(IPPROTO_TCP, TCP_KEEPCNT, 4);
  (void)set(SOL_SOCKET, SO_KEEPALIVE, 1);
}

}  // namespace

void NbdConnection::CloseHandle::operator()(nbd_handle* handle) const {
  peer->Closing(handle);
  // Another process may have the socket as well: the parent of a server that nbdkit runs a
  // program for (--run). A server that lets one client in must see that this one has gone.
  if (const int fd = nbd_aio_get_fd(handle); fd >= 0) (void)::shutdown(fd, SHUT_RDWR);
  nbd_close(handle);
}

NbdConnection::NbdConnection(Peer& peer, std::string name, Clock::duration timeout)
    : peer_(peer),
      name_(std::move(name)),
      timeout_(timeout),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      handle_(nullptr, {&peer}) {}

NbdConnection::~NbdConnection() = default;

bool NbdConnection::Send(NbdCommand& command) {
  MutexLock lock(mutex_);
  if (!ready_ || drop_) return false;
  command.answered = false;
  command.error = 0;
  command.blocks.clear();
  command.received = 0;
  command.on = this;
  command.batch->Started(command);
  // From here on the command may end at any time, in the driver's thread.
  const bool sent = SendTo(handle_.get(), command) != -1;
  if (IsGone(handle_.get())) {
    ready_ = false;
    Wake();
  } else if (!sent) {
    // It has ended, and this thread is the one that would wait for it.
    const int code = nbd_get_errno();
    command.answered = true;
    command.error = code != 0 ? code : EIO;
  } else if ((nbd_aio_get_direction(handle_.get()) & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
    // Who drives waits for the server's bytes, and not for room to send some.
    Wake();
  }
  return true;
}

void NbdConnection::Drop() {
  drop_ = true;
  Wake();
}

void NbdConnection::Wake() {
  // Fails only where it has been woken up to 2^64 times.
  (void)!::eventfd_write(wake_.get(), 1);
}

Error NbdConnection::LibnbdError() const {
  const int code = nbd_get_errno();
  return Error::Because(code != 0 ? code : EIO, name_, LibnbdReason());
}

void NbdConnection::Connect() {
  if (wake_.get() == -1)  // nobody could end its waiting
    return Lose(Error::System(EMFILE, "eventfd", name_));
  if (const Status may = peer_.MayConnect(); !may) return Refuse(may.error());
  Handle handle(nbd_create(), {&peer_});
  if (handle == nullptr) return Lose(LibnbdError());
  connect_by_ = Clock::now() + timeout_;
  // An export may end between two of its blocks, and then the last one is asked for as far
  // as it goes. Whether it can be is the server's decision.
  (void)nbd_set_strict_mode(handle.get(),
                            nbd_get_strict_mode(handle.get()) & ~LIBNBD_STRICT_ALIGN);
  (void)nbd_add_meta_context(handle.get(), LIBNBD_CONTEXT_BASE_ALLOCATION);
  {
    MutexLock lock(mutex_);
    handle_ = std::move(handle);
  }
  if (peer_.Connect(handle_.get()) == -1) Lose(LibnbdError());
}

void NbdConnection::Establish() {
  KeepAlive(nbd_aio_get_fd(handle_.get()));
  if (const Status accepted = peer_.Accept(handle_.get(), ExportOf(handle_.get())); !accepted)
    return Refuse(accepted.error());
  established_ = true;
  established_at_ = Clock::now();
  {
    MutexLock lock(mutex_);
    ready_ = true;
  }
  peer_.Ready();
}

// All that was in flight ends here, in libnbd's callbacks.
void NbdConnection::Forget() {
  Handle handle(nullptr, {&peer_});
  {
    MutexLock lock(mutex_);
    ready_ = false;
    handle.swap(handle_);
  }
  established_ = false;
}

void NbdConnection::Lose(const Error& error) {
  // A server that lets us in and throws us out again is not asked ten times a second.
  if (established_ && Clock::now() - established_at_ > kLastBackOff) back_off_ = kFirstBackOff;
  connect_at_ = Clock::now() + back_off_;
  back_off_ = std::min(back_off_ * 2, kLastBackOff);
  Forget();
  drop_ = false;
  peer_.Lost(error);
}

void NbdConnection::Refuse(const Error& error) {
  Forget();
  closed_ = true;
  peer_.Lost(error);
}

bool NbdConnection::Poll(int fd, short events, short* happened, Clock::time_point until) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  constexpr int kMostMilliseconds = 60'000;
  ::pollfd fds[2] = {{.fd = wake_.get(), .events = POLLIN, .revents = 0},
                     {.fd = fd, .events = events, .revents = 0}};
  const int ready =
      ::poll(fds, 2, static_cast<int>(std::clamp<int64_t>(left, 0, kMostMilliseconds)));
  if (ready <= 0) return false;
  if (fds[0].revents != 0) {
    ::eventfd_t count = 0;
    (void)!::eventfd_read(wake_.get(), &count);
  }
  *happened = fds[1].revents;
  return *happened != 0;
}

Status NbdConnection::Move(Clock::time_point until) {
  nbd_handle* const handle = handle_.get();
  const unsigned direction = nbd_aio_get_direction(handle);
  const bool reads = (direction & LIBNBD_AIO_DIRECTION_READ) != 0;
  const bool writes = (direction & LIBNBD_AIO_DIRECTION_WRITE) != 0;
  short happened = 0;
  if (!Poll(nbd_aio_get_fd(handle),
            static_cast<short>((reads ? POLLIN : 0) | (writes ? POLLOUT : 0)), &happened,
            until))
    return {};
  const bool failed = (happened & (POLLERR | POLLHUP | POLLNVAL)) != 0;
  int moved = 0;
  // What the server says first: it can make what is to be sent pointless.
  if (reads && ((happened & POLLIN) != 0 || failed))
    moved = nbd_aio_notify_read(handle);
  else if (writes && ((happened & POLLOUT) != 0 || failed))
    moved = nbd_aio_notify_write(handle);
  if (moved == -1 && IsGone(handle)) return Fail(LibnbdError());
  return {};
}

void NbdConnection::Run(Clock::time_point until) {
  if (closed_) return;
  if (handle_ == nullptr) {
    if (Clock::now() >= connect_at_) return Connect();
    short happened = 0;
    (void)Poll(-1, 0, &happened, std::min(until, connect_at_));
    return;
  }
  // A server can answer so fast that all is done where it was begun.
  if (!established_ && nbd_aio_is_ready(handle_.get()) != 0) return Establish();
  if (!established_) until = std::min(until, connect_by_);
  if (const Status moved = Move(until); !moved) return Lose(moved.error());
  if (IsGone(handle_.get())) return Lose(Error::Because(EIO, name_, "the connection was lost"));
  if (drop_)
    return Lose(Error::Because(ETIMEDOUT, name_, "the server did not answer, or said it ends"));
  if (established_) return;
  if (nbd_aio_is_ready(handle_.get()) != 0) return Establish();
  if (Clock::now() >= connect_by_)
    Lose(Error::Because(ETIMEDOUT, name_, "the server does not answer"));
}

void NbdConnection::Close() {
  if (handle_ != nullptr && established_) (void)nbd_aio_disconnect(handle_.get(), 0);
  Forget();
  closed_ = true;
}

}  // namespace addcow
