// SPDX-License-Identifier: LGPL-2.1-or-later
//
// PosixFile and PosixFileSystem: the system calls.

#include "common/io/posix_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>
#include <string>
#include <string_view>

#include "common/base/units.h"
#include "common/io/file_lock.h"
#include "common/io/file_system.h"

namespace addcow {

namespace {

tl::unexpected<int> LastErrno() { return tl::unexpected<int>(errno); }

SysResult<void> Check(int result) {
  if (result != 0) return LastErrno();
  return {};
}

// A larger offset would wrap to a negative off_t.
bool FitsOffset(uint64_t offset, uint64_t length) {
  return RangeFits(offset, length, kMaxOffset);
}

off_t Offset(uint64_t offset) { return static_cast<off_t>(offset); }

// For a call that there is another way for: whether that has to be taken, since
// the system does not have this one. The sandbox of a container (seccomp) says
// EPERM to a call that it does not know; where EPERM is meant, the other way
// fails as well, and says so.
bool IsNotThere(int code) { return code == ENOSYS || code == EPERM; }

// RLIMIT_FSIZE; a write that reaches it fails with EFBIG, or is short.
uint64_t SizeLimit() {
  struct rlimit limit;
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return UINT64_MAX;
  return limit.rlim_cur;
}

}  // namespace

SysResult<size_t> PosixFile::DoRead(std::span<std::byte> buffer, uint64_t offset) {
  if (!FitsOffset(offset, buffer.size())) return tl::unexpected<int>(EINVAL);
  const ssize_t count = ::pread(fd_.get(), buffer.data(), buffer.size(), Offset(offset));
  if (count < 0) return LastErrno();
  return static_cast<size_t>(count);
}

SysResult<size_t> PosixFile::DoWrite(std::span<const std::byte> data, uint64_t offset) {
  if (!FitsOffset(offset, data.size())) return tl::unexpected<int>(EFBIG);
  const ssize_t count = ::pwrite(fd_.get(), data.data(), data.size(), Offset(offset));
  if (count < 0) return LastErrno();
  return static_cast<size_t>(count);
}

SysResult<size_t> PosixFile::DoWriteDurably(std::span<const std::byte> data, uint64_t offset) {
  if (!FitsOffset(offset, data.size())) return tl::unexpected<int>(EFBIG);
  const iovec part{const_cast<std::byte*>(data.data()), data.size()};
  const ssize_t count = ::pwritev2(fd_.get(), &part, 1, Offset(offset), RWF_DSYNC);
  if (count >= 0) return static_cast<size_t>(count);
  if (IsNotThere(errno)) return tl::unexpected<int>(EOPNOTSUPP);
  return LastErrno();
}

SysResult<void> PosixFile::DoCloneFrom(const File& source, uint64_t offset, uint64_t length) {
  const auto* from = dynamic_cast<const PosixFile*>(&source);
  if (from == nullptr) return tl::unexpected<int>(EOPNOTSUPP);
  file_clone_range range = {};
  range.src_fd = from->fd_.get();
  range.src_offset = range.dest_offset = offset;
  range.src_length = length;
  auto done = Check(::ioctl(fd_.get(), FICLONERANGE, &range));
  // Other words for "never": two file systems, a device, an old kernel.
  if (!done && (done.error() == EXDEV || done.error() == ENOTTY || done.error() == EISDIR ||
                done.error() == EBADF || IsNotThere(done.error())))
    return tl::unexpected<int>(EOPNOTSUPP);
  return done;
}

SysResult<void> PosixFile::Fallocate(int mode, uint64_t offset, uint64_t length) {
  if (!FitsOffset(offset, length)) return tl::unexpected<int>(EFBIG);
  auto done = Check(::fallocate(fd_.get(), mode, Offset(offset), Offset(length)));
  // Some file systems and devices have other words for "not supported".
  if (!done && (done.error() == ENODEV || done.error() == ENOTTY || IsNotThere(done.error())))
    return tl::unexpected<int>(EOPNOTSUPP);
  return done;
}

SysResult<void> PosixFile::DoPunchHole(uint64_t offset, uint64_t length) {
  return Fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

SysResult<void> PosixFile::DoZeroRange(uint64_t offset, uint64_t length) {
  return Fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
}

// The limit of file sizes is looked at here: a file may have storage past it, but
// no write gets there.
SysResult<void> PosixFile::DoReserve(uint64_t offset, uint64_t length) {
  if (!RangeFits(offset, length, SizeLimit())) return tl::unexpected<int>(EFBIG);
  return Fallocate(FALLOC_FL_KEEP_SIZE, offset, length);
}

// SEEK_DATA would not do: it takes storage that was never written for a hole.
SysResult<StorageRun> PosixFile::DoStorageAt(uint64_t offset, uint64_t length) {
  // The room for one extent is behind the request, which ends in an array.
  alignas(fiemap) std::array<std::byte, sizeof(fiemap) + sizeof(fiemap_extent)> bytes = {};
  auto* const request = new (bytes.data()) fiemap{};
  request->fm_start = offset;
  request->fm_length = length;
  request->fm_extent_count = 1;
  if (::ioctl(fd_.get(), FS_IOC_FIEMAP, request) != 0) {
    const int code = errno;
    // Other words for "cannot be told": a device, a file system without it.
    const bool never = code == ENOTTY || code == EINVAL || code == EBADR || IsNotThere(code);
    return tl::unexpected<int>(never ? EOPNOTSUPP : code);
  }
  if (request->fm_mapped_extents == 0) return StorageRun{false, length};
  fiemap_extent extent;
  std::memcpy(&extent, bytes.data() + sizeof(fiemap), sizeof extent);
  if (extent.fe_logical > offset)
    return StorageRun{false, std::min<uint64_t>(extent.fe_logical - offset, length)};
  const uint64_t end = extent.fe_logical + extent.fe_length;
  if (end <= offset) return tl::unexpected<int>(EOPNOTSUPP);  // not what was asked for
  return StorageRun{true, std::min<uint64_t>(end - offset, length)};
}

SysResult<void> PosixFile::DoSyncData() { return Check(::fdatasync(fd_.get())); }

SysResult<void> PosixFile::DoSync() { return Check(::fsync(fd_.get())); }

SysResult<void> PosixFile::DoStartWriteback(uint64_t offset, uint64_t length) {
  return Check(
      ::sync_file_range(fd_.get(), Offset(offset), Offset(length), SYNC_FILE_RANGE_WRITE));
}

SysResult<uint64_t> PosixFile::Seek(int whence, uint64_t offset) {
  const off_t found = ::lseek(fd_.get(), Offset(offset), whence);
  if (found < 0) return LastErrno();
  return static_cast<uint64_t>(found);
}

// SEEK_END rather than fstat: a block device has no st_size.
SysResult<uint64_t> PosixFile::DoSize() { return Seek(SEEK_END, 0); }

SysResult<void> PosixFile::DoTruncate(uint64_t size) {
  if (size > kMaxOffset) return tl::unexpected<int>(EFBIG);
  return Check(::ftruncate(fd_.get(), Offset(size)));
}

SysResult<uint64_t> PosixFile::DoSeekData(uint64_t offset) { return Seek(SEEK_DATA, offset); }

SysResult<uint64_t> PosixFile::DoSeekHole(uint64_t offset) { return Seek(SEEK_HOLE, offset); }

SysResult<void> PosixFile::DoPrefetch(uint64_t offset, uint64_t length) {
  // posix_fadvise returns its errno.
  const int code =
      ::posix_fadvise(fd_.get(), Offset(offset), Offset(length), POSIX_FADV_WILLNEED);
  if (code != 0) return tl::unexpected<int>(code);
  return {};
}

namespace {

FileInfo InfoFrom(const struct stat& st) {
  FileInfo info;
  info.is_block_device = S_ISBLK(st.st_mode);
  info.device = info.is_block_device ? st.st_rdev : st.st_dev;
  info.inode = info.is_block_device ? 0 : st.st_ino;
  info.allocated_bytes =
      info.is_block_device ? 0 : static_cast<uint64_t>(st.st_blocks) * kSectorSize;
  info.names = st.st_nlink;
  return info;
}

std::string OwnDescriptor(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

}  // namespace

SysResult<FileInfo> PosixFile::DoInfo() {
  struct stat st;
  if (::fstat(fd_.get(), &st) != 0) return LastErrno();
  FileInfo info = InfoFrom(st);
  info.size_limit = info.is_block_device ? UINT64_MAX : SizeLimit();
  struct statvfs space;
  // No blocks at all: a file system (FUSE) that does not count them.
  if (!info.is_block_device && ::fstatvfs(fd_.get(), &space) == 0 && space.f_blocks > 0)
    info.free_bytes = uint64_t{space.f_bavail} * space.f_frsize;
  info.permissions = st.st_mode & 0777;
  info.owner = st.st_uid;
  info.group = st.st_gid;
  info.modified = {st.st_mtim.tv_sec, static_cast<uint32_t>(st.st_mtim.tv_nsec)};
  info.well_known = info.is_block_device || IsWellKnown();
  info.hidden = !info.well_known && IsHidden();
  return info;
}

// ext2 and ext3 have the number of ext4, and go by the same code.
bool PosixFile::IsWellKnown() {
  if (kind_.load(std::memory_order_relaxed) == Kind::kNotAsked) {
    constexpr std::array<uint32_t, 4> kWellKnown = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,
                                                    BTRFS_SUPER_MAGIC, TMPFS_MAGIC};
    struct statfs st;
    const bool known =
        ::fstatfs(fd_.get(), &st) == 0 &&
        std::ranges::find(kWellKnown, static_cast<uint32_t>(st.f_type)) != kWellKnown.end();
    kind_.store(known ? Kind::kWellKnown : Kind::kOther, std::memory_order_relaxed);
  }
  return kind_.load(std::memory_order_relaxed) == Kind::kWellKnown;
}

// By the names that the kernel's NFS and libfuse give.
bool PosixFile::IsHidden() const {
  std::array<char, PATH_MAX> path;
  const ssize_t length = ::readlink(OwnDescriptor(fd_.get()).c_str(), path.data(), path.size());
  if (length <= 0) return false;
  std::string_view name(path.data(), static_cast<size_t>(length));
  name.remove_prefix(name.rfind('/') + 1);
  return name.starts_with(".nfs0") || name.starts_with(".fuse_hidden");
}

// The link of /proc leads to the file itself, whatever has become of its names.
SysResult<std::unique_ptr<File>> PosixFile::DoReopen() {
  const int flags = ::fcntl(fd_.get(), F_GETFL);
  if (flags < 0) return LastErrno();
  UniqueFd fd(::open(OwnDescriptor(fd_.get()).c_str(), (flags & O_ACCMODE) | O_CLOEXEC));
  if (!fd.valid()) return LastErrno();
  struct stat mine, other;
  if (::fstat(fd_.get(), &mine) != 0 || ::fstat(fd.get(), &other) != 0) return LastErrno();
  // Something that only looks like /proc could be there.
  if (!InfoFrom(mine).SameFile(InfoFrom(other))) return tl::unexpected<int>(ESTALE);
  return std::make_unique<PosixFile>(name(), std::move(fd));
}

SysResult<void> PosixFile::DoLock(LockKind kind) { return LockDescriptor(fd_.get(), kind); }

SysResult<FileUse> PosixFile::DoUseByOthers() { return UseOfDescriptor(fd_.get()); }

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
        return CreateSame(path, rights.model);
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

  Result<std::string> RealPath(const std::string& path) override {
    std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                     &std::free);
    if (real == nullptr) return Fail(Error::System(errno, "open", path.empty() ? "''" : path));
    return std::string(real.get());
  }

