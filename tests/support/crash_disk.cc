// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See crash_disk.h.

#include "tests/support/crash_disk.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/units.h"
#include "common/base/zero_bytes.h"

namespace addcow {

// One open handle. Reads go to the live file, changes there and to the log.
class CrashFile final : public File {
 public:
  CrashFile(std::string name, std::shared_ptr<FakeInode> inode, OpenMode mode, CrashDisk& disk)
      : File(std::move(name)),
        inode_(std::move(inode)),
        mode_(mode),
        disk_(disk),
        told_(inode_->losses()) {}

 private:
  SysResult<size_t> DoRead(std::span<std::byte> buffer, uint64_t offset) override {
    return inode_->Read(buffer, offset);
  }
  SysResult<uint64_t> DoSize() override { return inode_->Size(); }
  SysResult<uint64_t> DoSeekData(uint64_t offset) override { return inode_->SeekData(offset); }
  SysResult<uint64_t> DoSeekHole(uint64_t offset) override { return inode_->SeekHole(offset); }
  // Storage is not what is lost here: reserving it changes no contents.
  SysResult<void> DoReserve(uint64_t offset, uint64_t length) override {
    return inode_->Reserve(offset, length);
  }
  SysResult<StorageRun> DoStorageAt(uint64_t offset, uint64_t length) override {
    return inode_->StorageAt(offset, length);
  }
  // Anything may be written out at any time here.
  SysResult<void> DoStartWriteback(uint64_t, uint64_t) override { return {}; }
  SysResult<void> DoPrefetch(uint64_t, uint64_t) override { return {}; }
  SysResult<FileInfo> DoInfo() override { return inode_->Info(); }
  SysResult<Attributes> DoAttributes() override { return inode_->GetAttributes(); }
  SysResult<std::unique_ptr<File>> DoReopen() override {
    return std::make_unique<CrashFile>(name(), inode_, mode_, disk_);
  }
  // A crash takes all locks with it, and here nobody else has the files.
  SysResult<void> DoLock(LockKind) override { return {}; }
  SysResult<FileUse> DoUseByOthers() override { return FileUse::kNone; }

  SysResult<size_t> DoWrite(std::span<const std::byte> data, uint64_t offset) override {
    if (inode_->writes_tell_losses())
      if (const int loss = CrashDisk::TellLoss(0, *inode_, told_); loss != 0)
        return tl::unexpected<int>(loss);
    return Change({OpKind::kWrite, name(), offset, data.size(), data},
                  [&] { return inode_->Write(data, offset); });
  }
  // A write, and then a sync of what it touched.
  SysResult<size_t> DoWriteDurably(std::span<const std::byte> data, uint64_t offset) override {
    const Operation operation{OpKind::kWriteDurably, name(), offset, data.size(), data};
    auto written = Change(operation, [&] { return inode_->WriteDurably(data, offset); });
    if (!written) return written;
    const int error =
        disk_.SyncRange({OpKind::kSyncData, name(), offset, data.size()}, *inode_, told_);
    if (error != 0) return tl::unexpected<int>(error);
    return written;
  }
  SysResult<void> DoCloneFrom(const File& source, uint64_t offset, uint64_t length) override {
    const auto* from = dynamic_cast<const CrashFile*>(&source);
    if (from == nullptr) return tl::unexpected<int>(EOPNOTSUPP);
    return Change({OpKind::kClone, name(), offset, length},
                  [&] { return inode_->CloneFrom(*from->inode_, offset, length); });
  }
  SysResult<void> DoPunchHole(uint64_t offset, uint64_t length) override {
    return Change({OpKind::kPunchHole, name(), offset, length},
                  [&] { return inode_->PunchHole(offset, length); });
  }
  SysResult<void> DoZeroRange(uint64_t offset, uint64_t length) override {
    return Change({OpKind::kZeroRange, name(), offset, length},
                  [&] { return inode_->ZeroRange(offset, length); });
  }
  SysResult<void> DoTruncate(uint64_t size) override {
    return Change({OpKind::kTruncate, name(), size}, [&] { return inode_->Truncate(size); });
  }
  SysResult<void> DoSyncData() override { return DoAnySync(OpKind::kSyncData); }
  SysResult<void> DoSync() override { return DoAnySync(OpKind::kSync); }

