// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether nbdkit was started with -r. It tells its plugins only when the first
// client comes, but which locks to take on the files is decided before, where
// an error still reaches the user. So its command line is looked at.
//
// Where /proc is not mounted it is not seen; readonly=on says the same there.
// To be wrong would be safe both ways: locks for writing keep out more than is
// needed, and files opened for reading only make a disk that is read only.

#ifndef ADDCOW_PLUGIN_SERVER_ARGUMENTS_H
#define ADDCOW_PLUGIN_SERVER_ARGUMENTS_H

#include <span>
#include <string>
#include <vector>

namespace addcow {

// `arguments` are nbdkit's, without its own name, by the rules of nbdkit(1)
// and getopt_long: options may be abbreviated, joined (-fr) and come after
// other words, "--" ends them.
bool HasReadOnlyOption(std::span<const std::string> arguments);

// The arguments of this process; none where they cannot be found out.
std::vector<std::string> OwnArguments();

}  // namespace addcow

#endif  // ADDCOW_PLUGIN_SERVER_ARGUMENTS_H
