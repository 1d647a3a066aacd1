// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A directory on the real file system that is removed with all its contents.

#ifndef ADDCOW_TESTS_SUPPORT_TEMP_DIR_H
#define ADDCOW_TESTS_SUPPORT_TEMP_DIR_H

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace addcow {

class TempDir {
 public:
  TempDir() : path_(std::filesystem::temp_directory_path() / "addcow-test.XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp: " + path_);
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_TEMP_DIR_H
