// SPDX-License-Identifier: LGPL-2.1-or-later
//
// PosixFile: the system calls on what is open. Those on names are in
// posix_file_system.cc.

#include "common/io/posix_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <string>
#include <string_view>

#include "common/base/units.h"
#include "common/io/file_lock.h"
#include "common/io/posix_attributes.h"

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

// RLIMIT_FSIZE; a write that reaches it fails with EFBIG, or is short.
uint64_t SizeLimit() {
  struct rlimit limit;
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return UINT64_MAX;
  return limit.rlim_cur;
}

}  // namespace

bool IsNotThere(int code) { return code == ENOSYS || code == EPERM; }

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
  if ((info.permissions & 077) != 0) info.acl_limit = AclLimitOf(fd_.get());
  info.owner = st.st_uid;
  info.group = st.st_gid;
  info.modified = {st.st_mtim.tv_sec, static_cast<uint32_t>(st.st_mtim.tv_nsec)};
  info.well_known = info.is_block_device || IsWellKnown();
  info.hidden = !info.well_known && IsHidden();
  return info;
}

SysResult<Attributes> PosixFile::DoAttributes() { return AttributesOf(fd_.get()); }

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

}  // namespace addcow
