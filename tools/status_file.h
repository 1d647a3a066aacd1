// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The file of `addcow status --to`: replaced by a new one, so that who reads it finds the old
// text or all of the new one. What a new file takes the place of is gone, and the name may be
// a slip: a device, a server's socket, a disk's add-cow file. So nothing is replaced but an
// empty file and one that --to has written.

#ifndef ADDCOW_TOOLS_STATUS_FILE_H
#define ADDCOW_TOOLS_STATUS_FILE_H

#include <string>
#include <string_view>

#include "common/base/error.h"

namespace addcow {

// A symbolic link stays, and what it leads to is replaced, as a shell's > does it. EEXIST
// where something else is there, which is as it was then; ENOENT of a link to nothing.
Status ReplaceStatusFile(const std::string& path, const std::string& text);

// Whether it begins and is built as what `addcow status` prints, in any of its forms.
bool IsStatusText(std::string_view text);

}  // namespace addcow

#endif  // ADDCOW_TOOLS_STATUS_FILE_H
