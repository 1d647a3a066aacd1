// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A regular file in memory. FakeInode is the file itself, FakeFile one open
// handle on it; several handles and names may share an inode.
//
// How it models reality: storage comes in blocks of 4096 bytes, each of which
// is a hole, unwritten (storage without data: what a zeroed range leaves) or
// data. SeekData and SeekHole report at that granularity, and unwritten
// blocks as holes, as ext4 and XFS do. Punching frees whole blocks and zeroes
// the rest. What a file system may lack can be switched off (Abilities), and
// its errors are those of the system calls. Locks are by handle, as those of
// open file descriptions are; and so are reports that data was lost on its way to
// the disk (Lose), which each handle gives once, in whichever call comes first.
//
// Threads: every function of both may be called from any thread. Calls on one
// inode happen one after the other.
//
// Copies are cheap: Clone shares the blocks until one side changes them.

#ifndef ADDCOW_TESTS_SUPPORT_FAKE_FILE_H
#define ADDCOW_TESTS_SUPPORT_FAKE_FILE_H

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/io/file.h"

namespace addcow {

class FakeInode {
 public:
  static constexpr uint64_t kBlockSize = 4096;

  struct Abilities {
    bool punch_hole = true;       // else EOPNOTSUPP
    bool zero_range = true;       // else EOPNOTSUPP
    bool seek = true;             // else EINVAL
    uint64_t zero_alignment = 1;  // punches and zero ranges off it: EINVAL
    bool is_block_device = false;
    bool lock = true;           // else ENOLCK
    bool write_durably = true;  // else EOPNOTSUPP
    bool clone = false;         // else EOPNOTSUPP; off, as most file systems are
    bool reserve = true;        // else EOPNOTSUPP
    bool storage_at = true;     // else EOPNOTSUPP
    // ENOSPC where the file would have more blocks than that, and how many of
    // them are left is told.
    uint64_t most_blocks = UINT64_MAX;
    uint64_t size_limit = UINT64_MAX;  // EFBIG: writing at or past it
    bool well_known = true;            // FileInfo's
    // Holes are told without what no sync has covered, as by FUSE with a
    // write-back cache.
    bool seek_knows_unsynced = true;
    // Plain writes too are told that data was lost, as on NFS.
    bool writes_tell_losses = false;
    bool counts_names = true;  // else FileInfo::names is 0
  };

  // Inode numbers are unique in the process.
  FakeInode();

  SysResult<size_t> Read(std::span<std::byte> buffer, uint64_t offset) const;
  SysResult<size_t> Write(std::span<const std::byte> data, uint64_t offset);
  SysResult<size_t> WriteDurably(std::span<const std::byte> data, uint64_t offset);
  SysResult<void> CloneFrom(const FakeInode& source, uint64_t offset, uint64_t length);
  SysResult<void> PunchHole(uint64_t offset, uint64_t length);
  SysResult<void> ZeroRange(uint64_t offset, uint64_t length);
  SysResult<void> Reserve(uint64_t offset, uint64_t length);
  SysResult<StorageRun> StorageAt(uint64_t offset, uint64_t length) const;
  SysResult<uint64_t> Size() const;
  SysResult<void> Truncate(uint64_t size);
  SysResult<uint64_t> SeekData(uint64_t offset) const;
  SysResult<uint64_t> SeekHole(uint64_t offset) const;
  SysResult<FileInfo> Info() const;
  // `holder` is any handle's address.
  SysResult<void> Lock(const void* holder, LockKind kind);
  SysResult<FileUse> UseByOthers(const void* holder) const;
  void Unlock(const void* holder);
  // All that was written counts for Seek from here on.
  void Synced();

  // Data was lost on its way to the disk: each handle that is open is told once.
  void Lose(int error);
  // How often that was; the errno of the last; whether plain writes are told.
  uint64_t losses() const;
  int last_loss() const;
  bool writes_tell_losses() const;

  // Names, which a FakeFileSystem gives and takes.
  void AddName();
  void RemoveName();

  // For tests.
  uint64_t number() const { return number_; }
  void SetAbilities(const Abilities& abilities);
  // Nothing else changes these.
  void SetRights(uint32_t permissions, uint32_t owner, uint32_t group);
  void SetAttributes(const Attributes& attributes);
  Attributes GetAttributes() const;
  void SetModified(const FileTime& time);
  uint64_t size() const;
  std::vector<std::byte> Bytes(uint64_t offset, uint64_t length) const;  // zeroes past the end
  std::shared_ptr<FakeInode> Clone() const;  // same number, same abilities, no name
  // Whether both have the same bytes, wherever they are holes. Blocks that clones
  // still share need not be looked at.
  bool SameBytes(const FakeInode& other) const;

 private:
  using Block = std::array<std::byte, kBlockSize>;
  using BlockMap = std::map<uint64_t, std::shared_ptr<Block>>;
  enum class Kind { kHole, kUnwritten, kData };

  explicit FakeInode(uint64_t number) : number_(number) {}

