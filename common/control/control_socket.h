// SPDX-License-Identifier: LGPL-2.1-or-later
//
// ControlSocket: a Unix socket in the file system that only its owner can connect to, from
// the moment it is there until this object goes. Made before a server forks, so that the
// user sees what is wrong; used by the child.
//
// A socket that nobody listens at is left from a server that was killed, and is replaced.
// Two servers that begin at once do not take each other's for such: whoever looks and binds
// has its directory locked meanwhile (flock).

#ifndef ADDCOW_COMMON_CONTROL_CONTROL_SOCKET_H
#define ADDCOW_COMMON_CONTROL_CONTROL_SOCKET_H

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <memory>
#include <string>

#include "common/base/error.h"
#include "common/base/unique_fd.h"

namespace addcow {

// The address of a socket at `path`. ENAMETOOLONG where that does not fit into one (107
// bytes).
Result<sockaddr_un> SocketAddress(const std::string& path);

// Of what is at `path`: ENOENT, or ENOTSOCK where that is no socket.
Result<struct stat> FindSocket(const std::string& path);

class ControlSocket {
 public:
  // Listens at `path`, which is absolute. EADDRINUSE: a server does so already; ENOTSOCK:
  // something is there that is no socket; ELOOP: a symbolic link is; ENAMETOOLONG.
  static Result<std::unique_ptr<ControlSocket>> Listen(const std::string& path);
  // Removes the name, if it is still that of this socket.
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  const std::string& path() const { return path_; }
  // Does not block.
  int fd() const { return fd_.get(); }

 private:
  ControlSocket(std::string path, UniqueFd fd, const struct stat& made)
      : path_(std::move(path)), fd_(std::move(fd)), made_(made) {}

  const std::string path_;
  const UniqueFd fd_;
  const struct stat made_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_CONTROL_CONTROL_SOCKET_H
