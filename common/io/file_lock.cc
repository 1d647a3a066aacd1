// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See file_lock.h.

#include "common/io/file_lock.h"

#include <fcntl.h>

#include <array>
#include <cerrno>

namespace addcow {

namespace {

// The rights of QEMU's block layer that matter between programs.
constexpr off_t kConsistentRead = 0;
constexpr off_t kWrite = 1;
constexpr off_t kResize = 3;

constexpr off_t kHeldBase = 100;
constexpr off_t kRefusedBase = 200;

// Neither readers nor writers bear that another one changes the file.
constexpr std::array kRefused = {kWrite, kResize};

struct flock ByteLock(short type, off_t byte) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

// `type` is F_RDLCK or F_UNLCK.
SysResult<void> SetByte(int fd, short type, off_t byte) {
  struct flock lock = ByteLock(type, byte);
  while (::fcntl(fd, F_OFD_SETLK, &lock) == -1) {
    // Somebody's exclusive lock; POSIX lets a system say so with either.
    if (errno == EACCES) return tl::unexpected<int>(EAGAIN);
    if (errno != EINTR) return tl::unexpected<int>(errno);
  }
  return {};
}

// EAGAIN where another open file description has locked the byte.
SysResult<void> CheckByte(int fd, off_t byte) {
  struct flock lock = ByteLock(F_WRLCK, byte);
  if (::fcntl(fd, F_OFD_GETLK, &lock) == -1) return tl::unexpected<int>(errno);
  if (lock.l_type != F_UNLCK) return tl::unexpected<int>(EAGAIN);
  return {};
}

}  // namespace

SysResult<void> LockDescriptor(int fd, LockKind kind) {
  const bool writes = kind == LockKind::kWrite;
  if (auto set = SetByte(fd, F_RDLCK, kHeldBase + kConsistentRead); !set) return set;
  if (auto set = SetByte(fd, writes ? F_RDLCK : F_UNLCK, kHeldBase + kWrite); !set) return set;
  for (const off_t right : kRefused)
    if (auto set = SetByte(fd, F_RDLCK, kRefusedBase + right); !set) return set;

  if (auto free = CheckByte(fd, kRefusedBase + kConsistentRead); !free) return free;
  if (writes)
    if (auto free = CheckByte(fd, kRefusedBase + kWrite); !free) return free;
  for (const off_t right : kRefused)
    if (auto free = CheckByte(fd, kHeldBase + right); !free) return free;
  return {};
}

SysResult<FileUse> UseOfDescriptor(int fd) {
  const auto taken = [&](off_t byte) -> SysResult<bool> {
    if (auto free = CheckByte(fd, byte); free)
      return false;
    else if (free.error() != EAGAIN)
      return tl::unexpected<int>(free.error());
    return true;
  };
  // Who changes its size writes to it. A lock on anything else of the file
  // that keeps writers out is that of a reader.
  for (const off_t right : kRefused) {
    const auto written = taken(kHeldBase + right);
    if (!written) return tl::unexpected<int>(written.error());
    if (*written) return FileUse::kWrite;
  }
  for (const off_t byte : {kHeldBase + kConsistentRead, kRefusedBase + kWrite}) {
    const auto read = taken(byte);
    if (!read) return tl::unexpected<int>(read.error());
    if (*read) return FileUse::kRead;
  }
  return FileUse::kNone;
}

}  // namespace addcow
