// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The plugin's parameters (key=value on nbdkit's command line).

#ifndef ADDCOW_PLUGIN_OPTIONS_H
#define ADDCOW_PLUGIN_OPTIONS_H

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/image/image_files.h"
#include "common/jobs/fill_status.h"

namespace addcow {

enum class Layer {
  kAll,  // extents of the disk that a client reads
  kTop,  // extents of what is allocated; the rest is a hole, with no word of zeroes
};

struct Options {
  std::vector<std::string> given;  // the parameters that were seen, by their names
  ImageSource source;              // add_cow_path is empty until file= was seen
  Layer layer = Layer::kAll;
  bool readonly = false;                  // as nbdkit -r, which is not seen everywhere
  std::chrono::seconds sync_interval{5};  // 0: bits wait for a client's flush
  bool copy_on_read = false;              // what was read of the backing file is kept
  std::optional<std::string> control;     // the path of the control socket, absolute
  uint64_t fetch_size = 0;                // at once then, in bytes; 0: by what the base is
  FillMode fill = FillMode::kOff;
  uint64_t fill_rate = 0;  // bytes a second; 0: no limit
  std::chrono::seconds fill_delay{0};
  bool fill_exit = false;  // when it is done, and no client is there
};

// What `nbdkit addcow --help` prints. nbdkit's bash completion finds the
// parameters by the lines that start with "name=".
extern const char kOptionsHelp[];

// Takes one parameter. Paths become absolute here: the server changes its
// directory later. EINVAL: unknown, given twice, or not one of its values.
Status SetOption(Options& options, std::string_view key, const std::string& value);

// Called when all parameters were seen.
Status CompleteOptions(Options& options);

}  // namespace addcow

#endif  // ADDCOW_PLUGIN_OPTIONS_H
