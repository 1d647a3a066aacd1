// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fake_file_system.h.

#include "tests/support/fake_file_system.h"

#include <sstream>

namespace addcow {

FakeFileSystem::FakeFileSystem() {
  MutexLock lock(mutex_);
  directories_ = {"/", kWorkingDirectory};
}

std::string FakeFileSystem::Absolute(const std::string& path, int depth) const {
  std::string result;
  std::stringstream parts(path.starts_with('/') ? path
                                                : std::string(kWorkingDirectory) + "/" + path);
  for (std::string part; std::getline(parts, part, '/');) {
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      result.erase(result.empty() ? 0 : result.rfind('/'));
      continue;
    }
    std::string next = result + "/" + part;
    // A loop of links ends somewhere; that no file is there, its user finds.
    if (const auto link = links_.find(next); link != links_.end() && depth < 40)
      next = Absolute(ResolveName(result.empty() ? "/" : result, link->second), depth + 1);
    result = next;
  }
  return result.empty() ? "/" : result;
}

Status FakeFileSystem::CheckParent(const std::string& absolute, const char* operation,
                                   const std::string& path) const {
  if (directories_.contains(DirectoryOf(absolute))) return {};
  const bool is_file = files_.contains(DirectoryOf(absolute));
  return Fail(Error::System(is_file ? ENOTDIR : ENOENT, operation, path));
}

Result<std::unique_ptr<File>> FakeFileSystem::Open(const std::string& path, OpenMode mode) {
  MutexLock lock(mutex_);
  const std::string absolute = Absolute(path);
  if (directories_.contains(absolute)) return Fail(Error::System(EISDIR, "open", path));
  const auto found = files_.find(absolute);
  if (found == files_.end()) return Fail(Error::System(ENOENT, "open", path));
  if (mode == OpenMode::kReadOnly)
    return std::make_unique<FakeFile>(path, found->second, FakeFile::Access::kReadOnly,
                                      open_files_);
  if (const auto code = not_writable_.find(absolute); code != not_writable_.end())
    return Fail(Error::System(code->second, "open", path));
  return std::make_unique<FakeFile>(path, found->second, FakeFile::Access::kReadWrite,
                                    open_files_);
}

// The links are followed by text alone, so an absolute one that leads to
// beneath the directory again is not refused here; the system's is.
Result<std::unique_ptr<File>> FakeFileSystem::OpenBeneath(const std::string& directory,
                                                          const std::string& name,
                                                          OpenMode mode) {
  const std::string path = ResolveName(directory, name);
  {
    MutexLock lock(mutex_);
    if (directory != "/" && !Absolute(path).starts_with(directory + "/"))
      return Fail(Error::System(EXDEV, "open", path));
  }
  return Open(path, mode);
}

Result<std::unique_ptr<File>> FakeFileSystem::Create(const std::string& path,
                                                     const NewRights& rights) {
  MutexLock lock(mutex_);
  const std::string absolute = Absolute(path);
  ADDCOW_TRY(CheckParent(absolute, "open", path));
  if (directories_.contains(absolute) || files_.contains(absolute))
    return Fail(Error::System(EEXIST, "open", path));
  if (const auto code = not_writable_.find(DirectoryOf(absolute)); code != not_writable_.end())
    return Fail(Error::System(code->second, "open", path));
  auto inode = std::make_shared<FakeInode>();
  const FileInfo& model = rights.model;
  if (rights.kind == NewRights::Kind::kSame && model.owner != 0 && !can_give_away_)
    return Fail(Error::Because(EPERM, path, "cannot be given to another user"));
  switch (rights.kind) {
    case NewRights::Kind::kUsual:
      inode->SetRights(0644, 0, 0);
      break;
    case NewRights::Kind::kWithin:
      inode->SetRights(RightsWithin(model, model.group == 0) & 0644, 0, 0);
      break;
    case NewRights::Kind::kSame:
      inode->SetRights(model.permissions, model.owner, model.group);
      inode->SetAttributes(rights.attributes);
      break;
  }
  inode->AddName();
  files_[absolute] = inode;
  return std::make_unique<FakeFile>(path, inode, FakeFile::Access::kReadWrite, open_files_);
}

