// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Locks on a whole file, seen by other programs: who reads it, who writes it,
// and what they bear from others. They are QEMU's image locks, so that QEMU
// and this project keep out of each other's files in both directions.
//
// Each right that a user of a file may hold has a number. Holding right n is
// a shared lock on byte 100 + n; not bearing that others hold it is a shared
// lock on byte 200 + n. Nobody ever takes an exclusive lock, so that files
// that may only be read can be locked too. First the own bytes are locked, then
// those of the others are looked at: two that come at once may both fail, but
// never both succeed. (QEMU: docs/system/images.rst, "Disk image file locking";
// block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE.)
//
// The locks are those of the open file description (F_OFD_SETLK): children of
// a fork share them, and they go when the last descriptor is closed, however
// the process ends. They are advisory: a program that does not ask is not
// stopped.

#ifndef ADDCOW_COMMON_IO_FILE_LOCK_H
#define ADDCOW_COMMON_IO_FILE_LOCK_H

#include "common/io/file.h"

namespace addcow {

// Locks the open file description of `fd`, or changes its lock to `kind`. On
// failure it holds at most what it held before and what `kind` needs. Never
// waits. EAGAIN: somebody else's use of the file stands against it; any other
// errno: it cannot be locked, ENOLCK for example.
SysResult<void> LockDescriptor(int fd, LockKind kind);

// What the locks of other open file descriptions say, those of this process
// included. Takes none. An errno: it cannot be told.
SysResult<FileUse> UseOfDescriptor(int fd);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_FILE_LOCK_H
