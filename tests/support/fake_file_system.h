// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A file system in memory: names, directories, hard and symbolic links over
// FakeInode. The working directory is kWorkingDirectory, so that a test sees
// whether a relative name was resolved against it by mistake.
//
// How it models reality: a name leads to an inode; an open handle keeps its
// inode when the name goes; rename replaces atomically or gives EEXIST; errors
// are those of the system calls. Nothing here is ever lost: for crashes there
// is CrashDisk, for failures FaultPlan.
//
// Threads: every function may be called from any thread.

#ifndef ADDCOW_TESTS_SUPPORT_FAKE_FILE_SYSTEM_H
#define ADDCOW_TESTS_SUPPORT_FAKE_FILE_SYSTEM_H

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "common/io/file_system.h"
#include "tests/support/fake_file.h"

namespace addcow {

class FakeFileSystem final : public FileSystem {
 public:
  static constexpr const char* kWorkingDirectory = "/cwd";

  FakeFileSystem();

  Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  Result<std::unique_ptr<File>> OpenBeneath(const std::string& directory,
                                            const std::string& name, OpenMode mode) override;
  Result<std::unique_ptr<File>> Create(const std::string& path,
                                       const NewRights& rights) override;
  using FileSystem::Create;
  Status Rename(const std::string& from, const std::string& to, RenameMode mode) override;
  Status Remove(const std::string& path) override;
  Status SyncDirectory(const std::string& directory) override;
  Result<std::vector<DirectoryEntry>> ReadDirectory(const std::string& directory) override;
  Result<bool> Exists(const std::string& path) override;
  Result<FileInfo> Identify(const std::string& path) override;
  Status CheckMayChange(const std::string& path, FileChange change) override;
  Result<std::string> RealPath(const std::string& path) override;

  // For tests. Put and MakeDirectory make the directories above as well.
  // Put replaces what was there and returns the new inode, all hole.
  std::shared_ptr<FakeInode> Put(const std::string& path, uint64_t size = 0);
  std::shared_ptr<FakeInode> Put(const std::string& path, std::span<const std::byte> bytes);
  void MakeDirectory(const std::string& path);
  void PutName(const std::string& path, std::shared_ptr<FakeInode> inode);  // a hard link
  void PutSymbolicLink(const std::string& path, const std::string& target);
  // From now on opening `path` for writing fails with `code`, for example EACCES; where it is
  // a directory, making names in it.
  void ForbidWriting(const std::string& path, int code);
  // From now on a rename that is not to replace fails with EOPNOTSUPP, as on exFAT.
  void ForbidKeepExisting();
  // From now on nothing can take the place of `path`. `told`: CheckMayChange knows it.
  void MakeMountPoint(const std::string& path, bool told = true);
  // From now on no file can be given to another user than 0. `told` as above.
  void ForbidGivingAway(bool told = true);
  // Null where there is no such file.
  std::shared_ptr<FakeInode> Find(const std::string& path) const;
  std::vector<std::string> List() const;  // all names of files, in order
  int64_t open_files() const { return open_files_.use_count() - 1; }
  // Empty where both have the same names with the same bytes, else what differs.
  std::string DifferenceFrom(const FakeFileSystem& other) const;
  // A file system with the same names, on clones of the inodes.
  std::unique_ptr<FakeFileSystem> Clone() const;

 private:
  // Absolute, without "." and "..", symbolic links followed also at the end.
  std::string Absolute(const std::string& path, int depth = 0) const ADDCOW_REQUIRES(mutex_);
  Status CheckParent(const std::string& absolute, const char* operation,
                     const std::string& path) const ADDCOW_REQUIRES(mutex_);

  // Every open file has a copy: the count of copies is theirs.
  const std::shared_ptr<int> open_files_ = std::make_shared<int>();

  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<FakeInode>> files_ ADDCOW_GUARDED_BY(mutex_);
  std::map<std::string, std::string> links_ ADDCOW_GUARDED_BY(mutex_);
  std::set<std::string> directories_ ADDCOW_GUARDED_BY(mutex_);
  std::map<std::string, int> not_writable_ ADDCOW_GUARDED_BY(mutex_);
  bool can_keep_existing_ ADDCOW_GUARDED_BY(mutex_) = true;
  std::map<std::string, bool> mount_points_ ADDCOW_GUARDED_BY(mutex_);  // told or not
  bool can_give_away_ ADDCOW_GUARDED_BY(mutex_) = true;
  bool tells_of_giving_ ADDCOW_GUARDED_BY(mutex_) = true;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_FAKE_FILE_SYSTEM_H