Status FakeFileSystem::Rename(const std::string& from, const std::string& to, RenameMode mode) {
  MutexLock lock(mutex_);
  const std::string source = Absolute(from);
  const std::string target = Absolute(to);
  const auto found = files_.find(source);
  if (found == files_.end()) return Fail(Error::System(ENOENT, "rename", to));
  ADDCOW_TRY(CheckParent(target, "rename", to));
  if (directories_.contains(target)) return Fail(Error::System(EISDIR, "rename", to));
  if (mode == RenameMode::kKeepExisting && files_.contains(target))
    return Fail(Error::System(EEXIST, "rename", to));
  if (mode == RenameMode::kKeepExisting && !can_keep_existing_)
    return Fail(Error::System(EOPNOTSUPP, "link", to));
  if (mount_points_.contains(target)) return Fail(Error::System(EBUSY, "rename", to));
  if (source == target) return {};
  const auto inode = found->second;
  files_.erase(found);
  if (const auto replaced = files_.find(target); replaced != files_.end())
    replaced->second->RemoveName();
  files_[target] = inode;
  return {};
}

Status FakeFileSystem::Remove(const std::string& path) {
  MutexLock lock(mutex_);
  const std::string absolute = Absolute(path);
  if (directories_.contains(absolute)) return Fail(Error::System(EISDIR, "unlink", path));
  const auto found = files_.find(absolute);
  if (found == files_.end()) return Fail(Error::System(ENOENT, "unlink", path));
  found->second->RemoveName();
  files_.erase(found);
  return {};
}

Status FakeFileSystem::SyncDirectory(const std::string& directory) {
  MutexLock lock(mutex_);
  const std::string absolute = Absolute(directory);
  if (files_.contains(absolute)) return Fail(Error::System(ENOTDIR, "open", directory));
  if (!directories_.contains(absolute)) return Fail(Error::System(ENOENT, "open", directory));
  return {};
}

Result<bool> FakeFileSystem::Exists(const std::string& path) {
  MutexLock lock(mutex_);
  const std::string absolute = Absolute(path);
  return files_.contains(absolute) || directories_.contains(absolute);
}

Result<std::vector<DirectoryEntry>> FakeFileSystem::ReadDirectory(
    const std::string& directory) {
  MutexLock lock(mutex_);
  const std::string absolute = Absolute(directory);
  if (absolute != "/" && !directories_.contains(absolute))
    return Fail(Error::System(files_.contains(absolute) ? ENOTDIR : ENOENT, "read", directory));
  std::vector<DirectoryEntry> entries;
  const auto add = [&](const std::string& path, DirectoryEntry::Kind kind) {
    if (path != absolute && DirectoryOf(path) == absolute)
      entries.push_back({path.substr(path.rfind('/') + 1), kind});
  };
  for (const auto& [path, inode] : files_) add(path, DirectoryEntry::Kind::kFile);
  for (const auto& [path, target] : links_) add(path, DirectoryEntry::Kind::kOther);
  for (const std::string& path : directories_) add(path, DirectoryEntry::Kind::kDirectory);
  return entries;
}

Result<FileInfo> FakeFileSystem::Identify(const std::string& path) {
  MutexLock lock(mutex_);
  const auto found = files_.find(Absolute(path));
  if (found == files_.end()) return Fail(Error::System(ENOENT, "stat", path));
  auto info = found->second->Info();
  if (!info) return Fail(Error::System(info.error(), "stat", path));
  return *info;
}

Status FakeFileSystem::CheckMayChange(const std::string& path, FileChange change) {
  MutexLock lock(mutex_);
  std::string absolute = Absolute(path);
  if (!files_.contains(absolute)) return Fail(Error::System(ENOENT, "stat", path));
  if (change != FileChange::kWrite) {
    if (const auto mount = mount_points_.find(absolute);
        mount != mount_points_.end() && mount->second)
      return Fail(Error::Because(EINVAL, path, "is a mount point itself"));
    const auto info = files_.at(absolute)->Info();
    if (change == FileChange::kReplace && info && info->owner != 0 && !can_give_away_ &&
        tells_of_giving_)
      return Fail(Error::Because(EPERM, path, "belongs to another user"));
    absolute = DirectoryOf(absolute);
  }
  if (const auto code = not_writable_.find(absolute); code != not_writable_.end())
    return Fail(Error::System(code->second, "open", path));
  return {};
}

