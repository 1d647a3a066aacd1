// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Names in commands that a message tells the user to run.

#ifndef ADDCOW_COMMON_BASE_SHELL_WORD_H
#define ADDCOW_COMMON_BASE_SHELL_WORD_H

#include <string>
#include <string_view>

namespace addcow {

// `text` as one word for a shell: as it is where that will do, else in quotes
// ('a b'), or, where it has control characters, in those of bash and
// POSIX.1-2024 ($'a\x0ab'). Any thread.
std::string ShellWord(std::string_view text);

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_SHELL_WORD_H
