// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The files that a user names for an add-cow file, when it is made (create) or
// given other ones (rebase): found, compared, and what they hold.

#ifndef ADDCOW_COMMON_OPS_NAMED_FILES_H
#define ADDCOW_COMMON_OPS_NAMED_FILES_H

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/format/header.h"
#include "common/image/base.h"
#include "common/io/file_system.h"

namespace addcow {

// A note where the names take the room in which the backing file's identity goes.
inline constexpr std::string_view kNoRoomForIdentity =
    "the names leave no room to note what the backing file is, so a change of it will not be "
    "noticed";

// Whether an open failed since no file is there.
bool IsNotThere(const Error& error);

// Where a name leads nowhere from the add-cow file's directory, but somewhere
// from the working directory: "; for PATH say OPTION NAME". Else empty. `is_new`:
// the file is to be made, so its directory is enough.
std::string Remedy(FileSystem& file_system, const std::string& name, const char* option,
                   const std::string& directory, bool is_new = false);

// A name for the file that `name` is in the directory `from`, from where `to` is: both are
// real paths. What is a link itself stays one; an absolute name stays as it is. The file's
// directory must be there.
Result<std::string> NameFrom(FileSystem& file_system, const std::string& name,
                             const std::string& from, const std::string& to);

// The error of a file that `option` named, with its remedy.
Error NotFound(FileSystem& file_system, const Error& error, const std::string& name,
               const char* option, const std::string& directory, bool is_new = false);

// A note for each file that a killed command has left beside `path`, which is to be made: it
// takes room, and nothing removes it.
std::vector<std::string> NotesOfLeftFiles(FileSystem& file_system, const std::string& path);

// The same of one that was found.
std::string NoteOfLeftFile(const std::string& path);

// The error, and where there was no room the first of those notes.
Error WithNoteOfRoom(const Error& error, const std::vector<std::string>& notes);

// EINVAL where they are one file.
Status CheckDifferent(File& a, const char* role_a, File& b, const char* role_b);

// Opens the backing file that -b and -F named, and says whether it can be one.
// `directory` is the add-cow file's. Locked for reading if `access` says so, as long as the
// result lives. `add_cow` and `image`, null or not, are files that it must not be, nor be made
// of.
Result<Base> OpenNamedBacking(FileSystem& file_system, const NamedFile& named,
                              const std::string& directory, File* add_cow, File* image,
                              const AccessOptions& access);

// EINVAL where the image file is one of those that the base is made of.
Status CheckNotOfBase(File& image, const Base& base);

// Whether a file holds anything but zeroes. kUnknown: only zeroes as far as it was
// looked at, and the rest would take long.
enum class Contents { kZeroes, kData, kUnknown };
Result<Contents> ContentsOf(File& file, uint64_t size);

// How many clusters of the add-cow file `add_cow`, which lies at `path`, are
// allocated or have a subcluster that is: what would be lost with it. The header need
// not be sound: where the places of the bits cannot be told, it is at most so many, and
// not 0. If its image file is there, `image_info` gets what that is.
Result<uint64_t> CountClustersWithData(FileSystem& file_system, File& add_cow,
                                       const std::string& path,
                                       std::optional<FileInfo>& image_info);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_NAMED_FILES_H
