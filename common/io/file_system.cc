// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The part of FileSystem that is the same for every file system.

#include "common/io/file_system.h"

#include <algorithm>
#include <deque>
#include <sstream>

namespace addcow {

namespace {

bool IsNotWritable(const Error& error) {
  return error.code() == EACCES || error.code() == EPERM || error.code() == EROFS ||
         error.code() == ETXTBSY;
}

// The parts of a path, without empty ones and ".".
std::deque<std::string> PartsOf(const std::string& path) {
  std::deque<std::string> parts;
  std::stringstream rest(path);
  for (std::string part; std::getline(rest, part, '/');)
    if (!part.empty() && part != ".") parts.push_back(std::move(part));
  return parts;
}

}  // namespace

Result<std::unique_ptr<File>> OpenWritableOrReadOnly(
    const std::function<Result<std::unique_ptr<File>>(OpenMode)>& open,
    std::optional<Error>& not_writable) {
  auto file = open(OpenMode::kReadWrite);
  if (file || !IsNotWritable(file.error())) return file;
  not_writable = std::move(file).error();
  return open(OpenMode::kReadOnly);
}

Status LockInPlace(FileSystem& file_system, const std::string& path, File& file,
                   LockKind kind) {
  ADDCOW_TRY(file.Lock(kind));
  ADDCOW_TRY_ASSIGN(const auto there, file_system.Open(path, OpenMode::kReadOnly));
  ADDCOW_TRY_ASSIGN(const FileInfo info, file.Info());
  ADDCOW_TRY_ASSIGN(const FileInfo info_there, there->Info());
  if (info.SameFile(info_there)) return {};
  return Fail(Error::Because(
      EAGAIN, path, "was replaced by another program while it was being opened (try again)"));
}

Status WithLockRemedy(Status locked, const std::string& option_prefix) {
  if (locked || locked.error().operation() != File::kLockOperation) return locked;
  const Error& error = locked.error();
  return Fail(Error::Because(error.code(), error.file(),
                             "cannot be locked: " + ErrnoText(error.code()) + " (" +
                                 option_prefix +
                                 "lock=off does without, if no other program uses it)"));
}

uint32_t RightsWithin(const FileInfo& model, bool same_group) {
  const uint32_t shared = model.permissions & model.acl_limit.value_or(077);
  uint32_t group = shared >> 3 & 06;
  uint32_t other = shared & 06;
  // Of another group, some may be in the model's and some not.
  if (!same_group) group = other = group & other;
  return 0600 | group << 3 | other;
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<std::string> PathOfName(FileSystem& file_system, const std::string& path) {
  ADDCOW_TRY_ASSIGN(const std::string directory, file_system.RealPath(DirectoryOf(path)));
  return ResolveName(directory, path.substr(path.rfind('/') + 1));
}

std::string ResolveName(const std::string& directory, const std::string& name) {
  if (!name.empty() && name.front() == '/') return name;
  if (directory.empty() || directory == ".") return name;
  return directory.back() == '/' ? directory + name : directory + "/" + name;
}

std::optional<std::string> NameBeneath(const std::string& root, const std::string& directory,
                                       const std::string& name) {
  std::deque<std::string> rest = PartsOf(name);
  std::deque<std::string> path;
  if (!name.starts_with('/')) {
    path = PartsOf(directory);
    for (; !rest.empty() && rest.front() == ".."; rest.pop_front())
      if (!path.empty()) path.pop_back();
  }
  path.insert(path.end(), rest.begin(), rest.end());
  const std::deque<std::string> above = PartsOf(root);
  const auto [at_path, at_above] = std::ranges::mismatch(path, above);
  if (at_above != above.end() || at_path == path.end()) return std::nullopt;
  std::string beneath;
  for (auto part = at_path; part != path.end(); ++part)
    beneath += (beneath.empty() ? "" : "/") + *part;
  return beneath;
}

}  // namespace addcow
