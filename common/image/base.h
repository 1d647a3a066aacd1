// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What an image stands on: the file that its header names as the backing file, opened
// by the format that is said of it, and never by what it looks like.

#ifndef ADDCOW_COMMON_IMAGE_BASE_H
#define ADDCOW_COMMON_IMAGE_BASE_H

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/base/file_time.h"
#include "common/format/sample.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"
#include "common/source/source.h"

namespace addcow {

// The formats that a backing file can have: raw, add-cow, and those that are left to QEMU.
// What an NBD URI names is raw.
inline constexpr std::string_view kAddCowFormat = "add-cow";
bool IsBaseFormat(std::string_view format);
// For messages that refuse another one.
std::string BaseFormats();

struct BaseRequest {
  std::unique_ptr<File> file;  // opened for reading; none of a URI
  std::string path;            // where it was found, from where names in it start; or a URI
  std::string format;          // one that IsBaseFormat knows
  AccessOptions access = {};
  Above above = {};
  std::string role = "backing file";  // for messages
};

struct Base {
  std::unique_ptr<Source> source;
  Image* image = nullptr;                   // of an add-cow file: what `source` reads
  std::optional<FileTime> modified;         // when it was last; none of what has no such time
  uint32_t sample_edge = kSmallSampleEdge;  // of the sample that is to be noted
  std::vector<ChainFile> files;             // all that it is made of, if OpenBase has opened it
  std::vector<std::string> notes;           // what somebody should know, a line each

  // Those of the file that was named, no wider than of any other that it is made of. Of
  // a server there are none, and it is known to this user only.
  FileInfo Rights() const;
};

// More would be more calls for a read to go through, and more open files, than should be.
inline constexpr size_t kMostImages = 500;

// Locks the file, if so asked for, and says whether it can be a base. kErrCorrupt where
// one of its files is one of `above`, ELOOP where more than kMostImages stand on each
// other. A server is connected to, or started.
Result<Base> OpenBase(FileSystem& file_system, BaseRequest request);

// The same of an image that is open for reading only, for OpenImageFiles, which knows what
// else is open.
Result<Base> BaseOfImage(FileSystem& file_system, ImageFiles files);

// The path of the open file, without symbolic links, from whose directory the names in it
// start. EAGAIN where `path`, by which it was opened, leads elsewhere by now.
Result<std::string> RealPathOf(FileSystem& file_system, File& file, const std::string& path);

// The same but for a link that the file itself is named by, which is not followed: from the
// directory of that QEMU starts the relative names of what an image stands on.
Result<std::string> QemuPathOf(FileSystem& file_system, File& file, const std::string& path);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_BASE_H
