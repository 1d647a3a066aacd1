// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which of the bugs in mutants.list is switched on. Included by the copies of
// the engine's sources that mutate.sh makes for tests/crash/mutant-tests, and
// by nothing else: the product has no such switches.
//
// Threads: set while no other thread is there.

#ifndef ADDCOW_TESTS_CRASH_MUTANT_H
#define ADDCOW_TESTS_CRASH_MUTANT_H

#include <string_view>

namespace addcow {

inline std::string_view active_mutant;  // empty: none

inline bool Mutant(std::string_view name) { return name == active_mutant; }

}  // namespace addcow

#endif  // ADDCOW_TESTS_CRASH_MUTANT_H
