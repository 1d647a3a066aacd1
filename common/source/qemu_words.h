// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What QEMU's programs say where they fail, as far as it is understood.

#ifndef ADDCOW_COMMON_SOURCE_QEMU_WORDS_H
#define ADDCOW_COMMON_SOURCE_QEMU_WORDS_H

#include <optional>
#include <string>

#include "common/base/error.h"

namespace addcow {

// EBUSY where `said`, in one line, is that another program has an image open in a way that
// does not go together with what was to be done: of the file that QEMU names, or of `path`
// where it names none. Nothing where it says anything else.
std::optional<Error> InUseByQemuWords(const std::string& said, const std::string& path);

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_QEMU_WORDS_H
