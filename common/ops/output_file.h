// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The file that a verb makes under a name that a user gave, or puts in another one's place.

#ifndef ADDCOW_COMMON_OPS_OUTPUT_FILE_H
#define ADDCOW_COMMON_OPS_OUTPUT_FILE_H

#include <memory>
#include <string>

#include "common/base/error.h"
#include "common/io/file_system.h"

namespace addcow {

struct OutputFile {
  std::string path;                // absolute, without symbolic links
  std::unique_ptr<File> existing;  // what is there, and is to be replaced; null: nothing
};

struct OutputRules {
  bool force = false;    // replace what is there
  const char* replaces;  // with that, in words: "a qcow2". Who calls looks at what it is
  OpenMode mode;         // in which that is opened
};

// `path` is from the working directory. EINVAL where it is no file's name, EEXIST without
// `force`, ENOENT where it is a symbolic link to nothing; and where no new file can take the
// place of what is there (CheckMayChange). Nothing is made or locked.
Result<OutputFile> FindOutputFile(FileSystem& file_system, const std::string& path,
                                  const OutputRules& rules);

// What follows the last slash of a path.
std::string NameWithin(const std::string& path);

// ENOENT of a symbolic link that leads to no file.
Error DanglingLink(const std::string& path);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_OUTPUT_FILE_H
