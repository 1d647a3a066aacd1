// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The part of FileSystem that is the same for every file system.

#include "common/io/file_system.h"

namespace addcow {

bool IsNotWritable(const Error& error) {
  return error.code() == EACCES || error.code() == EPERM || error.code() == EROFS ||
         error.code() == ETXTBSY;
}

Result<std::unique_ptr<File>> OpenWritableOrReadOnly(FileSystem& file_system,
                                                     const std::string& path, OpenMode* mode) {
  if (mode != nullptr) *mode = OpenMode::kReadWrite;
  auto file = file_system.Open(path, OpenMode::kReadWrite);
  if (file || !IsNotWritable(file.error())) return file;
  if (mode != nullptr) *mode = OpenMode::kReadOnly;
  return file_system.Open(path, OpenMode::kReadOnly);
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string ResolveName(const std::string& directory, const std::string& name) {
  if (!name.empty() && name.front() == '/') return name;
  if (directory.empty() || directory == ".") return name;
  return directory.back() == '/' ? directory + name : directory + "/" + name;
}

}  // namespace addcow
