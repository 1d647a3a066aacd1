// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See list.h. Files are told apart by device and inode, not by their names: two headers may
// name one base in different ways.

#include "common/ops/list.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <span>
#include <tuple>
#include <utility>

#include "common/image/base.h"
#include "common/io/durable_create.h"
#include "common/ops/named_files.h"
#include "common/source/nbd_uri.h"

namespace addcow {

namespace {

// By device and inode; of an add-cow file by its directory, too, since the names in it start
// there: under a second name elsewhere (a hard link) it is another image. Of what is not there,
// and of URIs in one spelling, by the name.
using DiskKey = std::pair<std::pair<uint64_t, uint64_t>, std::string>;

// Whatever it is called.
using FileKey = std::tuple<bool, uint64_t, uint64_t>;

FileKey FileKeyOf(const FileInfo& info) {
  return {info.is_block_device, info.device, info.inode};
}

class Lister {
 public:
  Lister(FileSystem& file_system, const Interrupted& interrupted)
      : file_system_(file_system), interrupted_(interrupted) {}

  Result<Listing> Run(const std::string& directory) {
    ADDCOW_TRY_ASSIGN(auto entries, file_system_.ReadDirectory(directory));
    std::vector<std::string> left = AddEntries(directory, std::move(entries));
    while (!left.empty()) {
      ADDCOW_TRY(CheckInterrupted(interrupted_, directory));
      const std::string next = std::move(left.back());
      left.pop_back();
      auto found = file_system_.ReadDirectory(next);
      if (!found) {
        NotRead(found.error());
        continue;
      }
      const auto more = AddEntries(next, std::move(*found));
      left.insert(left.end(), more.begin(), more.end());
    }
    std::ranges::sort(found_);
    for (const std::string& path : found_) {
      ListedDisk& disk = listing_.disks[Add(path, std::string(kAddCowFormat), true)];
      if (disk.path != path) disk.other_names.push_back(path);
    }
    // Bases of bases are added meanwhile.
    for (size_t i = 0; i < listing_.disks.size(); i++) {
      ADDCOW_TRY(CheckInterrupted(interrupted_, directory));
      FindBase(i);
    }
    FindCycles();
    FindImageUses();
    return std::move(listing_);
  }

 private:
  // Keeps the add-cow files, and gives the directories.
  std::vector<std::string> AddEntries(const std::string& directory,
                                      std::vector<DirectoryEntry> entries) {
    std::vector<std::string> directories;
    for (const DirectoryEntry& entry : entries) {
      std::string path = directory == "." ? entry.name : ResolveName(directory, entry.name);
      if (entry.kind == DirectoryEntry::Kind::kDirectory)
        directories.push_back(std::move(path));
      else if (entry.kind == DirectoryEntry::Kind::kFile && IsAddCow(path))
        AddFound(std::move(path), UnfinishedName(entry.name));
    }
    return directories;
  }

  void AddFound(std::string path, Unfinished unfinished) {
    if (unfinished == Unfinished::kNo)
      found_.push_back(std::move(path));
    else if (unfinished == Unfinished::kLeft)
      listing_.notes.push_back(NoteOfLeftFile(path));
  }

  bool IsAddCow(const std::string& path) {
    const auto file = file_system_.Open(path, OpenMode::kReadOnly);
    if (!file) {
      NotRead(file.error());
      return false;
    }
    std::array<std::byte, kMagicBytes> magic = {};
    const auto count = (*file)->Read(magic, 0);
    if (!count) NotRead(count.error());
    return count && BeginsAsAddCow(std::span(magic).first(*count));
  }

  // What has gone meanwhile is not there.
  void NotRead(const Error& error) {
    if (!IsNotThere(error)) listing_.unread.push_back(error);
  }

  // Where that cannot be told, one disk may be listed as two, of which one looks free.
  std::optional<FileInfo> Identified(const std::string& path) {
    const auto info = file_system_.Identify(path);
    if (info) return *info;
    NotRead(info.error());
    return std::nullopt;
  }

