// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The order matters: were the name there before the contents are durable, a
// crash could leave a file that is named but empty; were the directory not
// synced, the caller would report a file that a crash can still take away.

#include "common/io/durable_create.h"

#include <fmt/format.h>
#include <unistd.h>

namespace addcow {

namespace {

Status FillAndSync(FileSystem& file_system, const std::string& path,
                   const std::function<Status(File&)>& fill) {
  ADDCOW_TRY_ASSIGN(auto file, file_system.Create(path));
  Status done = fill(*file);
  if (done) done = file->Sync();
  // The first error is the one to report.
  if (!done) (void)file_system.Remove(path);
  return done;
}

}  // namespace

Status DurableCreate(FileSystem& file_system, const std::string& path, RenameMode mode,
                     const std::function<Status(File&)>& fill, bool* in_place) {
  bool ignored = false;
  bool& there = in_place != nullptr ? *in_place : ignored;
  there = false;
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  ADDCOW_TRY(FillAndSync(file_system, temporary, fill));
  if (Status renamed = file_system.Rename(temporary, path, mode); !renamed) {
    (void)file_system.Remove(temporary);
    return renamed;
  }
  there = true;
  Status synced = file_system.SyncDirectory(DirectoryOf(path));
  // What replaced an older file cannot be taken back; what is new can.
  if (!synced && mode == RenameMode::kKeepExisting) there = !file_system.Remove(path);
  return synced;
}

}  // namespace addcow
