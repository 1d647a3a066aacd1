// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A File that is a file descriptor: one system call for each function.

#ifndef ADDCOW_COMMON_IO_POSIX_FILE_H
#define ADDCOW_COMMON_IO_POSIX_FILE_H

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "common/base/unique_fd.h"
#include "common/io/file.h"

namespace addcow {

class PosixFile final : public File {
 public:
  PosixFile(std::string name, UniqueFd fd) : File(std::move(name)), fd_(std::move(fd)) {}

 private:
  SysResult<size_t> DoRead(std::span<std::byte> buffer, uint64_t offset) override;
  SysResult<size_t> DoWrite(std::span<const std::byte> data, uint64_t offset) override;
  SysResult<size_t> DoWriteDurably(std::span<const std::byte> data, uint64_t offset) override;
  SysResult<void> DoCloneFrom(const File& source, uint64_t offset, uint64_t length) override;
  SysResult<void> DoPunchHole(uint64_t offset, uint64_t length) override;
  SysResult<void> DoZeroRange(uint64_t offset, uint64_t length) override;
  SysResult<void> DoReserve(uint64_t offset, uint64_t length) override;
  SysResult<StorageRun> DoStorageAt(uint64_t offset, uint64_t length) override;
  SysResult<void> DoSyncData() override;
  SysResult<void> DoSync() override;
  SysResult<void> DoStartWriteback(uint64_t offset, uint64_t length) override;
  SysResult<uint64_t> DoSize() override;
  SysResult<void> DoTruncate(uint64_t size) override;
  SysResult<uint64_t> DoSeekData(uint64_t offset) override;
  SysResult<uint64_t> DoSeekHole(uint64_t offset) override;
  SysResult<void> DoPrefetch(uint64_t offset, uint64_t length) override;
  SysResult<FileInfo> DoInfo() override;
  SysResult<Attributes> DoAttributes() override;
  SysResult<std::unique_ptr<File>> DoReopen() override;
  SysResult<void> DoLock(LockKind kind) override;
  SysResult<FileUse> DoUseByOthers() override;

  SysResult<void> Fallocate(int mode, uint64_t offset, uint64_t length);
  SysResult<uint64_t> Seek(int whence, uint64_t offset);
  bool IsWellKnown();
  bool IsHidden() const;

  const UniqueFd fd_;
  // Asked once: over a network it takes its time.
  enum class Kind { kNotAsked, kWellKnown, kOther };
  std::atomic<Kind> kind_ = Kind::kNotAsked;
};

// For the calls on names.

// For a call that there is another way for: whether that has to be taken, since
// the system does not have this one. The sandbox of a container (seccomp) says
// EPERM to a call that it does not know; where EPERM is meant, the other way
// fails as well, and says so.
bool IsNotThere(int code);

// Who it is; not what has to be asked of more than its inode.
FileInfo InfoFrom(const struct stat& st);

// The link of /proc that leads to what a descriptor has open.
std::string OwnDescriptor(int fd);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_POSIX_FILE_H
