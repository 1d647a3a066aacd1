// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See control.h.

#include "plugin/control.h"

#include <memory>
#include <utility>

#include "common/control/control_server.h"
#include "common/control/control_socket.h"

namespace addcow {

namespace {

// Owned. Not by an object that exit() destroys: the parent of a server that goes into the
// background ends so, and would remove the child's socket.
ControlSocket* control_socket = nullptr;

std::unique_ptr<ControlServer> control_server;

}  // namespace

Status MakeControlSocket(const std::string& path) {
  ADDCOW_TRY_ASSIGN(auto made, ControlSocket::Listen(path));
  control_socket = made.release();
  return {};
}

Status StartControl(ControlHandlers handlers) {
  if (control_socket == nullptr) return {};
  ADDCOW_TRY_ASSIGN(control_server, ControlServer::Start(*control_socket, std::move(handlers)));
  return {};
}

void StopControl() { control_server.reset(); }

void RemoveControlSocket() {
  StopControl();
  delete std::exchange(control_socket, nullptr);
}

}  // namespace addcow
