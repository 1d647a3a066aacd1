// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fake_file.h for what is modelled.

#include "tests/support/fake_file.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "common/base/units.h"

namespace addcow {

namespace {

std::atomic<uint64_t> next_number = 1;

constexpr uint64_t kBlock = FakeInode::kBlockSize;

// Goes through a range block by block. A loop, not a callback: the thread
// safety analysis does not look through lambdas.
class BlockWalk {
 public:
  BlockWalk(uint64_t offset, uint64_t length) : offset_(offset), length_(length) {}

  // False at the end.
  bool Next() {
    if (length_ == 0) return false;
    block = offset_ / kBlock;
    within = offset_ % kBlock;
    count = std::min(length_, kBlock - within);
    offset_ += count;
    length_ -= count;
    return true;
  }

  uint64_t block = 0;
  uint64_t within = 0;
  uint64_t count = 0;

 private:
  uint64_t offset_;
  uint64_t length_;
};

}  // namespace

FakeInode::FakeInode() : number_(next_number++) {}

FakeInode::Kind FakeInode::KindOf(uint64_t block) const {
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return Kind::kHole;
  return found->second == nullptr ? Kind::kUnwritten : Kind::kData;
}

// Whether the blocks of the range that have no storage may have some.
bool FakeInode::HasRoomFor(uint64_t offset, uint64_t length) const {
  if (abilities_.most_blocks == UINT64_MAX) return true;
  uint64_t blocks = blocks_.size();
  for (BlockWalk at(offset, length); at.Next();)
    if (KindOf(at.block) == Kind::kHole) blocks++;
  return blocks == blocks_.size() || blocks <= abilities_.most_blocks;
}

// The block's bytes, this inode's own.
FakeInode::Block& FakeInode::Writable(uint64_t block) {
  std::shared_ptr<Block>& bytes = blocks_[block];
  if (bytes == nullptr)
    bytes = std::make_shared<Block>();
  else if (bytes.use_count() > 1)
    bytes = std::make_shared<Block>(*bytes);
  return *bytes;
}

void FakeInode::CopyIn(const std::byte* data, uint64_t offset, uint64_t length) {
  for (BlockWalk at(offset, length); at.Next(); data += at.count)
    std::memcpy(Writable(at.block).data() + at.within, data, at.count);
}

void FakeInode::CopyOut(std::span<std::byte> buffer, uint64_t offset) const {
  std::byte* to = buffer.data();
  for (BlockWalk at(offset, buffer.size()); at.Next(); to += at.count) {
    if (KindOf(at.block) == Kind::kData)
      std::memcpy(to, blocks_.at(at.block)->data() + at.within, at.count);
    else
      std::memset(to, 0, at.count);
  }
}

void FakeInode::ClearData(uint64_t offset, uint64_t length) {
  for (BlockWalk at(offset, length); at.Next();)
    if (KindOf(at.block) == Kind::kData)
      std::memset(Writable(at.block).data() + at.within, 0, at.count);
}

void FakeInode::Clear(uint64_t offset, uint64_t length, bool keep_storage) {
  if (!keep_storage) {
    // Whole blocks at once: a range may be far longer than its storage.
    const uint64_t first = DivideUp(offset, kBlock);
    const uint64_t end = (offset + length) / kBlock;
    if (first < end) blocks_.erase(blocks_.lower_bound(first), blocks_.lower_bound(end));
    const uint64_t head_end = std::min(offset + length, first * kBlock);
    const uint64_t tail = std::max(head_end, end * kBlock);
    ClearData(offset, head_end - offset);
    ClearData(tail, offset + length - tail);
    return;
  }
  for (BlockWalk at(offset, length); at.Next();) {
    if (at.count == kBlock || KindOf(at.block) != Kind::kData)
      blocks_[at.block] = nullptr;
    else
      std::memset(Writable(at.block).data() + at.within, 0, at.count);
  }
}

SysResult<size_t> FakeInode::Read(std::span<std::byte> buffer, uint64_t offset) const {
  MutexLock lock(mutex_);
  if (offset > kMaxOffset) return tl::unexpected<int>(EINVAL);
  if (offset >= size_) return size_t{0};
  const auto part = buffer.first(std::min<uint64_t>(buffer.size(), size_ - offset));
  CopyOut(part, offset);
  return part.size();
}

SysResult<size_t> FakeInode::Write(std::span<const std::byte> data, uint64_t offset) {
  MutexLock lock(mutex_);
  if (!RangeFits(offset, data.size(), kMaxOffset)) return tl::unexpected<int>(EFBIG);
  if (abilities_.is_block_device && !RangeFits(offset, data.size(), size_))
    return tl::unexpected<int>(ENOSPC);
  // A write that reaches the limit is short, one that begins there fails.
  if (offset >= abilities_.size_limit && !data.empty()) return tl::unexpected<int>(EFBIG);
  data = data.first(std::min<uint64_t>(data.size(), abilities_.size_limit - offset));
  if (!HasRoomFor(offset, data.size())) return tl::unexpected<int>(ENOSPC);
  if (!abilities_.seek_knows_unsynced)
    for (BlockWalk at(offset, data.size()); at.Next();)
      if (KindOf(at.block) != Kind::kData) unsynced_holes_.insert(at.block);
  CopyIn(data.data(), offset, data.size());
  size_ = std::max(size_, offset + data.size());
  return data.size();
}

SysResult<size_t> FakeInode::WriteDurably(std::span<const std::byte> data, uint64_t offset) {
  {
    MutexLock lock(mutex_);
    if (!abilities_.write_durably) return tl::unexpected<int>(EOPNOTSUPP);
  }
  return Write(data, offset);
}

// Shares whole blocks, as Clone does. The last may be cut short by the end of
// the source, and must then be the end of this file too.
SysResult<void> FakeInode::CloneFrom(const FakeInode& source, uint64_t offset,
                                     uint64_t length) {
  std::map<uint64_t, std::shared_ptr<Block>> shared;
  const uint64_t first = offset / kBlock;
  const uint64_t end = (offset + length) / kBlock;
  {
    MutexLock lock(source.mutex_);
    if (!source.abilities_.clone) return tl::unexpected<int>(EOPNOTSUPP);
    if (!RangeFits(offset, length, source.size_)) return tl::unexpected<int>(EINVAL);
    shared.insert(source.blocks_.lower_bound(first), source.blocks_.lower_bound(end));
  }
  MutexLock lock(mutex_);
  if (!abilities_.clone) return tl::unexpected<int>(EOPNOTSUPP);
  if (offset % kBlock != 0 || length % kBlock != 0 || length == 0)
    return tl::unexpected<int>(EINVAL);
  blocks_.erase(blocks_.lower_bound(first), blocks_.lower_bound(end));
  blocks_.merge(shared);
  size_ = std::max(size_, offset + length);
  return {};
}

SysResult<void> FakeInode::CheckZero(bool able, uint64_t offset, uint64_t length) const {
  if (!able) return tl::unexpected<int>(EOPNOTSUPP);
  if (length == 0) return tl::unexpected<int>(EINVAL);
  if (!RangeFits(offset, length, kMaxOffset)) return tl::unexpected<int>(EFBIG);
  if (offset % abilities_.zero_alignment != 0 || length % abilities_.zero_alignment != 0)
    return tl::unexpected<int>(EINVAL);
  return {};
}

SysResult<void> FakeInode::PunchHole(uint64_t offset, uint64_t length) {
  MutexLock lock(mutex_);
  if (auto checked = CheckZero(abilities_.punch_hole, offset, length); !checked) return checked;
  // A range that covers the last block frees it, also where the file ends in it.
  const uint64_t end = RoundUp(size_, kBlock);
  if (offset < size_) Clear(offset, std::min(length, end - offset), false);
  return {};
}

bool FakeInode::SameBytes(const FakeInode& other) const {
  // One after the other: no order of two files' locks is the right one.
  const auto [size, blocks] = SizeAndBlocks();
  auto [other_size, others] = other.SizeAndBlocks();
  if (size != other_size) return false;
  const auto same = [](const Block* one, const Block* another) {
    static constexpr Block kZeroes = {};
    return one == another || std::memcmp(one != nullptr ? one : &kZeroes,
                                         another != nullptr ? another : &kZeroes, kBlock) == 0;
  };
  for (const auto& [block, bytes] : blocks) {
    const auto found = others.find(block);
    if (!same(bytes.get(), found == others.end() ? nullptr : found->second.get())) return false;
    if (found != others.end()) others.erase(found);
  }
  return std::ranges::all_of(
      others, [&](const auto& left) { return same(left.second.get(), nullptr); });
}

std::pair<uint64_t, FakeInode::BlockMap> FakeInode::SizeAndBlocks() const {
  MutexLock lock(mutex_);
  return {size_, blocks_};
}

SysResult<void> FakeInode::ZeroRange(uint64_t offset, uint64_t length) {
  MutexLock lock(mutex_);
  if (auto checked = CheckZero(abilities_.zero_range, offset, length); !checked) return checked;
  if (offset < size_) Clear(offset, std::min(length, size_ - offset), true);
  return {};
}

SysResult<void> FakeInode::Reserve(uint64_t offset, uint64_t length) {
  MutexLock lock(mutex_);
  if (!abilities_.reserve || abilities_.is_block_device) return tl::unexpected<int>(EOPNOTSUPP);
  if (length == 0) return tl::unexpected<int>(EINVAL);
  if (!RangeFits(offset, length, std::min(kMaxOffset, abilities_.size_limit)))
    return tl::unexpected<int>(EFBIG);
  if (!HasRoomFor(offset, length)) return tl::unexpected<int>(ENOSPC);
  for (BlockWalk at(offset, length); at.Next();) blocks_.try_emplace(at.block, nullptr);
  return {};
}

SysResult<StorageRun> FakeInode::StorageAt(uint64_t offset, uint64_t length) const {
  MutexLock lock(mutex_);
  if (!abilities_.storage_at) return tl::unexpected<int>(EOPNOTSUPP);
  const bool present = KindOf(offset / kBlock) != Kind::kHole;
  const uint64_t end = offset + length;
  auto next = blocks_.lower_bound(offset / kBlock);
  if (!present) {
    const uint64_t stop = next == blocks_.end() ? end : std::min(end, next->first * kBlock);
    return StorageRun{false, stop - offset};
  }
  uint64_t block = offset / kBlock;
  for (; next != blocks_.end() && next->first == block && block * kBlock < end; ++next) block++;
  return StorageRun{true, std::min(end, block * kBlock) - offset};
}

SysResult<uint64_t> FakeInode::Size() const { return size(); }

SysResult<void> FakeInode::Truncate(uint64_t size) {
  MutexLock lock(mutex_);
  if (size > kMaxOffset) return tl::unexpected<int>(EFBIG);
  if (abilities_.is_block_device) return tl::unexpected<int>(EINVAL);
  if (size < size_) {
    Clear(size, size_ - size, false);
    blocks_.erase(blocks_.lower_bound(DivideUp(size, kBlock)), blocks_.end());
  }
  size_ = size;
  return {};
}

SysResult<uint64_t> FakeInode::Seek(uint64_t offset, bool data) const {
  if (!abilities_.seek) return tl::unexpected<int>(EINVAL);
  if (offset >= size_) return tl::unexpected<int>(ENXIO);
  uint64_t block = offset / kBlock;
  if (data) {
    auto found = blocks_.lower_bound(block);
    while (found != blocks_.end() &&
           (found->second == nullptr || unsynced_holes_.contains(found->first)))
      ++found;
    if (found == blocks_.end()) return tl::unexpected<int>(ENXIO);
    block = found->first;
  } else {
    while (KindOf(block) == Kind::kData && !unsynced_holes_.contains(block)) block++;
  }
  const uint64_t position = std::max(offset, block * kBlock);
  if (position < size_) return position;
  // The end of the file counts as a hole.
  if (data) return tl::unexpected<int>(ENXIO);
  return size_;
}

SysResult<uint64_t> FakeInode::SeekData(uint64_t offset) const {
  MutexLock lock(mutex_);
  return Seek(offset, true);
}

SysResult<uint64_t> FakeInode::SeekHole(uint64_t offset) const {
  MutexLock lock(mutex_);
  return Seek(offset, false);
}

SysResult<FileInfo> FakeInode::Info() const {
  MutexLock lock(mutex_);
  FileInfo info = rights_;
  info.device = 1;
  info.inode = number_;
  info.is_block_device = abilities_.is_block_device;
  info.allocated_bytes = info.is_block_device ? 0 : blocks_.size() * kBlock;
  info.size_limit = abilities_.size_limit;
  if (abilities_.most_blocks != UINT64_MAX)
    info.free_bytes =
        (abilities_.most_blocks - std::min<uint64_t>(abilities_.most_blocks, blocks_.size())) *
        kBlock;
  info.names = abilities_.counts_names ? names_ : 0;
  info.well_known = abilities_.well_known;
  return info;
}

SysResult<void> FakeInode::Lock(const void* holder, LockKind kind) {
  MutexLock lock(mutex_);
  if (!abilities_.lock) return tl::unexpected<int>(ENOLCK);
  for (const auto& [other, held] : locks_)
    if (other != holder && (kind == LockKind::kWrite || held == LockKind::kWrite))
      return tl::unexpected<int>(EAGAIN);
  locks_[holder] = kind;
  return {};
}

SysResult<FileUse> FakeInode::UseByOthers(const void* holder) const {
  MutexLock lock(mutex_);
  if (!abilities_.lock) return tl::unexpected<int>(ENOLCK);
  FileUse use = FileUse::kNone;
  for (const auto& [other, held] : locks_)
    if (other != holder)
      use = std::max(use, held == LockKind::kWrite ? FileUse::kWrite : FileUse::kRead);
  return use;
}

void FakeInode::Unlock(const void* holder) {
  MutexLock lock(mutex_);
  locks_.erase(holder);
}

void FakeInode::Synced() {
  MutexLock lock(mutex_);
  unsynced_holes_.clear();
}

void FakeInode::Lose(int error) {
  MutexLock lock(mutex_);
  losses_++;
  last_loss_ = error;
}

uint64_t FakeInode::losses() const {
  MutexLock lock(mutex_);
  return losses_;
}

int FakeInode::last_loss() const {
  MutexLock lock(mutex_);
  return last_loss_;
}

bool FakeInode::writes_tell_losses() const {
  MutexLock lock(mutex_);
  return abilities_.writes_tell_losses;
}

void FakeInode::AddName() {
  MutexLock lock(mutex_);
  names_++;
}

void FakeInode::RemoveName() {
  MutexLock lock(mutex_);
  names_--;
}

void FakeInode::SetAbilities(const Abilities& abilities) {
  MutexLock lock(mutex_);
  abilities_ = abilities;
}

void FakeInode::SetRights(uint32_t permissions, uint32_t owner, uint32_t group) {
  MutexLock lock(mutex_);
  rights_.permissions = permissions;
  rights_.owner = owner;
  rights_.group = group;
}

void FakeInode::SetAttributes(const Attributes& attributes) {
  MutexLock lock(mutex_);
  attributes_ = attributes;
  const auto acl = attributes.find(kAclAttribute);
  rights_.acl_limit = acl == attributes.end() ? std::nullopt : AclLimit(acl->second);
}

Attributes FakeInode::GetAttributes() const {
  MutexLock lock(mutex_);
  return attributes_;
}

void FakeInode::SetModified(const FileTime& time) {
  MutexLock lock(mutex_);
  rights_.modified = time;
}

uint64_t FakeInode::size() const {
  MutexLock lock(mutex_);
  return size_;
}

std::vector<std::byte> FakeInode::Bytes(uint64_t offset, uint64_t length) const {
  std::vector<std::byte> bytes(length);
  MutexLock lock(mutex_);
  CopyOut(bytes, offset);
  return bytes;
}

std::shared_ptr<FakeInode> FakeInode::Clone() const {
  std::shared_ptr<FakeInode> clone(new FakeInode(number_));
  MutexLock lock(mutex_);
  MutexLock clone_lock(clone->mutex_);  // nobody else has it yet
  clone->abilities_ = abilities_;
  clone->size_ = size_;
  clone->rights_ = rights_;
  clone->attributes_ = attributes_;
  clone->blocks_ = blocks_;
  return clone;
}

SysResult<size_t> FakeFile::DoRead(std::span<std::byte> buffer, uint64_t offset) {
  return inode_->Read(buffer, offset);
}

SysResult<size_t> FakeFile::DoWrite(std::span<const std::byte> data, uint64_t offset) {
  if (access_ == Access::kReadOnly) return tl::unexpected<int>(EBADF);
  if (inode_->writes_tell_losses())
    if (auto loss = TellLoss(); !loss) return tl::unexpected<int>(loss.error());
  return inode_->Write(data, offset);
}

SysResult<size_t> FakeFile::DoWriteDurably(std::span<const std::byte> data, uint64_t offset) {
  if (access_ == Access::kReadOnly) return tl::unexpected<int>(EBADF);
  auto written = inode_->WriteDurably(data, offset);
  if (!written) return written;
  if (auto loss = TellLoss(); !loss) return tl::unexpected<int>(loss.error());
  return written;
}

SysResult<void> FakeFile::DoSyncData() {
  inode_->Synced();
  return TellLoss();
}

SysResult<void> FakeFile::TellLoss() {
  const uint64_t losses = inode_->losses();
  if (told_.exchange(losses) == losses) return {};
  return tl::unexpected<int>(inode_->last_loss());
}

SysResult<void> FakeFile::DoCloneFrom(const File& source, uint64_t offset, uint64_t length) {
  if (access_ == Access::kReadOnly) return tl::unexpected<int>(EBADF);
  const auto* from = dynamic_cast<const FakeFile*>(&source);
  if (from == nullptr) return tl::unexpected<int>(EOPNOTSUPP);
  return inode_->CloneFrom(from->inode(), offset, length);
}

SysResult<void> FakeFile::DoPunchHole(uint64_t offset, uint64_t length) {
  if (access_ == Access::kReadOnly) return tl::unexpected<int>(EBADF);
  return inode_->PunchHole(offset, length);
}

SysResult<void> FakeFile::DoZeroRange(uint64_t offset, uint64_t length) {
  if (access_ == Access::kReadOnly) return tl::unexpected<int>(EBADF);
  return inode_->ZeroRange(offset, length);
}

SysResult<void> FakeFile::DoReserve(uint64_t offset, uint64_t length) {
  if (access_ == Access::kReadOnly) return tl::unexpected<int>(EBADF);
  return inode_->Reserve(offset, length);
}

SysResult<void> FakeFile::DoTruncate(uint64_t size) {
  if (access_ == Access::kReadOnly) return tl::unexpected<int>(EBADF);
  return inode_->Truncate(size);
}

}  // namespace addcow
