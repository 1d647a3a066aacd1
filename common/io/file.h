// SPDX-License-Identifier: LGPL-2.1-or-later
//
// File: the only way from this project to the bytes of a file, and the seam
// at which tests inject faults, crashes and schedules.
//
// Its functions finish what a system call (file_calls.h) left short, retry what a
// signal interrupted, and turn an errno into an Error that names the file; so no
// caller can forget to.
//
// Threads: every function may be called from any number of threads at once.
// Overlapping reads and writes give, byte by byte, an old or a new value.
//
// Durability: a write, punch or zero is durable only after a SyncData or Sync
// that began after it returned has succeeded. Until then a crash may keep it,
// lose it, or keep any of its 512-byte sectors, in any order among others, of this
// and of other files. A sync that fails is final: no later one proves anything of
// earlier writes, which the kernel may have dropped.
//
// The system tells each File once that data was lost on its way to the disk, in
// whichever call comes first: mostly a sync, but a durable write as well and on
// NFS even a plain one. So a sync proves something only through a File that
// nothing else is done with (Reopen).

#ifndef ADDCOW_COMMON_IO_FILE_H
#define ADDCOW_COMMON_IO_FILE_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/base/error.h"
#include "common/io/file_calls.h"

namespace addcow {

class File : public FileCalls {
 public:
  explicit File(std::string name) : name_(std::move(name)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // The path it was opened by, for messages.
  const std::string& name() const { return name_; }

  // Reads until `buffer` is full or the file ends. Returns the bytes read;
  // fewer than asked for only at the end of the file.
  Result<size_t> Read(std::span<std::byte> buffer, uint64_t offset);

  // Reads all of `buffer`, or fails with EIO where the file ends before.
  Status ReadExactly(std::span<std::byte> buffer, uint64_t offset);

  // Writes all of `data`. On failure any part of it may have been written.
  Status Write(std::span<const std::byte> data, uint64_t offset);

  // As Write, and durable when it returns: the same as a Write and a SyncData
  // that covers no more than that. Only where FileInfo::well_known; through one
  // File one at a time, since of two one alone would be told of a failure.
  // EOPNOTSUPP: cannot be done here; nothing was written. ENOSPC and the like
  // may come from either half; after any other error nothing is known of what is
  // on the disk, as after a failed sync.
  Status WriteDurably(std::span<const std::byte> data, uint64_t offset);

  // Makes the range the same as in `source`, at the same place there, by sharing
  // its storage. Both ends must be multiples of kCloneAlignment. Durability as
  // for a write. Any error: nothing was changed; EOPNOTSUPP where these two
  // files never can.
  static constexpr uint64_t kCloneAlignment = 4096;
  Status CloneFrom(const File& source, uint64_t offset, uint64_t length);

  // Makes the range read as zeroes and gives its storage back. Never changes
  // the size. EOPNOTSUPP or EINVAL: cannot be done here; nothing was changed.
  Status PunchHole(uint64_t offset, uint64_t length);

  // Makes the range read as zeroes and keeps or takes storage for it. Never
  // changes the size. Errors as for PunchHole.
  Status ZeroRange(uint64_t offset, uint64_t length);

  // Sees to it that the range has storage, so that writing to it later needs no
  // more room. What it reads as stays, and so does the size. ENOSPC, EDQUOT, and
  // EFBIG (the process's limit of file sizes too): not all of it could be had.
  // EOPNOTSUPP or EINVAL: cannot be done here; nothing was changed.
  Status Reserve(uint64_t offset, uint64_t length);

  // The run at `offset`, no longer than `length`, which is 1 or more; storage
  // that was reserved and never written counts. EOPNOTSUPP: cannot be told.
  Result<StorageRun> StorageAt(uint64_t offset, uint64_t length);

  // fdatasync(2), fsync(2). See "Durability" above.
  Status SyncData();
  Status Sync();

  // Has the system begin to write the range out, where it can, so that a sync which
  // follows has less to do. Makes nothing durable. An error is as one of a sync: what
  // was written may be lost, and no later sync need say so.
  Status StartWriteback(uint64_t offset, uint64_t length);

  Result<uint64_t> Size();
  Status Truncate(uint64_t size);

  // The first byte at or after `offset` that has storage, or is in a hole;
  // the end of the file counts as a hole. FindData gives the file's size
  // when only holes follow, or `offset` where the file ends before it. Where
  // the file system cannot tell, all is data. What a sync has not covered yet may
  // be told as a hole where not FileInfo::well_known (holes.h).
  Result<uint64_t> FindData(uint64_t offset);
  Result<uint64_t> FindHole(uint64_t offset);

  // Asks the system to read the range into its cache. Only advice.
  Status Prefetch(uint64_t offset, uint64_t length);
  Result<FileInfo> Info();

  // Its access control list, if it has one, and its other extended attributes, as far as they
  // can be read and are not the kernel's own (what its contents hash to).
  Result<Attributes> ReadAttributes();

  // The same file once more, opened in the same way, by no name that could lead
  // elsewhere by now. It has no lock and shares none. Any error: it has to be
  // opened by its name.
  Result<std::unique_ptr<File>> Reopen();

  // Tells other programs that the file is being read, or written as well, and
  // that nobody else may write to it meanwhile: any number of readers, or one
  // writer. Held until this object goes, by the children of a fork too; called
  // again it changes the kind. Never waits: EBUSY where another user of the
  // file stands against it, also one in this process. Programs that do not
  // ask are not stopped (file_lock.h says which ones do). Where it cannot be
  // locked at all, the error's operation is kLockOperation.
  static constexpr const char* kLockOperation = "lock";
  Status Lock(LockKind kind);
  // What it fails with then; also for a lock that is another program's to take.
  static Error InUse(const std::string& name, LockKind kind);

  // What other users of the file hold locks for; takes none. An error: nobody
  // can tell. A user that does not lock is not seen.
  Result<FileUse> UseByOthers();

 private:
  friend class ForwardingFile;
  virtual const File& Innermost() const { return *this; }

  template <typename Call>
  Status WriteAll(std::span<const std::byte> data, uint64_t offset, const char* operation,
                  Call call);
  Result<uint64_t> SizeFrom(uint64_t offset);
  Error Failure(int code, std::string_view operation) const;
  Error Failure(int code, std::string_view operation, uint64_t offset, uint64_t count) const;

  const std::string name_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_FILE_H