Result<std::string> FakeFileSystem::RealPath(const std::string& path) {
  MutexLock lock(mutex_);
  const std::string absolute = Absolute(path);
  if (!files_.contains(absolute) && !directories_.contains(absolute))
    return Fail(Error::System(ENOENT, "open", path));
  return absolute;
}

void FakeFileSystem::MakeDirectory(const std::string& path) {
  MutexLock lock(mutex_);
  for (std::string parent = Absolute(path); parent != "/"; parent = DirectoryOf(parent))
    directories_.insert(parent);
}

void FakeFileSystem::PutName(const std::string& path, std::shared_ptr<FakeInode> inode) {
  MakeDirectory(DirectoryOf(path));
  MutexLock lock(mutex_);
  inode->AddName();
  auto& place = files_[Absolute(path)];
  if (place != nullptr) place->RemoveName();
  place = std::move(inode);
}

std::shared_ptr<FakeInode> FakeFileSystem::Put(const std::string& path, uint64_t size) {
  auto inode = std::make_shared<FakeInode>();
  (void)inode->Truncate(size);
  PutName(path, inode);
  return inode;
}

std::shared_ptr<FakeInode> FakeFileSystem::Put(const std::string& path,
                                               std::span<const std::byte> bytes) {
  auto inode = Put(path);
  (void)inode->Write(bytes, 0);
  return inode;
}

void FakeFileSystem::PutSymbolicLink(const std::string& path, const std::string& target) {
  MakeDirectory(DirectoryOf(path));
  MutexLock lock(mutex_);
  links_[Absolute(path)] = target;
}

void FakeFileSystem::ForbidWriting(const std::string& path, int code) {
  MutexLock lock(mutex_);
  not_writable_[Absolute(path)] = code;
}

void FakeFileSystem::ForbidKeepExisting() {
  MutexLock lock(mutex_);
  can_keep_existing_ = false;
}

void FakeFileSystem::MakeMountPoint(const std::string& path, bool told) {
  MutexLock lock(mutex_);
  mount_points_[Absolute(path)] = told;
}

void FakeFileSystem::ForbidGivingAway(bool told) {
  MutexLock lock(mutex_);
  can_give_away_ = false;
  tells_of_giving_ = told;
}

std::shared_ptr<FakeInode> FakeFileSystem::Find(const std::string& path) const {
  MutexLock lock(mutex_);
  const auto found = files_.find(Absolute(path));
  return found == files_.end() ? nullptr : found->second;
}

std::vector<std::string> FakeFileSystem::List() const {
  MutexLock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, inode] : files_) names.push_back(name);
  return names;
}

std::string FakeFileSystem::DifferenceFrom(const FakeFileSystem& other) const {
  for (const std::string& name : other.List())
    if (Find(name) == nullptr) return name + " is missing";
  for (const std::string& name : List()) {
    const auto there = other.Find(name);
    if (there == nullptr) return name + " was not there";
    if (!Find(name)->SameBytes(*there)) return name + " has other bytes";
  }
  return "";
}

std::unique_ptr<FakeFileSystem> FakeFileSystem::Clone() const {
  auto clone = std::make_unique<FakeFileSystem>();
  MutexLock lock(mutex_);
  MutexLock clone_lock(clone->mutex_);  // nobody else has it yet
  // Names that share an inode go on sharing one.
  std::map<const FakeInode*, std::shared_ptr<FakeInode>> clones;
  for (const auto& [name, inode] : files_) {
    auto& copy = clones[inode.get()];
    if (copy == nullptr) copy = inode->Clone();
    copy->AddName();
    clone->files_[name] = copy;
  }
  clone->links_ = links_;
  clone->directories_ = directories_;
  clone->not_writable_ = not_writable_;
  clone->can_keep_existing_ = can_keep_existing_;
  clone->mount_points_ = mount_points_;
  clone->can_give_away_ = can_give_away_;
  clone->tells_of_giving_ = tells_of_giving_;
  return clone;
}

}  // namespace addcow
