// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FileCalls: the system calls on one file, each with its own loose contract: it may be
// short, may fail with EINTR, and gives an errno. File makes of them what callers want;
// a kind of file supplies them, and a test double can be as nasty as the system.

#ifndef ADDCOW_COMMON_IO_FILE_CALLS_H
#define ADDCOW_COMMON_IO_FILE_CALLS_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <tl/expected.hpp>

#include "common/io/attributes.h"
#include "common/io/file_info.h"

namespace addcow {

class File;

// What a system call gives: a value, or a positive errno.
template <typename T>
using SysResult = tl::expected<T, int>;

class FileCalls {
 public:
  virtual ~FileCalls() = default;

 protected:
  virtual SysResult<size_t> DoRead(std::span<std::byte> buffer, uint64_t offset) = 0;
  virtual SysResult<size_t> DoWrite(std::span<const std::byte> data, uint64_t offset) = 0;
  virtual SysResult<size_t> DoWriteDurably(std::span<const std::byte> data,
                                           uint64_t offset) = 0;
  // `source` is the innermost of what wraps it.
  virtual SysResult<void> DoCloneFrom(const File& source, uint64_t offset, uint64_t length) = 0;
  virtual SysResult<void> DoPunchHole(uint64_t offset, uint64_t length) = 0;
  virtual SysResult<void> DoZeroRange(uint64_t offset, uint64_t length) = 0;
  virtual SysResult<void> DoReserve(uint64_t offset, uint64_t length) = 0;
  virtual SysResult<StorageRun> DoStorageAt(uint64_t offset, uint64_t length) = 0;
  virtual SysResult<void> DoSyncData() = 0;
  virtual SysResult<void> DoSync() = 0;
  virtual SysResult<void> DoStartWriteback(uint64_t offset, uint64_t length) = 0;
  virtual SysResult<uint64_t> DoSize() = 0;
  virtual SysResult<void> DoTruncate(uint64_t size) = 0;
  // ENXIO: nothing of the kind at or after `offset`.
  virtual SysResult<uint64_t> DoSeekData(uint64_t offset) = 0;
  virtual SysResult<uint64_t> DoSeekHole(uint64_t offset) = 0;
  virtual SysResult<void> DoPrefetch(uint64_t offset, uint64_t length) = 0;
  virtual SysResult<FileInfo> DoInfo() = 0;
  virtual SysResult<Attributes> DoAttributes() = 0;
  virtual SysResult<std::unique_ptr<File>> DoReopen() = 0;
  // EAGAIN: somebody else's lock stands against it. Any other error: this
  // file cannot be locked.
  virtual SysResult<void> DoLock(LockKind kind) = 0;
  virtual SysResult<FileUse> DoUseByOthers() = 0;

  // A test double that wraps another file passes calls on to its functions.
  friend class ForwardingFile;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_FILE_CALLS_H
