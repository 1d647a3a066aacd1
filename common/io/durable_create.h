// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Makes a file appear under its name complete and durable, or not at all:
// written under a temporary name, synced, renamed, directory synced. A crash
// at any instant leaves the old state or the new one (and perhaps a file
// PATH.PID.tmp, PATH cut where that were too long, which nothing reads and
// anybody may remove, and which is in nobody's way). On a file system that cannot
// rename without replacing and has no hard links, such as exFAT, a new name is
// taken by an empty file first, and a crash may leave that.

#ifndef ADDCOW_COMMON_IO_DURABLE_CREATE_H
#define ADDCOW_COMMON_IO_DURABLE_CREATE_H

#include <functional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/io/file_system.h"

namespace addcow {

// `fill` writes the contents into the new, empty file. RenameMode says what
// becomes of a file already at `path`. On failure nothing is left behind; only
// where replacing a file succeeded and the directory's sync then failed is the
// new one there. `in_place`, if given, says whether the new file is at `path`:
// then, also after a failure, what it names must be kept. `rights`: of the new file.
Status DurableCreate(FileSystem& file_system, const std::string& path, RenameMode mode,
                     const std::function<Status(File&)>& fill, bool* in_place = nullptr,
                     const NewRights& rights = {});

// Makes such a file beside `path`, empty, and removes it: whether it can have these rights. Not
// synced; a crash may leave it.
Status TryCreateBeside(FileSystem& file_system, const std::string& path,
                       const NewRights& rights);

// The temporary files of `path` that nobody finishes: no process of this machine has the number
// that they are called by. One of another host, or of another container, may have it. Sorted;
// none where the directory cannot be read.
std::vector<std::string> LeftUnfinished(FileSystem& file_system, const std::string& path);

// Whether `name` is one that DurableCreate gives to a file while it writes it; and of whom.
enum class Unfinished { kNo, kUnderWay, kLeft };
Unfinished UnfinishedName(std::string_view name);

// Makes the name of a file durable that is there: whoever gave it, or the file another
// one's, may have been killed before it synced the directory. Left alone where the
// directory cannot be synced, for want of rights, say.
Status SyncName(FileSystem& file_system, const std::string& path);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_DURABLE_CREATE_H
