// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The disks of the crash search: of both revisions, with clusters of all sizes, on file
// systems that lack this or that. They are small, so that requests meet, and so that
// every cluster gets allocated now and then.

#ifndef ADDCOW_TESTS_CRASH_RANDOM_DISK_H
#define ADDCOW_TESTS_CRASH_RANDOM_DISK_H

#include <cstdint>

#include "tests/crash/crash_harness.h"

namespace addcow {

CrashDisk::Effort RandomEffort(Random& random);
ImageSpec RandomSpec(Random& random, uint64_t seed);
FakeInode::Abilities RandomAbilities(Random& random);
CrashHarness::Origin RandomOrigin(Random& random);

}  // namespace addcow

#endif  // ADDCOW_TESTS_CRASH_RANDOM_DISK_H
