// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A server's status as text: for people, and for Prometheus (the exposition format, as
// node_exporter's textfile collector reads it).

#ifndef ADDCOW_TOOLS_STATUS_TEXT_H
#define ADDCOW_TOOLS_STATUS_TEXT_H

#include <string>

#include "common/control/server_status.h"

namespace addcow {

// 0:35, 12:07 or 3:02:44.
std::string HumanTime(double seconds);

// Some lines, at most 80 columns where names are short. Requests of which there were none
// are not shown.
std::string HumanStatus(const ServerStatus& status);
// One line without its end.
std::string HumanFill(const FillStatus& fill);

// Each metric with its HELP and TYPE, and the label `image`, the add-cow file's path, so
// that those of several servers can be told from each other.
std::string PrometheusStatus(const ServerStatus& status);

}  // namespace addcow

#endif  // ADDCOW_TOOLS_STATUS_TEXT_H