  DiskKey KeyOf(const std::string& path, const std::string& format,
                const std::optional<FileInfo>& info) {
    if (IsNbdUri(path)) return {{}, NormalNbdUri(path)};
    if (!info) return {{}, path};
    // A device's numbers are its own.
    std::string kind = info->is_block_device ? "device" : "";
    if (format == kAddCowFormat) {
      const auto real = file_system_.RealPath(path);
      if (!real) NotRead(real.error());
      kind += DirectoryOf(real.value_or(path));
    }
    return {{info->device, info->inode}, kind};
  }

  size_t Add(const std::string& path, const std::string& format, bool below) {
    const auto is = IsNbdUri(path) ? std::nullopt : Identified(path);
    const auto [known, added] =
        known_.try_emplace(KeyOf(path, format, is), listing_.disks.size());
    if (!added) return known->second;
    if (is) files_[FileKeyOf(*is)].push_back(known->second);
    ListedDisk disk{.path = path,
                    .other_names = {},
                    .format = format,
                    .below = below,
                    .info = {},
                    .error = {},
                    .base = {},
                    .overlays = {},
                    .image_of = {},
                    .image_overlays = {},
                    .image_shared = {}};
    if (!IsNbdUri(path)) {
      if (format == kAddCowFormat) {
        auto info = GetOwnInfo(
            file_system_,
            {.add_cow_path = path, .access = {.lock = false}, .remedy_is_rebase = true});
        if (info)
          disk.info = std::move(*info);
        else
          disk.error = info.error();
      } else if (const auto there = file_system_.Identify(path); !there) {
        disk.error = there.error();
      }
    }
    listing_.disks.push_back(std::move(disk));
    return known->second;
  }

  void FindBase(size_t index) {
    const auto& info = listing_.disks[index].info;
    if (!info || !info->header.backing) return;
    const std::string path = info->backing_path;
    const std::string format = info->header.backing->format;
    const size_t base = Add(path, format, false);
    listing_.disks[index].base = base;
    listing_.disks[base].overlays.push_back(index);
  }

  // From each disk down; more steps than disks are a circle.
  void FindCycles() {
    for (ListedDisk& disk : listing_.disks) {
      std::optional<size_t> at = disk.base;
      for (size_t steps = 0; at && steps <= listing_.disks.size(); steps++)
        at = listing_.disks[*at].base;
      if (at && !disk.error)
        disk.error = Error::Because(kErrCorrupt, disk.path,
                                    "stands on itself, or on an image that does");
    }
  }

  // An image file can be a base by itself, and be that of several add-cow files: it goes with
  // none of them then.
  void FindImageUses() {
    std::map<FileKey, std::vector<size_t>> images;
    for (size_t i = 0; i < listing_.disks.size(); i++) {
      if (!listing_.disks[i].info) continue;
      if (const auto is = Identified(listing_.disks[i].info->image_path))
        images[FileKeyOf(*is)].push_back(i);
    }
    for (const auto& [file, owners] : images)
      for (const size_t owner : owners) {
        ListedDisk& disk = listing_.disks[owner];
        std::ranges::copy_if(owners, std::back_inserter(disk.image_shared),
                             [&](size_t other) { return other != owner; });
        for (const size_t base : files_[file]) {
          std::ranges::copy(listing_.disks[base].overlays,
                            std::back_inserter(disk.image_overlays));
          listing_.disks[base].image_of.push_back(owner);
        }
      }
  }

  FileSystem& file_system_;
  const Interrupted& interrupted_;
  std::vector<std::string> found_;
  std::map<DiskKey, size_t> known_;
  std::map<FileKey, std::vector<size_t>> files_;  // those that are files
  Listing listing_;
};

}  // namespace

Result<Listing> ListImages(FileSystem& file_system, const std::string& directory,
                           const Interrupted& interrupted) {
  if (directory.empty())
    return Fail(Error::Because(ENOENT, "''", "is not the name of a directory"));
  return Lister(file_system, interrupted).Run(directory);
}

}  // namespace addcow
