// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The order matters: were the name there before the contents are durable, a
// crash could leave a file that is named but empty; were the directory not
// synced, the caller would report a file that a crash can still take away.

#include "common/io/durable_create.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

namespace addcow {

namespace {

// PATH.PID.tmp, or PATH.PID-ATTEMPT.tmp from the second attempt on, but never a
// longer name than a long one's own: a file system that has room for the one
// must have it for the other.
std::string TemporaryPath(const std::string& path, ::pid_t process, int attempt) {
  constexpr size_t kShort = 100;  // every file system has room for so much
  const std::string suffix = attempt == 1 ? fmt::format(".{}.tmp", process)
                                          : fmt::format(".{}-{}.tmp", process, attempt);
  const size_t start = path.rfind('/') + 1;  // 0 where there is none
  const size_t size = path.size() - start;
  size_t kept = std::min(size, std::max(size, kShort) - suffix.size());
  // Not half a UTF-8 character, which some file systems refuse.
  const auto continues = [&](size_t at) { return (path[start + at] & 0xc0) == 0x80; };
  while (kept > 0 && kept < size && continues(kept)) kept--;
  return path.substr(0, start + kept) + suffix;
}

// Creates a file beside `path`, under a name that is free. A crash can leave one
// that is taken: process ids come back, in a container soon.
Result<std::unique_ptr<File>> CreateBeside(FileSystem& file_system, const std::string& path,
                                           const NewRights& rights) {
  constexpr int kAttempts = 100;
  for (int attempt = 1;; attempt++) {
    auto file = file_system.Create(TemporaryPath(path, ::getpid(), attempt), rights);
    if (file) return file;
    if (file.error().code() != EEXIST || attempt == kAttempts)
      return Fail(file.error().OfFile(path));
  }
}

struct Maker {
  ::pid_t process = 0;
  int attempt = 0;
};

// Whose the temporary file of that name is, if it is one.
std::optional<Maker> MakerOf(std::string_view name) {
  constexpr std::string_view kEnd = ".tmp";
  if (!name.ends_with(kEnd)) return std::nullopt;
  name.remove_suffix(kEnd.size());
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const char* const end = name.data() + name.size();
  Maker maker{.process = 0, .attempt = 1};
  auto parsed = std::from_chars(name.data() + dot + 1, end, maker.process);
  if (parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '-')
    parsed = std::from_chars(parsed.ptr + 1, end, maker.attempt);
  if (parsed.ec != std::errc() || parsed.ptr != end || maker.process <= 0) return std::nullopt;
  return maker;
}

bool IsGone(const Maker& maker) { return ::kill(maker.process, 0) != 0 && errno == ESRCH; }

// In messages the temporary file is called what it is to become.
Status Called(const std::string& path, const std::string& temporary, Status done) {
  if (done || done.error().file() != temporary) return done;
  return Fail(done.error().OfFile(path));
}

Status FillAndSync(FileSystem& file_system, const std::string& path, File* file,
                   const std::function<Status(File&)>& fill) {
  Status done = fill(*file);
  if (done) done = file->Sync();
  if (done) return done;
  // The first error is the one to report.
  (void)file_system.Remove(file->name());
  return Called(path, file->name(), std::move(done));
}

Status RenameTo(FileSystem& file_system, const std::string& from, const std::string& to,
                RenameMode mode) {
  Status renamed = file_system.Rename(from, to, mode);
  // Nobody uses it, so that waiting would help: it is a mount point, as far as is known.
  if (!renamed && renamed.error().code() == EBUSY)
    return Fail(Error::Because(EINVAL, to,
                               "cannot be replaced by a new file: " + ErrnoText(EBUSY) +
                                   " (is it a mount point itself?)"));
  if (renamed || mode == RenameMode::kReplace || renamed.error().code() != EOPNOTSUPP)
    return renamed;
  // The last rung: making a file never replaces one, and what is replaced then
  // is our own.
  ADDCOW_TRY(file_system.Create(to));
  renamed = file_system.Rename(from, to, RenameMode::kReplace);
  if (!renamed) (void)file_system.Remove(to);
  return renamed;
}

}  // namespace

Status DurableCreate(FileSystem& file_system, const std::string& path, RenameMode mode,
                     const std::function<Status(File&)>& fill, bool* in_place,
                     const NewRights& rights) {
  bool ignored = false;
  bool& there = in_place != nullptr ? *in_place : ignored;
  there = false;
  ADDCOW_TRY_ASSIGN(auto file, CreateBeside(file_system, path, rights));
  const std::string temporary = file->name();
  ADDCOW_TRY(FillAndSync(file_system, path, file.get(), fill));
  file.reset();
  if (Status renamed = RenameTo(file_system, temporary, path, mode); !renamed) {
    (void)file_system.Remove(temporary);
    return Called(path, temporary, std::move(renamed));
  }
  there = true;
  Status synced = file_system.SyncDirectory(DirectoryOf(path));
  // What replaced an older file cannot be taken back; what is new can.
  if (!synced && mode == RenameMode::kKeepExisting) there = !file_system.Remove(path);
  return synced;
}

Status TryCreateBeside(FileSystem& file_system, const std::string& path,
                       const NewRights& rights) {
  ADDCOW_TRY_ASSIGN(auto file, CreateBeside(file_system, path, rights));
  const std::string temporary = file->name();
  file.reset();
  return Called(path, temporary, file_system.Remove(temporary));
}

std::vector<std::string> LeftUnfinished(FileSystem& file_system, const std::string& path) {
  std::vector<std::string> left;
  const auto entries = file_system.ReadDirectory(DirectoryOf(path));
  if (!entries) return left;
  const std::string beside = path.substr(0, path.rfind('/') + 1);
  for (const DirectoryEntry& entry : *entries) {
    const auto maker = MakerOf(entry.name);
    if (!maker || entry.kind != DirectoryEntry::Kind::kFile) continue;
    if (TemporaryPath(path, maker->process, maker->attempt) != beside + entry.name) continue;
    if (IsGone(*maker)) left.push_back(beside + entry.name);
  }
  std::ranges::sort(left);
  return left;
}

Unfinished UnfinishedName(std::string_view name) {
  const auto maker = MakerOf(name);
  if (!maker) return Unfinished::kNo;
  return IsGone(*maker) ? Unfinished::kLeft : Unfinished::kUnderWay;
}

Status SyncName(FileSystem& file_system, const std::string& path) {
  Status done = file_system.SyncDirectory(DirectoryOf(path));
  if (done || done.error().code() == EIO || done.error().IsNoRoom()) return done;
  return {};
}

}  // namespace addcow