  std::pair<uint64_t, BlockMap> SizeAndBlocks() const;
  Kind KindOf(uint64_t block) const ADDCOW_REQUIRES(mutex_);
  bool HasRoomFor(uint64_t offset, uint64_t length) const ADDCOW_REQUIRES(mutex_);
  Block& Writable(uint64_t block) ADDCOW_REQUIRES(mutex_);
  void CopyIn(const std::byte* data, uint64_t offset, uint64_t length) ADDCOW_REQUIRES(mutex_);
  void CopyOut(std::span<std::byte> buffer, uint64_t offset) const ADDCOW_REQUIRES(mutex_);
  void ClearData(uint64_t offset, uint64_t length) ADDCOW_REQUIRES(mutex_);
  void Clear(uint64_t offset, uint64_t length, bool keep_storage) ADDCOW_REQUIRES(mutex_);
  SysResult<void> CheckZero(bool able, uint64_t offset, uint64_t length) const
      ADDCOW_REQUIRES(mutex_);
  SysResult<uint64_t> Seek(uint64_t offset, bool data) const ADDCOW_REQUIRES(mutex_);

  const uint64_t number_;

  mutable Mutex mutex_;
  Abilities abilities_ ADDCOW_GUARDED_BY(mutex_);
  uint64_t size_ ADDCOW_GUARDED_BY(mutex_) = 0;
  FileInfo rights_ ADDCOW_GUARDED_BY(mutex_);  // of which only rights and time count
  Attributes attributes_ ADDCOW_GUARDED_BY(mutex_);
  uint64_t names_ ADDCOW_GUARDED_BY(mutex_) = 0;
  uint64_t losses_ ADDCOW_GUARDED_BY(mutex_) = 0;
  int last_loss_ ADDCOW_GUARDED_BY(mutex_) = 0;
  std::set<uint64_t> unsynced_holes_ ADDCOW_GUARDED_BY(mutex_);  // blocks, written since
  std::map<const void*, LockKind> locks_ ADDCOW_GUARDED_BY(mutex_);
  // Not there: a hole. Null: unwritten. The bytes past the end are zero.
  BlockMap blocks_ ADDCOW_GUARDED_BY(mutex_);
};

class FakeFile final : public File {
 public:
  enum class Access { kReadOnly, kReadWrite };

  // `ticket` is kept until the file is closed; FakeFileSystem counts by it.
  FakeFile(std::string name, std::shared_ptr<FakeInode> inode,
           Access access = Access::kReadWrite, std::shared_ptr<void> ticket = nullptr)
      : File(std::move(name)),
        inode_(std::move(inode)),
        access_(access),
        ticket_(std::move(ticket)),
        told_(inode_->losses()) {}
  ~FakeFile() override { inode_->Unlock(this); }

  const FakeInode& inode() const { return *inode_; }

 private:
  SysResult<size_t> DoRead(std::span<std::byte> buffer, uint64_t offset) override;
  SysResult<size_t> DoWrite(std::span<const std::byte> data, uint64_t offset) override;
  SysResult<size_t> DoWriteDurably(std::span<const std::byte> data, uint64_t offset) override;
  SysResult<void> DoCloneFrom(const File& source, uint64_t offset, uint64_t length) override;
  SysResult<void> DoPunchHole(uint64_t offset, uint64_t length) override;
  SysResult<void> DoZeroRange(uint64_t offset, uint64_t length) override;
  SysResult<void> DoReserve(uint64_t offset, uint64_t length) override;
  SysResult<StorageRun> DoStorageAt(uint64_t offset, uint64_t length) override {
    return inode_->StorageAt(offset, length);
  }
  SysResult<void> DoSyncData() override;
  SysResult<void> DoSync() override { return DoSyncData(); }
  SysResult<uint64_t> DoSize() override { return inode_->Size(); }
  SysResult<void> DoTruncate(uint64_t size) override;
  SysResult<uint64_t> DoSeekData(uint64_t offset) override { return inode_->SeekData(offset); }
  SysResult<uint64_t> DoSeekHole(uint64_t offset) override { return inode_->SeekHole(offset); }
  SysResult<void> DoStartWriteback(uint64_t, uint64_t) override { return {}; }
  SysResult<void> DoPrefetch(uint64_t, uint64_t) override { return {}; }
  SysResult<FileInfo> DoInfo() override { return inode_->Info(); }
  SysResult<Attributes> DoAttributes() override { return inode_->GetAttributes(); }
  SysResult<std::unique_ptr<File>> DoReopen() override {
    return std::make_unique<FakeFile>(name(), inode_, access_, ticket_);
  }
  SysResult<void> DoLock(LockKind kind) override { return inode_->Lock(this, kind); }
  SysResult<FileUse> DoUseByOthers() override { return inode_->UseByOthers(this); }

  const std::shared_ptr<FakeInode> inode_;
  const Access access_;
  const std::shared_ptr<void> ticket_;
  std::atomic<uint64_t> told_;  // losses that this handle knows of

  // The errno of a loss that it has not told yet.
  SysResult<void> TellLoss();
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_FAKE_FILE_H