 private:
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

  // The group that a new file gets is known when it is there. Not narrowed then:
  // who opened it before would keep it.
  Result<std::unique_ptr<File>> CreateWithin(const std::string& path, const FileInfo& model) {
    ADDCOW_TRY_ASSIGN(auto file, CreateWith(path, RightsWithin(model, true)));
    const mode_t narrow = RightsWithin(model, false);
    const auto info = file->Info();
    if (info && (info->group == model.group || (info->permissions & ~narrow & 077) == 0))
      return file;
    ADDCOW_TRY(Remove(path));
    if (!info) return Fail(info.error());
    return CreateWith(path, narrow);
  }

  // Nobody else may open it before it has its owner.
  Result<std::unique_ptr<File>> CreateSame(const std::string& path, const FileInfo& model) {
    ADDCOW_TRY_ASSIGN(UniqueFd fd, OpenFd(path, O_RDWR | O_CREAT | O_EXCL, 0600));
    const auto fail = [&](int code) {
      (void)Remove(path);
      return Fail(Error::Because(code, path,
                                 "cannot be given the owner, group and permissions of the file "
                                 "that it is to replace: " +
                                     ErrnoText(code)));
    };
    struct stat st;
    if (::fstat(fd.get(), &st) != 0) return fail(errno);
    const bool same_owner = st.st_uid == model.owner && st.st_gid == model.group;
    if (!same_owner && ::fchown(fd.get(), model.owner, model.group) != 0) return fail(errno);
    if ((st.st_mode & 0777) != model.permissions && ::fchmod(fd.get(), model.permissions) != 0)
      return fail(errno);
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

  // A read-only device is opened for writing all the same; only writes would fail.
  static Status CheckWritable(const UniqueFd& fd, const std::string& path,
                              const struct stat& seen) {
    int read_only = 0;
    if (S_ISBLK(seen.st_mode) && ::ioctl(fd.get(), BLKROGET, &read_only) == 0 && read_only != 0)
      return Fail(Error::System(EROFS, "open", path));
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
