// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The boundary to nbdkit: the one place where an Error becomes a message and
// an errno, and where an exception of the library (std::bad_alloc, in effect)
// stops. Nothing may be thrown through a C callback.
//
// Messages are for the log and name files by their paths. What a client is told
// has base names only.

#ifndef ADDCOW_PLUGIN_BOUNDARY_H
#define ADDCOW_PLUGIN_BOUNDARY_H

#include <fmt/format.h>

#include <cerrno>
#include <exception>
#include <new>
#include <string>

#include "common/base/error.h"
#include "plugin/nbdkit_api.h"

namespace addcow {

// Whether EOPNOTSUPP tells the client something: to a fast zero, that it cannot
// be fast. In answer to anything else it is a failure like others; nbdkit would
// even try its own way of zeroing then, which is wrong past 64 MiB.
enum class Unsupported { kIsAFailure, kIsAnAnswer };

// The NBD protocol has few errors, and nbdkit turns every other one into
// EINVAL, which a client takes for its own mistake. Whatever is wrong with
// the image or its files is EIO, also an EINVAL that the system gave: requests
// that are really out of range do not come here, nbdkit refuses them.
inline int WireErrno(int code, Unsupported unsupported = Unsupported::kIsAFailure) {
  switch (code) {
    case EPERM:
    case EROFS:
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return code;
    case EOPNOTSUPP:
      return unsupported == Unsupported::kIsAnAnswer ? code : EIO;
    default:
      return EIO;
  }
}

inline int Report(const Error& error, Unsupported unsupported) {
  const int code = WireErrno(error.code(), unsupported);
  // An answer that the client asked for is not an error of the server's.
  if (code == EOPNOTSUPP)
    nbdkit_debug("%s", error.Message().c_str());
  else
    nbdkit_error("%s", error.Message().c_str());
  errno = code;
  return -1;
}

// A file for clients: the last part of its path, in printable ASCII. All other
// bytes, and backslashes, are \xNN.
inline std::string NameForClients(const std::string& path) {
  std::string name;
  for (const char c : path.substr(path.rfind('/') + 1))
    name += c >= ' ' && c <= '~' && c != '\\'
                ? std::string(1, c)
                : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return name;
}

// Runs the body of a callback: 0, or -1 with the error reported.
template <typename Body>
int AtBoundary(Body body, Unsupported unsupported = Unsupported::kIsAFailure) noexcept {
  try {
    if (const Status status = body(); !status) return Report(status.error(), unsupported);
    return 0;
  } catch (const std::bad_alloc&) {
    nbdkit_error("out of memory");
    errno = ENOMEM;
  } catch (const std::exception& exception) {
    nbdkit_error("unexpected: %s", exception.what());
    errno = EIO;
  }
  return -1;
}

}  // namespace addcow

#endif  // ADDCOW_PLUGIN_BOUNDARY_H
