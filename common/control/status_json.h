// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A server's status as JSON, and back: one place for the names (docs/control.md).

#ifndef ADDCOW_COMMON_CONTROL_STATUS_JSON_H
#define ADDCOW_COMMON_CONTROL_STATUS_JSON_H

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>

#include "common/control/server_status.h"

namespace addcow {

// Keeps the keys in the order in which they were added.
using ControlJson = nlohmann::ordered_json;

// Indexed by the enumerations.
inline constexpr std::array<const char*, 3> kFillModeNames = {"off", "touched", "all"};
inline constexpr std::array<const char*, 7> kFillStateNames = {
    "off", "delayed", "running", "paused", "waiting", "done", "failed"};
inline const char* NameOf(FillMode mode) { return kFillModeNames[static_cast<size_t>(mode)]; }
inline const char* NameOf(FillState state) {
  return kFillStateNames[static_cast<size_t>(state)];
}
// kTouched or kAll: what can be asked for.
std::optional<FillMode> FillModeOf(std::string_view name);

ControlJson ToJson(const ServerStatus& status);

// What is missing, of another type or out of range is as in a ServerStatus that nobody has
// filled in: the server may be of another version. It is no error, whatever `json` is.
ServerStatus StatusFromJson(const ControlJson& json);

}  // namespace addcow

#endif  // ADDCOW_COMMON_CONTROL_STATUS_JSON_H
