// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NbdServer: how connections to an NBD server are begun.
//
// Threads: any, several at once, each for a connection of its own.

#ifndef ADDCOW_COMMON_SOURCE_NBD_SERVER_H
#define ADDCOW_COMMON_SOURCE_NBD_SERVER_H

#include <cstddef>
#include <optional>
#include <string>

#include "common/base/error.h"

struct nbd_handle;

namespace addcow {

class NbdServer {
 public:
  NbdServer() = default;
  NbdServer(const NbdServer&) = delete;
  NbdServer& operator=(const NbdServer&) = delete;
  virtual ~NbdServer() = default;

  // For messages.
  virtual std::string name() const = 0;

  // Begins to connect the handle by one of libnbd's asynchronous calls, whose result it
  // gives. `connection`: which it is, from 0; the first one is made first.
  virtual int Connect(nbd_handle* handle, size_t connection) = 0;

  // The first connection is there.
  virtual void Connected(nbd_handle*) {}
  // The handle of that connection is about to be closed.
  virtual void Closing(nbd_handle*, size_t) {}

  // What leads to another disk now than when this was made, in words that follow its name;
  // empty: nothing that is known of. Asked before the first connection is begun, and when it
  // is there (`connected`): what has no name any more may be back before that.
  virtual std::string Changed(bool /*connected*/) const { return ""; }

  // What the server itself has to say of why it fails; may be empty.
  virtual std::string Explanation() const { return ""; }
  // The same where it is understood: all that is to be said of why nothing was connected.
  virtual std::optional<Error> Refusal() const { return std::nullopt; }
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_NBD_SERVER_H
