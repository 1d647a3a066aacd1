// SPDX-License-Identifier: LGPL-2.1-or-later
//
// PosixFileSystem: the system calls on names. What is opened is a PosixFile.

#include "common/io/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <new>
#include <string>
#include <string_view>

#include "common/io/posix_attributes.h"
#include "common/io/posix_file.h"

namespace addcow {

namespace {

class PosixFileSystemImpl final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override {
    return OpenChecked(path, mode, [&](int flags) { return OpenFd(path, flags, 0); });
  }

  Result<std::unique_ptr<File>> OpenBeneath(const std::string& directory,
                                            const std::string& name, OpenMode mode) override {
    ADDCOW_TRY_ASSIGN(const UniqueFd root, OpenFd(directory, O_PATH | O_DIRECTORY, 0));
    const std::string path = ResolveName(directory, name);
    return OpenChecked(path, mode, [&](int flags) {
      struct open_how how = {};
      how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
      how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
      // EAGAIN: something was renamed meanwhile, so it could not be sure.
      auto fd = Retry(path, {EINTR, EAGAIN}, [&] {
        return static_cast<int>(
            ::syscall(SYS_openat2, root.get(), name.c_str(), &how, sizeof how));
      });
      // Nobody is forbidden to look at a file so; the call itself is.
      if (!fd && (flags & O_PATH) != 0 && IsNotThere(fd.error().code()))
        return Result<UniqueFd>(Fail(Error::System(ENOSYS, "openat2", path)));
      return fd;
    });
  }

  Result<std::unique_ptr<File>> Create(const std::string& path,
                                       const NewRights& rights) override {
    switch (rights.kind) {
      case NewRights::Kind::kUsual:
        return CreateWith(path, 0666);
      case NewRights::Kind::kWithin:
        return CreateWithin(path, rights.model);
      case NewRights::Kind::kSame:
        return CreateSame(path, rights);
    }
    return Fail(Error::System(EINVAL, "open", path));
  }

  Status Rename(const std::string& from, const std::string& to, RenameMode mode) override {
    if (mode == RenameMode::kKeepExisting) {
      if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0)
        return {};
      if (errno != EINVAL && !IsNotThere(errno))
        return Fail(Error::System(errno, "rename", to));
      // A file system without RENAME_NOREPLACE: a second name, which never
      // replaces one, and then without the first.
      if (::link(from.c_str(), to.c_str()) == 0) return Remove(from);
      // Those without hard links have many words for it.
      if (errno == EPERM || errno == ENOSYS || errno == EOPNOTSUPP || errno == EMLINK)
        return Fail(Error::System(EOPNOTSUPP, "link", to));
      return Fail(Error::System(errno, "link", to));
    }
    if (::rename(from.c_str(), to.c_str()) != 0)
      return Fail(Error::System(errno, "rename", to));
    return {};
  }

