// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See status_file.h.

#include "tools/status_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <span>

#include "common/base/unique_fd.h"
#include "common/base/units.h"
#include "common/io/file_system.h"
#include "common/ops/output_file.h"

namespace addcow {

namespace {

// No status is longer (an answer of the server is not); nothing larger is looked into.
constexpr uint64_t kMostStatusText = kMiB;

Error NotReplaced(const std::string& path, const char* why) {
  return Error::Because(
      EEXIST, path,
      fmt::format("{}, which --to would put an end to: name another file, or leave --to out, "
                  "which prints to standard output",
                  why));
}

// The file that is to get the text, without symbolic links.
Result<std::string> FindStatusFile(const std::string& path) {
  struct stat there = {};
  // The links of /dev/stdout lead to pipes, which have no path.
  if (::stat(path.c_str(), &there) != 0) {
    if (errno != ENOENT) return Fail(Error::System(errno, "stat", path));
    if (::lstat(path.c_str(), &there) == 0) return Fail(DanglingLink(path));
    return path;
  }
  if (!S_ISREG(there.st_mode)) return Fail(NotReplaced(path, "is no regular file"));
  ADDCOW_TRY_ASSIGN(auto real, PosixFileSystem().RealPath(path));
  if (there.st_size == 0) return real;
  constexpr const char* kOther = "holds something else than a status";
  if (static_cast<uint64_t>(there.st_size) > kMostStatusText)
    return Fail(NotReplaced(path, kOther));
  ADDCOW_TRY_ASSIGN(const auto file, PosixFileSystem().Open(real, OpenMode::kReadOnly));
  std::string text(kMostStatusText + 1, '\0');
  ADDCOW_TRY_ASSIGN(const size_t count, file->Read(std::as_writable_bytes(std::span(text)), 0));
  text.resize(count);
  if (!text.empty() && !IsStatusText(text)) return Fail(NotReplaced(path, kOther));
  return real;
}

}  // namespace

bool IsStatusText(std::string_view text) {
  if (text.starts_with("# HELP addcow_")) return true;
  if (text.starts_with('{')) {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    return json.is_object() && json.contains("version") && json.contains("add-cow") &&
           json.contains("requests");
  }
  // For people: a line that begins with a name, and then these.
  const size_t second = text.find('\n');
  return second != std::string_view::npos && text.substr(second).starts_with("\nallocated  ") &&
         text.find("\nwritten to ") != std::string_view::npos;
}

Status ReplaceStatusFile(const std::string& path, const std::string& text) {
  ADDCOW_TRY_ASSIGN(const std::string target, FindStatusFile(path));
  const std::string fresh = fmt::format("{}.{}.tmp", target, ::getpid());
  UniqueFd fd(
      ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!fd.valid()) return Fail(Error::System(errno, "open", fresh));
  int failed = 0;
  for (size_t done = 0; failed == 0 && done < text.size();) {
    const ssize_t count = ::write(fd.get(), text.data() + done, text.size() - done);
    if (count >= 0)
      done += static_cast<size_t>(count);
    else if (errno != EINTR)
      failed = errno;
  }
  if (failed == 0 && ::rename(fresh.c_str(), target.c_str()) == 0) return {};
  Error error =
      Error::System(failed != 0 ? failed : errno, failed != 0 ? "write" : "rename", path);
  (void)::unlink(fresh.c_str());
  return Fail(std::move(error));
}

}  // namespace addcow
