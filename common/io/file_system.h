// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FileSystem: names, and what is done to them. Files are opened here and then
// used through File. The second half of the seam at which tests inject
// faults and crashes.
//
// Threads: every function may be called from any number of threads.
// Durability: a created, renamed or removed name is durable only after a
// SyncDirectory of its directory.

#ifndef ADDCOW_COMMON_IO_FILE_SYSTEM_H
#define ADDCOW_COMMON_IO_FILE_SYSTEM_H

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/io/file.h"

namespace addcow {

enum class OpenMode { kReadOnly, kReadWrite };
enum class RenameMode { kReplace, kKeepExisting };
// kReplace: by a new file beside it, which gets its rights (NewRights::kSame), and then its
// name. kReplaceByNew: by one with rights of its own.
enum class FileChange { kWrite, kReplace, kReplaceByNew };

// What is in a directory. A symbolic link is kOther, wherever it leads.
struct DirectoryEntry {
  enum class Kind { kFile, kDirectory, kOther };
  std::string name;
  Kind kind = Kind::kOther;
};

// Who may use a new file.
struct NewRights {
  enum class Kind {
    kUsual,   // whom the process lets (umask)
    kWithin,  // nobody who may not use the model, and whom the process lets
    // Owner, group, permissions and access control list of the model; fails where that cannot
    // be. Of its other attributes those that can be set.
    kSame,
  };
  Kind kind = Kind::kUsual;
  FileInfo model = {};
  Attributes attributes = {};  // the model's, for kSame
};

// The permissions for a file of which nobody but its owner may do more than
// with `model`. `same_group`: whether the two files have one group.
uint32_t RightsWithin(const FileInfo& model, bool same_group);

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // Opens a regular file or a block device. Any other kind of file is refused
  // without waiting for it (a FIFO has no writer yet) and without touching it.
  virtual Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) = 0;

  // The same for `name`, relative to `directory`, which has no symbolic links
  // in it. EXDEV where a link or ".." on the way leads out of the directory, or
  // a link is absolute; ELOOP where one is magic, as those of /proc are.
  virtual Result<std::unique_ptr<File>> OpenBeneath(const std::string& directory,
                                                    const std::string& name, OpenMode mode) = 0;

  // Makes a new, empty file open for reading and writing; EEXIST where the
  // name is taken.
  virtual Result<std::unique_ptr<File>> Create(const std::string& path,
                                               const NewRights& rights) = 0;
  Result<std::unique_ptr<File>> Create(const std::string& path) { return Create(path, {}); }

  // kKeepExisting: fails with EEXIST where `to` is there, and with EOPNOTSUPP
  // where the file system has no way to be sure of that.
  virtual Status Rename(const std::string& from, const std::string& to, RenameMode mode) = 0;
  virtual Status Remove(const std::string& path) = 0;
  virtual Status SyncDirectory(const std::string& directory) = 0;

  // All but "." and "..", in no order.
  virtual Result<std::vector<DirectoryEntry>> ReadDirectory(const std::string& directory) = 0;

  virtual Result<bool> Exists(const std::string& path) = 0;

  // Which file the path leads to, links followed, without opening it: by its
  // device and inode; no more of the information need be right.
  virtual Result<FileInfo> Identify(const std::string& path) = 0;

  // Whether this process may change the file at `path` so, as far as that can be told
  // without opening anything for writing: EACCES, EPERM, EROFS; to replace it also EINVAL,
  // where it is a mount point. What needs room, or what a file system refuses for reasons of
  // its own, is not known before.
  virtual Status CheckMayChange(const std::string& path, FileChange change) = 0;

  // The absolute path without symbolic links. The file must be there.
  virtual Result<std::string> RealPath(const std::string& path) = 0;
};

// The operating system's.
FileSystem& PosixFileSystem();

// Calls `open` for reading and writing; where the file may not be written
// (EACCES, EPERM, EROFS, ETXTBSY), for reading only, and then puts the reason
// into `not_writable`.
Result<std::unique_ptr<File>> OpenWritableOrReadOnly(
    const std::function<Result<std::unique_ptr<File>>(OpenMode)>& open,
    std::optional<Error>& not_writable);

// Locks a file that was opened by `path`, and sees to it that this is still the
// file there: somebody may have put another one in its place before the lock
// came. Who replaces a file that is locked so must have it locked for writing.
Status LockInPlace(FileSystem& file_system, const std::string& path, File& file, LockKind kind);

// What a lock failed with, and how to do without one where a file cannot be
// locked. `option_prefix`: what the program puts before "lock=off".
Status WithLockRemedy(Status locked, const std::string& option_prefix);

// The directory part of a path; "." where it has none.
std::string DirectoryOf(const std::string& path);

// The absolute path by which `path` is named: links on the way to its directory are followed,
// and not one that it is itself. The directory must be there.
Result<std::string> PathOfName(FileSystem& file_system, const std::string& path);

// Where `name`, found in a file in `directory`, leads: relative names start
// from `directory`, never from the working directory.
std::string ResolveName(const std::string& directory, const std::string& name);

// `name`, found in a file in `directory`, as a name relative to `root`; both
// are absolute. Nothing where it does not start out beneath `root`. What lies
// behind symbolic links on the way is not looked at (OpenBeneath does that),
// so only a ".." that comes before any other part of the name is resolved, and
// `directory` and `root` must have no links in them for that to be right.
std::optional<std::string> NameBeneath(const std::string& root, const std::string& directory,
                                       const std::string& name);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_FILE_SYSTEM_H
