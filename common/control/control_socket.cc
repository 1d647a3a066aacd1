// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See control_socket.h.

#include "common/control/control_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

namespace addcow {

namespace {

constexpr mode_t kOwnerOnly = S_IRUSR | S_IWUSR;

// More would have to wait until the server looks.
constexpr int kBacklog = 128;

const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

// For as long as somebody else holds it, which is a few system calls.
constexpr int kLockTries = 200;
constexpr auto kLockPause = std::chrono::milliseconds(10);

// Locks the directory of `path`. Where that cannot be done (a file system without locks)
// nobody else can either, and it goes without.
Result<UniqueFd> LockDirectory(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == 0 ? "/" : path.substr(0, slash);
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() == -1) {
    // One that may not be read can still be written to.
    if (errno == EACCES) return fd;
    return Fail(Error::System(errno, "open", directory));
  }
  for (int tries = 0; ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0; tries++) {
    if (errno != EWOULDBLOCK) return fd;
    if (tries == kLockTries)
      return Fail(Error::Because(EBUSY, path,
                                 "its directory is locked by another program, so the control "
                                 "socket cannot be made (name one in another directory)"));
    std::this_thread::sleep_for(kLockPause);
  }
  return fd;
}

// Removes what a server that was killed has left. EADDRINUSE, or what else keeps it there.
Status RemoveStale(const std::string& path, const sockaddr_un& address) {
  // It is somebody's, and leads to a name that bind(2) would not make.
  struct stat named = {};
  if (::lstat(path.c_str(), &named) == 0 && S_ISLNK(named.st_mode))
    return Fail(Error::Because(ELOOP, path,
                               "is a symbolic link, so no control socket is made there: name "
                               "the socket itself, or another file"));
  const auto found = FindSocket(path);
  if (!found && found.error().code() == ENOENT) return {};
  if (!found) return Fail(found.error());
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (probe.get() == -1) return Fail(Error::System(errno, "socket", path));
  const bool connected = ::connect(probe.get(), Generic(address), sizeof address) == 0;
  const int code = connected ? 0 : errno;
  // EAGAIN: somebody listens, and has more to do than it can.
  if (connected || code == EAGAIN || code == EINPROGRESS || code == EPROTOTYPE)
    return Fail(Error::Because(
        EADDRINUSE, path,
        "a server listens at this control socket already (stop that one, or name another)"));
  if (code == ENOENT) return {};
  if (code != ECONNREFUSED) return Fail(Error::System(code, "connect", path));
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return Fail(Error::System(errno, "unlink", path));
}

}  // namespace

Result<sockaddr_un> SocketAddress(const std::string& path) {
  sockaddr_un address = {};
  constexpr size_t kMost = sizeof address.sun_path - 1;
  if (path.size() > kMost)
    return Fail(Error::Because(
        ENAMETOOLONG, path,
        fmt::format("is {} bytes long, the path of a socket can have {}: name one in a "
                    "directory with a shorter path, for example in /run",
                    path.size(), kMost)));
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<struct stat> FindSocket(const std::string& path) {
  struct stat found = {};
  if (::stat(path.c_str(), &found) != 0)
    return Fail(Error::System(errno, "control socket", path));
  if (!S_ISSOCK(found.st_mode))
    return Fail(Error::Because(ENOTSOCK, path,
                               "is no socket, so it is not used as a control socket: name "
                               "another file"));
  return found;
}

Result<std::unique_ptr<ControlSocket>> ControlSocket::Listen(const std::string& path) {
  ADDCOW_TRY_ASSIGN(const sockaddr_un address, SocketAddress(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() == -1) return Fail(Error::System(errno, "socket", path));
  // Linux gives the name the rights that the socket has when it is bound, less the umask:
  // no moment with wider ones, and the umask of other threads stays as it is.
  if (::fchmod(fd.get(), kOwnerOnly) != 0) return Fail(Error::System(errno, "fchmod", path));
  ADDCOW_TRY_ASSIGN(const UniqueFd lock, LockDirectory(path));
  ADDCOW_TRY(RemoveStale(path, address));
  if (::bind(fd.get(), Generic(address), sizeof address) != 0)
    return Fail(Error::System(errno, "bind", path));
  struct stat made = {};
  if (::lstat(path.c_str(), &made) != 0) return Fail(Error::System(errno, "lstat", path));
  std::unique_ptr<ControlSocket> socket(new ControlSocket(path, std::move(fd), made));
  // A umask may have taken the owner's rights as well.
  if ((made.st_mode & 07777) != kOwnerOnly && ::chmod(path.c_str(), kOwnerOnly) != 0)
    return Fail(Error::System(errno, "chmod", path));
  if (::listen(socket->fd(), kBacklog) != 0) return Fail(Error::System(errno, "listen", path));
  return socket;
}

ControlSocket::~ControlSocket() {
  struct stat now = {};
  if (::lstat(path_.c_str(), &now) == 0 && now.st_dev == made_.st_dev &&
      now.st_ino == made_.st_ino)
    (void)::unlink(path_.c_str());
}

}  // namespace addcow