  SysResult<void> DoAnySync(OpKind kind) {
    const int error = disk_.SyncFile({kind, name()}, *inode_, told_);
    if (error != 0) return tl::unexpected<int>(error);
    return {};
  }

  template <typename Call>
  auto Change(const Operation& operation, Call call) -> decltype(call()) {
    if (mode_ == OpenMode::kReadOnly) return tl::unexpected<int>(EBADF);
    if (const int error = disk_.CallHook(operation); error != 0)
      return tl::unexpected<int>(error);
    MutexLock lock(disk_.mutex_);
    const uint64_t size_before = inode_->size();
    auto result = call();
    if (!result) return result;
    std::optional<uint64_t> size;
    if (inode_->size() != size_before) size = inode_->size();
    disk_.LogContents(operation, *inode_, operation.offset, operation.length, size);
    return result;
  }

  const std::shared_ptr<FakeInode> inode_;
  const OpenMode mode_;
  CrashDisk& disk_;
  CrashDisk::Told told_;
};

CrashDisk::CrashDisk(const FakeFileSystem& initial)
    : live_(initial.Clone()), durable_(initial.Clone()) {
  MutexLock lock(mutex_);
  for (const std::string& name : durable_->List()) {
    const auto inode = durable_->Find(name);
    durable_inodes_[inode->number()] = inode;
  }
}

Result<std::unique_ptr<File>> CrashDisk::Open(const std::string& path, OpenMode mode) {
  ADDCOW_TRY(live_->Open(path, mode));
  return std::make_unique<CrashFile>(path, live_->Find(path), mode, *this);
}

Result<std::unique_ptr<File>> CrashDisk::OpenBeneath(const std::string& directory,
                                                     const std::string& name, OpenMode mode) {
  ADDCOW_TRY(live_->OpenBeneath(directory, name, mode));
  return Open(ResolveName(directory, name), mode);
}

Result<std::unique_ptr<File>> CrashDisk::Create(const std::string& path,
                                                const NewRights& rights) {
  Operation operation{OpKind::kCreate, path};
  if (const int error = CallHook(operation); error != 0)
    return Fail(Error::System(error, "open", path));
  MutexLock lock(mutex_);
  ADDCOW_TRY(live_->Create(path, rights));
  const auto inode = live_->Find(path);
  durable_inodes_[inode->number()] = inode->Clone();
  ADDCOW_TRY_ASSIGN(const std::string name, live_->RealPath(path));
  Entry entry{operation, inode->number()};
  entry.name = name;
  log_.push_back(std::move(entry));
  return std::make_unique<CrashFile>(path, inode, OpenMode::kReadWrite, *this);
}

Status CrashDisk::Rename(const std::string& from, const std::string& to, RenameMode mode) {
  Operation operation{OpKind::kRename, from};
  operation.to = to;
  if (const int error = CallHook(operation); error != 0)
    return Fail(Error::System(error, "rename", to));
  MutexLock lock(mutex_);
  ADDCOW_TRY_ASSIGN(const std::string old_name, live_->RealPath(from));
  ADDCOW_TRY(live_->Rename(from, to, mode));
  ADDCOW_TRY_ASSIGN(const std::string new_name, live_->RealPath(to));
  Entry entry{operation, live_->Find(new_name)->number()};
  entry.name = new_name;
  entry.gone = old_name;
  log_.push_back(std::move(entry));
  return {};
}

Status CrashDisk::Remove(const std::string& path) {
  const Operation operation{OpKind::kRemove, path};
  if (const int error = CallHook(operation); error != 0)
    return Fail(Error::System(error, "unlink", path));
  MutexLock lock(mutex_);
  ADDCOW_TRY_ASSIGN(const std::string name, live_->RealPath(path));
  ADDCOW_TRY(live_->Remove(path));
  Entry entry{operation};
  entry.gone = name;
  log_.push_back(std::move(entry));
  return {};
}

Status CrashDisk::SyncDirectory(const std::string& directory) {
  ADDCOW_TRY(live_->SyncDirectory(directory));
  ADDCOW_TRY_ASSIGN(const std::string absolute, live_->RealPath(directory));
  const size_t covered = pending();
  const int error = CallHook({OpKind::kSyncDirectory, directory});
  MutexLock lock(mutex_);
  Retire(covered, error != 0, [&](const Entry& entry) {
    return (!entry.name.empty() && DirectoryOf(entry.name) == absolute) ||
           (!entry.gone.empty() && DirectoryOf(entry.gone) == absolute);
  });
  if (error != 0) return Fail(Error::System(error, "fsync", directory));
  return {};
}

Result<bool> CrashDisk::Exists(const std::string& path) { return live_->Exists(path); }

Result<std::vector<DirectoryEntry>> CrashDisk::ReadDirectory(const std::string& directory) {
  return live_->ReadDirectory(directory);
}

Result<FileInfo> CrashDisk::Identify(const std::string& path) { return live_->Identify(path); }

Status CrashDisk::CheckMayChange(const std::string& path, FileChange change) {
  return live_->CheckMayChange(path, change);
}

Result<std::string> CrashDisk::RealPath(const std::string& path) {
  return live_->RealPath(path);
}

// What a sync or durable write of the handle gives that itself ended with `error`.
int CrashDisk::TellLoss(int error, FakeInode& inode, Told& told) {
  if (error != 0) inode.Lose(error);
  const uint64_t losses = inode.losses();
  const bool untold = told.exchange(losses) != losses;
  return untold ? inode.last_loss() : 0;
}

int CrashDisk::SyncFile(const Operation& operation, FakeInode& inode, Told& told) {
  const size_t covered = pending();
  inode.Synced();  // as far as it has been written by now
  const int error = CallHook(operation);
  MutexLock lock(mutex_);
  Retire(covered, error != 0, [&](const Entry& entry) {
    return entry.inode == inode.number() && entry.name.empty() && entry.gone.empty();
  });
  return TellLoss(error, inode, told);
}

// The page cache has one copy of each sector, and that is what is durable
// afterwards, whichever entries it came from; their other sectors stay pending.
int CrashDisk::SyncRange(const Operation& operation, FakeInode& inode, Told& told) {
  const size_t covered = pending();
  const uint64_t start = RoundDown(operation.offset, kSectorSize);
  const uint64_t end =
      std::min(RoundUp(operation.offset + operation.length, kSectorSize), inode.size());
  const int error = CallHook(operation);
  MutexLock lock(mutex_);
  const auto touches = [&](const Entry& entry) {
    return entry.inode == inode.number() && entry.name.empty() && entry.gone.empty() &&
           entry.offset < end && start < entry.offset + entry.after.size();
  };
  if (error != 0) {
    Retire(covered, true, touches);
    return TellLoss(error, inode, told);
  }
  (void)durable_inodes_.at(inode.number())->Write(inode.Bytes(start, end - start), start);
  for (Entry& entry : log_) {
    if (!touches(entry)) continue;
    entry.replaced.resize(entry.parts());
    for (size_t i = 0; i < entry.after.size() / kSectorSize; i++) {
      const uint64_t sector = entry.offset + i * kSectorSize;
      if (sector >= start && sector < end) entry.replaced[i] = true;
    }
  }
  retired_++;
  return TellLoss(0, inode, told);
}

void CrashDisk::LogContents(const Operation& operation, const FakeInode& inode, uint64_t offset,
                            uint64_t length, std::optional<uint64_t> size) {
  Entry entry{operation, inode.number()};
  entry.operation.data = {};
  entry.size = size;
  if (operation.kind != OpKind::kTruncate) {
    const uint64_t end =
        std::min(RoundUp(offset + length, kSectorSize), RoundUp(inode.size(), kSectorSize));
    entry.offset = std::min(RoundDown(offset, kSectorSize), end);
    entry.after = inode.Bytes(entry.offset, end - entry.offset);
  }
  log_.push_back(std::move(entry));
}

// Sectors, then the size; or the names, in one.
size_t CrashDisk::Entry::parts() const {
  if (!name.empty() || !gone.empty()) return 1;
  return after.size() / kSectorSize + (size ? 1 : 0);
}

void CrashDisk::Apply(const Entry& entry, size_t index, const Keep& keep,
                      FakeFileSystem& file_system, Inodes& inodes) {
  if (!entry.name.empty() || !entry.gone.empty()) {
    if (!keep(index, 0)) return;
    if (!entry.gone.empty()) (void)file_system.Remove(entry.gone);
    if (!entry.name.empty()) file_system.PutName(entry.name, inodes.at(entry.inode));
    return;
  }
  FakeInode& inode = *inodes.at(entry.inode);
  const size_t sectors = entry.after.size() / kSectorSize;
  const auto kept = [&](size_t part) {
    return keep(index, part) && (entry.replaced.empty() || !entry.replaced[part]);
  };
  if (entry.size && kept(sectors)) (void)inode.Truncate(*entry.size);
  // Neighbouring sectors at once, so that a kept punch gives a hole.
  for (size_t first = 0; first < sectors;) {
    size_t last = first;
    while (last < sectors && kept(last)) last++;
    const uint64_t offset = entry.offset + first * kSectorSize;
    const uint64_t end = std::min(entry.offset + last * kSectorSize, inode.size());
    if (last > first && offset < end) {
      const auto bytes = std::span(entry.after).subspan(first * kSectorSize, end - offset);
      // A hole where a hole was made, if the file can have one.
      const bool zeroed = entry.operation.kind != OpKind::kWrite &&
                          entry.operation.kind != OpKind::kWriteDurably && IsZero(bytes);
      if (!zeroed || !inode.PunchHole(offset, end - offset)) (void)inode.Write(bytes, offset);
    }
    first = last + 1;
  }
}

void CrashDisk::Retire(size_t count, bool failed,
                       const std::function<bool(const Entry&)>& covers) {
  std::vector<Entry> rest;
  for (size_t i = 0; i < log_.size(); i++) {
    Entry& entry = log_[i];
    if (i >= count || entry.lost_by_sync || !covers(entry)) {
      rest.push_back(std::move(entry));
    } else if (failed) {
      entry.lost_by_sync = true;
      entry.replaced.resize(entry.parts());
      rest.push_back(std::move(entry));
    } else {
      Apply(entry, i, [](size_t, size_t) { return true; }, *durable_, durable_inodes_);
      for (Entry& older : rest) ReplaceLost(older, entry);
    }
  }
  log_ = std::move(rest);
  retired_++;
}

// What a later entry made durable, an earlier one cannot undo.
void CrashDisk::ReplaceLost(Entry& lost, const Entry& durable) {
  if (!lost.lost_by_sync || lost.inode != durable.inode) return;
  const size_t sectors = lost.after.size() / kSectorSize;
  for (size_t i = 0; i < sectors; i++) {
    const uint64_t offset = lost.offset + i * kSectorSize;
    if (offset >= durable.offset && offset < durable.offset + durable.after.size())
      lost.replaced[i] = true;
  }
  if (lost.size && durable.size) lost.replaced[sectors] = true;
}

size_t CrashDisk::pending() const {
  MutexLock lock(mutex_);
  return log_.size();
}

uint64_t CrashDisk::retired() const {
  MutexLock lock(mutex_);
  return retired_;
}

std::vector<CrashDisk::Choice> CrashDisk::Choices(Random& random, const Effort& effort) const {
  const size_t entries = pending();
  std::vector<Choice> choices;
  uint64_t torn = effort.samples;
  if (entries <= effort.exhaustive) {
    // A mask with a bit from `known` on is 1 << known or more.
    const uint64_t first = effort.known == 0 ? 0 : uint64_t{1} << effort.known;
    for (uint64_t mask = first; mask < uint64_t{1} << entries; mask++)
      choices.push_back({.mask = mask});
    torn = entries == 0 ? 0 : DivideUp(choices.size(), 4);
  } else {
    choices.push_back({.mask = 0});
    choices.push_back({.mask = UINT64_MAX});
  }
  for (uint64_t i = 0; i < torn; i++) choices.push_back({.torn = true, .seed = random.Next()});
  return choices;
}

// Torn states of four kinds, each of which real storage shows: parts at
// random; everything up to a moment; all of one file and nothing of another;
// everything but one part.
CrashDisk::Keep CrashDisk::KeepOf(const Choice& choice) const {
  if (!choice.torn)
    return [mask = choice.mask](size_t entry, size_t) {
      return mask == UINT64_MAX || (entry < 64 && (mask >> entry & 1) != 0);
    };
  Random random(choice.seed);
  std::vector<std::vector<bool>> keep(log_.size());
  // Files by their order in the log: their own numbers differ between runs.
  std::map<uint64_t, uint64_t> files;
  const uint64_t kind = random.Below(4);
  const uint64_t moment = random.Below(log_.size() + 1);
  const uint64_t file_bits = random.Next();
  for (size_t i = 0; i < log_.size(); i++) {
    const uint64_t whole = random.Below(3);  // 0: drop, 1: keep, 2: tear
    const uint64_t file = files.try_emplace(log_[i].inode, files.size()).first->second;
    for (size_t part = 0; part < log_[i].parts(); part++) {
      const bool coin = random.OneIn(2);
      bool kept = whole == 2 ? coin : whole == 1;
      if (kind == 1) kept = i < moment || (i == moment && coin);
      if (kind == 2) kept = (file_bits >> (file % 64) & 1) != 0;
      if (kind == 3) kept = i != moment || (whole == 2 && coin);
      keep[i].push_back(kept);
    }
  }
  return [keep](size_t entry, size_t part) -> bool { return keep[entry][part]; };
}

std::unique_ptr<FakeFileSystem> CrashDisk::Crash(const Choice& choice) const {
  MutexLock lock(mutex_);
  auto result = durable_->Clone();
  Inodes inodes;
  for (const std::string& name : result->List()) {
    const auto inode = result->Find(name);
    inodes[inode->number()] = inode;
  }
  for (const auto& [number, inode] : durable_inodes_)
    if (!inodes.contains(number)) inodes[number] = inode->Clone();
  const Keep keep = KeepOf(choice);
  for (size_t i = 0; i < log_.size(); i++) Apply(log_[i], i, keep, *result, inodes);
  for (const auto& [number, inode] : inodes) inode->Synced();
  return result;
}

std::string CrashDisk::Describe(const Choice& choice) const {
  MutexLock lock(mutex_);
  const Keep keep = KeepOf(choice);
  std::string text = choice.torn ? fmt::format("crash with seed {:#x}", choice.seed)
                                 : fmt::format("crash with mask {:#x}", choice.mask);
  for (size_t i = 0; i < log_.size(); i++) {
    size_t kept = 0;
    for (size_t part = 0; part < log_[i].parts(); part++)
      if (keep(i, part)) kept++;
    text += fmt::format("\n  kept {} of {}: {}{}", kept, log_[i].parts(),
                        ToString(log_[i].operation),
                        log_[i].lost_by_sync ? " (a sync of it failed)" : "");
  }
  return text;
}

}  // namespace addcow
