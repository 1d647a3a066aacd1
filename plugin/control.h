// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The control socket of this server (control=): made in get_ready, where an error still
// reaches the user, answered from after_fork to cleanup. What it is asked for is the
// handlers' business.
//
// For the thread in which nbdkit starts and ends.

#ifndef ADDCOW_PLUGIN_CONTROL_H
#define ADDCOW_PLUGIN_CONTROL_H

#include <string>

#include "common/base/error.h"
#include "common/control/control_session.h"

namespace addcow {

// `path` is absolute.
Status MakeControlSocket(const std::string& path);

// After the server has forked for the last time; without a socket it does nothing.
Status StartControl(ControlHandlers handlers);

// Disconnects who is connected, with a last word of how things are. The handlers are not
// called any more.
void StopControl();

// Removes the socket. Any number of times.
void RemoveControlSocket();

}  // namespace addcow

#endif  // ADDCOW_PLUGIN_CONTROL_H