  Status Remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return Fail(Error::System(errno, "unlink", path));
    return {};
  }

  Status SyncDirectory(const std::string& directory) override {
    auto fd = OpenFd(directory, O_RDONLY | O_DIRECTORY, 0);
    if (!fd) return Fail(std::move(fd).error());
    while (::fsync(fd->get()) != 0)
      if (errno != EINTR) return Fail(Error::System(errno, "fsync", directory));
    return {};
  }

  Result<std::vector<DirectoryEntry>> ReadDirectory(const std::string& directory) override {
    const auto failed = [&] { return Fail(Error::System(errno, "read", directory)); };
    struct Close {
      void operator()(DIR* opened) const { ::closedir(opened); }
    };
    const std::unique_ptr<DIR, Close> opened(::opendir(directory.c_str()));
    if (opened == nullptr) return failed();
    std::vector<DirectoryEntry> entries;
    for (;;) {
      errno = 0;
      const ::dirent* const entry = ::readdir(opened.get());
      if (entry == nullptr && errno != 0) return failed();
      if (entry == nullptr) return entries;
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      entries.push_back({name, KindOf(::dirfd(opened.get()), *entry)});
    }
  }

  Result<bool> Exists(const std::string& path) override {
    struct stat st;
    if (::lstat(path.c_str(), &st) == 0) return true;
    if (errno == ENOENT) return false;
    return Fail(Error::System(errno, "lstat", path));
  }

  Result<FileInfo> Identify(const std::string& path) override {
    struct stat st;
    if (::stat(path.c_str(), &st) != 0) return Fail(Error::System(errno, "stat", path));
    return InfoFrom(st);
  }

  Status CheckMayChange(const std::string& path, FileChange change) override {
    struct stat st;
    if (::stat(path.c_str(), &st) != 0) return Fail(Error::System(errno, "stat", path));
    if (change != FileChange::kWrite) ADDCOW_TRY(CheckMayReplace(path, st));
    if (change == FileChange::kReplace) return CheckMayBeSame(path, st);
    if (change == FileChange::kReplaceByNew) return {};
    ADDCOW_TRY(CheckAccess(path, W_OK));
    if (!S_ISBLK(st.st_mode)) return {};
    ADDCOW_TRY_ASSIGN(const UniqueFd fd, OpenFd(path, O_RDONLY | O_NONBLOCK, 0));
    return CheckWritable(fd, path, st);
  }

  Result<std::string> RealPath(const std::string& path) override {
    std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                     &std::free);
    if (real == nullptr) return Fail(Error::System(errno, "open", path.empty() ? "''" : path));
    return std::string(real.get());
  }

 private:
  // Not every file system says it by itself.
  static DirectoryEntry::Kind KindOf(int directory, const ::dirent& entry) {
    unsigned type = entry.d_type;
    struct stat st;
    if (type == DT_UNKNOWN && ::fstatat(directory, entry.d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
      type = IFTODT(st.st_mode);
    if (type == DT_REG) return DirectoryEntry::Kind::kFile;
    return type == DT_DIR ? DirectoryEntry::Kind::kDirectory : DirectoryEntry::Kind::kOther;
  }

  // Calls `open` until it gives a descriptor or an errno not in `again`, or it
  // has tried often enough.
  template <typename Call>
  static Result<UniqueFd> Retry(const std::string& path, std::initializer_list<int> again,
                                Call open) {
    constexpr int kTries = 1000;
    for (int tries = 1;; tries++) {
      UniqueFd fd(open());
      if (fd.valid()) return fd;
      const int code = errno;
      if (tries == kTries || std::ranges::find(again, code) == again.end())
        return Fail(Error::System(code, "open", path));
    }
  }

  static Result<UniqueFd> OpenFd(const std::string& path, int flags, mode_t mode) {
    return Retry(path, {EINTR}, [&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
  }

  static Result<std::unique_ptr<File>> CreateWith(const std::string& path, mode_t mode) {
    ADDCOW_TRY_ASSIGN(UniqueFd fd, OpenFd(path, O_RDWR | O_CREAT | O_EXCL, mode));
    return MakeFile(path, std::move(fd));
  }

  // The group that a new file gets is known when it is there, and so is the access control
  // list that its directory gives it. Not narrowed then: who opened it before would keep it.
  Result<std::unique_ptr<File>> CreateWithin(const std::string& path, const FileInfo& model) {
    ADDCOW_TRY_ASSIGN(auto file, CreateWith(path, RightsWithin(model, true)));
    const mode_t narrow = RightsWithin(model, false);
    const auto info = file->Info();
    if (info && ((info->group == model.group && !info->acl_limit) ||
                 (info->permissions & ~narrow & 077) == 0))
      return file;
    ADDCOW_TRY(Remove(path));
    if (!info) return Fail(info.error());
    return CreateWith(path, narrow);
  }

  // Nobody else may open it before it has its rights.
  Result<std::unique_ptr<File>> CreateSame(const std::string& path, const NewRights& rights) {
    ADDCOW_TRY_ASSIGN(UniqueFd fd, OpenFd(path, O_RDWR | O_CREAT | O_EXCL, 0600));
    if (const auto given = GiveRights(fd.get(), rights); !given) {
      (void)Remove(path);
      return Fail(Error::Because(given.error(), path,
                                 "cannot be given the owner, group, permissions and access "
                                 "control list of the file that it is to replace: " +
                                     ErrnoText(given.error())));
    }
    return MakeFile(path, std::move(fd));
  }

  static Result<struct stat> CheckKind(const UniqueFd& fd, const std::string& path) {
    struct stat st;
    if (::fstat(fd.get(), &st) != 0) return Fail(Error::System(errno, "fstat", path));
    if (S_ISDIR(st.st_mode)) return Fail(Error::System(EISDIR, "open", path));
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
      return Fail(Error::Because(EINVAL, path, "not a regular file or a block device"));
    return st;
  }

  // Opens what `probe`, an O_PATH descriptor, leads to. EXDEV where there is no
  // /proc, or one that is not the system's.
  static Result<UniqueFd> OpenAgain(const UniqueFd& probe, const std::string& path, int access,
                                    const struct stat& seen) {
    const std::string link = "/proc/self/fd/" + std::to_string(probe.get());
    auto fd = Retry(path, {EINTR},
                    [&] { return ::open(link.c_str(), access | O_NOCTTY | O_CLOEXEC); });
    const auto no_proc = [&] { return Fail(Error::System(EXDEV, "open", path)); };
    if (!fd) {
      switch (fd.error().code()) {
        case ENOENT:
        case ENOTDIR:
        case ELOOP:
        case EACCES:  // /proc itself, perhaps: the file's own name will tell
        case EPERM:
          return no_proc();
        default:
          return fd;
      }
    }
    struct stat st;
    if (::fstat(fd->get(), &st) != 0) return Fail(Error::System(errno, "fstat", path));
    if (st.st_dev != seen.st_dev || st.st_ino != seen.st_ino) return no_proc();
    return fd;
  }

  // In the words of an open. Also where the real user is another one than the effective.
  static Status CheckAccess(const std::string& path, int mode) {
    if (::faccessat(AT_FDCWD, path.c_str(), mode, AT_EACCESS) == 0) return {};
    return Fail(Error::System(errno, "open", path));
  }

  // What a rename over the file needs: inode(7), rename(2).
  static Status CheckMayReplace(const std::string& path, const struct stat& st) {
    if (IsMountPoint(path))
      return Fail(Error::Because(EINVAL, path,
                                 "is a mount point itself, as a single file of a container is, "
                                 "and no new file can take its place (run this where the file "
                                 "lies, or mount its directory)"));
    const std::string directory = DirectoryOf(path);
    struct stat parent;
    if (::stat(directory.c_str(), &parent) != 0)
      return Fail(Error::System(errno, "stat", directory));
    const auto cannot = [&](int code) {
      return Fail(Error::Because(
          code, path, "cannot be replaced by a new file in its directory: " + ErrnoText(code)));
    };
    if (Status may = CheckAccess(directory, W_OK | X_OK); !may)
      return cannot(may.error().code());
    const ::uid_t user = ::geteuid();
    if ((parent.st_mode & S_ISVTX) != 0 && st.st_uid != user && parent.st_uid != user &&
        !HasCapability(CAP_FOWNER))
      return cannot(EPERM);
    return {};
  }

  // What CreateSame needs: capabilities(7).
  static Status CheckMayBeSame(const std::string& path, const struct stat& st) {
    struct stat parent;
    if (::stat(DirectoryOf(path).c_str(), &parent) != 0)
      return Fail(Error::System(errno, "stat", DirectoryOf(path)));
    const ::gid_t group = (parent.st_mode & S_ISGID) != 0 ? parent.st_gid : ::getegid();
    const bool own_group =
        st.st_gid == group || st.st_gid == ::getegid() || ::group_member(st.st_gid) != 0;
    if ((st.st_uid != ::geteuid() || !own_group) && !HasCapability(CAP_CHOWN))
      return Fail(Error::Because(EPERM, path,
                                 "belongs to another user or group, which a new file in its "
                                 "place could not be given: " +
                                     ErrnoText(EPERM)));
    const auto acl = AclAt(path);
    if (acl && !HasForeignNames(*acl)) return {};
    return Fail(Error::Because(
        acl ? EPERM : acl.error(), path,
        acl ? "has an access control list with users or groups that are not known here (a user "
              "name space), which a new file in its place could not be given"
            : "has an access control list that cannot be read: " + ErrnoText(acl.error())));
  }

  // Linux has told it since 5.8; before, the rename says so.
  static bool IsMountPoint(const std::string& path) {
    struct statx st;
    return ::statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC, 0, &st) == 0 &&
           (st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0 &&
           (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
  }

  static bool HasCapability(unsigned number) {
    struct __user_cap_header_struct header = {};
    header.version = _LINUX_CAPABILITY_VERSION_3;
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
    return ::syscall(SYS_capget, &header, data) == 0 &&
           (data[CAP_TO_INDEX(number)].effective & CAP_TO_MASK(number)) != 0;
  }

  // A read-only device is opened for writing all the same; only writes would fail.
  static Status CheckWritable(const UniqueFd& fd, const std::string& path,
                              const struct stat& seen) {
    int read_only = 0;
    if (S_ISBLK(seen.st_mode) && ::ioctl(fd.get(), BLKROGET, &read_only) == 0 && read_only != 0)
      return Fail(Error::Because(EROFS, path, "the device is read only"));
    return {};
  }

  // `open(flags)` opens the file at `path`.
  template <typename Call>
  static Result<std::unique_ptr<File>> OpenChecked(const std::string& path, OpenMode mode,
                                                   Call open) {
    // What it is is looked at first: opening a device can set it in motion.
    ADDCOW_TRY_ASSIGN(const UniqueFd probe, open(O_PATH));
    ADDCOW_TRY_ASSIGN(struct stat seen, CheckKind(probe, path));
    // By now another file may be there under this name. So it is the one that
    // was looked at that is opened, without O_NONBLOCK: that would give EAGAIN
    // where somebody has a lease on the file (Samba, an NFS server's delegation),
    // who has to be waited for.
    const int access = mode == OpenMode::kReadOnly ? O_RDONLY : O_RDWR;
    auto fd = OpenAgain(probe, path, access, seen);
    if (!fd && fd.error().code() == EXDEV) {
      // By its name, then. O_NONBLOCK: a FIFO or a terminal that is there now must
      // be refused, not waited for.
      fd = open(access | O_NONBLOCK | O_NOCTTY);
      if (fd) {
        ADDCOW_TRY_ASSIGN(seen, CheckKind(*fd, path));
      }
    }
    if (!fd) return Fail(std::move(fd).error());
    if (mode == OpenMode::kReadWrite) ADDCOW_TRY(CheckWritable(*fd, path, seen));
    return MakeFile(path, std::move(*fd));
  }

  static std::unique_ptr<File> MakeFile(const std::string& path, UniqueFd fd) {
    return std::make_unique<PosixFile>(path, std::move(fd));
  }
};

}  // namespace

FileSystem& PosixFileSystem() {
  static PosixFileSystemImpl file_system;
  return file_system;
}

}  // namespace addcow
