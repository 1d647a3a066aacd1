// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See forwarding_file.h.

#include "tests/support/forwarding_file.h"

#include <algorithm>

namespace addcow {

template <typename Call>
auto ForwardingFile::Pass(const Operation& operation, Call call) -> decltype(call(Verdict())) {
  const Verdict verdict = interceptor_.Before(operation);
  decltype(call(verdict)) result = tl::unexpected<int>(verdict.error);
  // A call that fails is not made, but for the part that it is said to do.
  if (verdict.error == 0 || verdict.transfer) {
    result = call(verdict);
    if (result && verdict.error != 0) result = tl::unexpected<int>(verdict.error);
  }
  interceptor_.After(operation, result ? 0 : result.error());
  return result;
}

SysResult<size_t> ForwardingFile::DoRead(std::span<std::byte> buffer, uint64_t offset) {
  return Pass({OpKind::kRead, name(), offset, buffer.size()}, [&](const Verdict& verdict) {
    const uint64_t count = verdict.transfer.value_or(buffer.size());
    return inner_->DoRead(buffer.first(std::min<uint64_t>(count, buffer.size())), offset);
  });
}

SysResult<size_t> ForwardingFile::DoWrite(std::span<const std::byte> data, uint64_t offset) {
  return Pass({OpKind::kWrite, name(), offset, data.size(), data}, [&](const Verdict& verdict) {
    const uint64_t count = verdict.transfer.value_or(data.size());
    return inner_->DoWrite(data.first(std::min<uint64_t>(count, data.size())), offset);
  });
}

SysResult<size_t> ForwardingFile::DoWriteDurably(std::span<const std::byte> data,
                                                 uint64_t offset) {
  return Pass({OpKind::kWriteDurably, name(), offset, data.size(), data},
              [&](const Verdict& verdict) {
                const uint64_t count = verdict.transfer.value_or(data.size());
                return inner_->DoWriteDurably(
                    data.first(std::min<uint64_t>(count, data.size())), offset);
              });
}

SysResult<void> ForwardingFile::DoCloneFrom(const File& source, uint64_t offset,
                                            uint64_t length) {
  return Pass({OpKind::kClone, name(), offset, length},
              [&](const Verdict&) { return inner_->DoCloneFrom(source, offset, length); });
}

SysResult<void> ForwardingFile::DoPunchHole(uint64_t offset, uint64_t length) {
  return Pass({OpKind::kPunchHole, name(), offset, length},
              [&](const Verdict&) { return inner_->DoPunchHole(offset, length); });
}

SysResult<void> ForwardingFile::DoZeroRange(uint64_t offset, uint64_t length) {
  return Pass({OpKind::kZeroRange, name(), offset, length},
              [&](const Verdict&) { return inner_->DoZeroRange(offset, length); });
}

SysResult<void> ForwardingFile::DoReserve(uint64_t offset, uint64_t length) {
  return Pass({OpKind::kReserve, name(), offset, length},
              [&](const Verdict&) { return inner_->DoReserve(offset, length); });
}

SysResult<StorageRun> ForwardingFile::DoStorageAt(uint64_t offset, uint64_t length) {
  return Pass({OpKind::kStorageAt, name(), offset, length},
              [&](const Verdict&) { return inner_->DoStorageAt(offset, length); });
}

SysResult<void> ForwardingFile::DoSyncData() {
  return Pass({OpKind::kSyncData, name()},
              [&](const Verdict&) { return inner_->DoSyncData(); });
}

SysResult<void> ForwardingFile::DoSync() {
  return Pass({OpKind::kSync, name()}, [&](const Verdict&) { return inner_->DoSync(); });
}

SysResult<uint64_t> ForwardingFile::DoSize() {
  return Pass({OpKind::kSize, name()}, [&](const Verdict&) { return inner_->DoSize(); });
}

SysResult<void> ForwardingFile::DoTruncate(uint64_t size) {
  return Pass({OpKind::kTruncate, name(), size},
              [&](const Verdict&) { return inner_->DoTruncate(size); });
}

SysResult<uint64_t> ForwardingFile::DoSeekData(uint64_t offset) {
  return Pass({OpKind::kSeekData, name(), offset},
              [&](const Verdict&) { return inner_->DoSeekData(offset); });
}

SysResult<uint64_t> ForwardingFile::DoSeekHole(uint64_t offset) {
  return Pass({OpKind::kSeekHole, name(), offset},
              [&](const Verdict&) { return inner_->DoSeekHole(offset); });
}

SysResult<void> ForwardingFile::DoStartWriteback(uint64_t offset, uint64_t length) {
  return Pass({OpKind::kStartWriteback, name(), offset, length},
              [&](const Verdict&) { return inner_->DoStartWriteback(offset, length); });
}

SysResult<void> ForwardingFile::DoPrefetch(uint64_t offset, uint64_t length) {
  return Pass({OpKind::kPrefetch, name(), offset, length},
              [&](const Verdict&) { return inner_->DoPrefetch(offset, length); });
}

SysResult<FileInfo> ForwardingFile::DoInfo() {
  return Pass({OpKind::kInfo, name()}, [&](const Verdict&) { return inner_->DoInfo(); });
}

SysResult<Attributes> ForwardingFile::DoAttributes() {
  return Pass({OpKind::kAttributes, name()},
              [&](const Verdict&) { return inner_->DoAttributes(); });
}

SysResult<std::unique_ptr<File>> ForwardingFile::DoReopen() {
  return Pass({OpKind::kReopen, name()},
              [&](const Verdict&) -> SysResult<std::unique_ptr<File>> {
                auto file = inner_->DoReopen();
                if (!file) return file;
                return std::make_unique<ForwardingFile>(std::move(*file), interceptor_);
              });
}

SysResult<void> ForwardingFile::DoLock(LockKind kind) {
  return Pass({OpKind::kLock, name()}, [&](const Verdict&) { return inner_->DoLock(kind); });
}

SysResult<FileUse> ForwardingFile::DoUseByOthers() {
  return Pass({OpKind::kLock, name()}, [&](const Verdict&) { return inner_->DoUseByOthers(); });
}

template <typename Call>
auto ForwardingFileSystem::Pass(const Operation& operation, Call call) -> decltype(call()) {
  const Verdict verdict = interceptor_.Before(operation);
  if (verdict.error != 0) {
    interceptor_.After(operation, verdict.error);
    return Fail(Error::System(verdict.error, Name(operation.kind), operation.path));
  }
  auto result = call();
  interceptor_.After(operation, result ? 0 : result.error().code());
  return result;
}

Result<std::unique_ptr<File>> ForwardingFileSystem::Wrap(Result<std::unique_ptr<File>> file) {
  if (!file) return file;
  return std::make_unique<ForwardingFile>(std::move(*file), interceptor_);
}

Result<std::unique_ptr<File>> ForwardingFileSystem::Open(const std::string& path,
                                                         OpenMode mode) {
  return Wrap(Pass({OpKind::kOpen, path}, [&] { return inner_.Open(path, mode); }));
}

Result<std::unique_ptr<File>> ForwardingFileSystem::OpenBeneath(const std::string& directory,
                                                                const std::string& name,
                                                                OpenMode mode) {
  return Wrap(Pass({OpKind::kOpen, ResolveName(directory, name)},
                   [&] { return inner_.OpenBeneath(directory, name, mode); }));
}

Result<std::unique_ptr<File>> ForwardingFileSystem::Create(const std::string& path,
                                                           const NewRights& rights) {
  return Wrap(Pass({OpKind::kCreate, path}, [&] { return inner_.Create(path, rights); }));
}

Status ForwardingFileSystem::Rename(const std::string& from, const std::string& to,
                                    RenameMode mode) {
  Operation operation{OpKind::kRename, from};
  operation.to = to;
  return Pass(operation, [&] { return inner_.Rename(from, to, mode); });
}

Status ForwardingFileSystem::Remove(const std::string& path) {
  return Pass({OpKind::kRemove, path}, [&] { return inner_.Remove(path); });
}

Status ForwardingFileSystem::SyncDirectory(const std::string& directory) {
  return Pass({OpKind::kSyncDirectory, directory},
              [&] { return inner_.SyncDirectory(directory); });
}

Result<std::vector<DirectoryEntry>> ForwardingFileSystem::ReadDirectory(
    const std::string& directory) {
  return Pass({OpKind::kReadDirectory, directory},
              [&] { return inner_.ReadDirectory(directory); });
}

Result<bool> ForwardingFileSystem::Exists(const std::string& path) {
  return Pass({OpKind::kExists, path}, [&] { return inner_.Exists(path); });
}

Result<FileInfo> ForwardingFileSystem::Identify(const std::string& path) {
  return Pass({OpKind::kIdentify, path}, [&] { return inner_.Identify(path); });
}

Status ForwardingFileSystem::CheckMayChange(const std::string& path, FileChange change) {
  return Pass({OpKind::kCheckMayChange, path},
              [&] { return inner_.CheckMayChange(path, change); });
}

Result<std::string> ForwardingFileSystem::RealPath(const std::string& path) {
  return Pass({OpKind::kRealPath, path}, [&] { return inner_.RealPath(path); });
}

}  // namespace addcow
