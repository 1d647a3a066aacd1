// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See output_file.h.

#include "common/ops/output_file.h"

#include <fmt/format.h>

#include <utility>

#include "common/ops/named_files.h"

namespace addcow {

std::string NameWithin(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Error DanglingLink(const std::string& path) {
  return Error::Because(ENOENT, path,
                        "is a symbolic link that leads to no file (remove it, or make the file "
                        "that it leads to)");
}

Result<OutputFile> FindOutputFile(FileSystem& file_system, const std::string& path,
                                  const OutputRules& rules) {
  const std::string name = NameWithin(path);
  if (name.empty())
    return Fail(Error::Because(EINVAL, fmt::format("'{}'", path), "is not the name of a file"));
  ADDCOW_TRY_ASSIGN(const bool exists, file_system.Exists(path));
  if (!exists) {
    ADDCOW_TRY_ASSIGN(const std::string directory, file_system.RealPath(DirectoryOf(path)));
    return OutputFile{ResolveName(directory, name), nullptr};
  }
  // Never removed, by whomever.
  if (const auto is = file_system.Identify(path); is && is->is_block_device)
    return Fail(Error::Because(
        EEXIST, path, "is a block device, and a new file is made here (give the name of one)"));
  if (!rules.force)
    return Fail(Error::Because(
        EEXIST, path, fmt::format("already exists (--force replaces {})", rules.replaces)));
  OutputFile output;
  auto real = file_system.RealPath(path);
  if (!real && IsNotThere(real.error())) return Fail(DanglingLink(path));
  ADDCOW_TRY_ASSIGN(output.path, std::move(real));
  ADDCOW_TRY_ASSIGN(output.existing, file_system.Open(output.path, rules.mode));
  ADDCOW_TRY(file_system.CheckMayChange(output.path, FileChange::kReplaceByNew));
  return output;
}

}  // namespace addcow
