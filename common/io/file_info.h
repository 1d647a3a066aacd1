// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What can be asked about a file, and of whom uses it.

#ifndef ADDCOW_COMMON_IO_FILE_INFO_H
#define ADDCOW_COMMON_IO_FILE_INFO_H

#include <cstdint>
#include <optional>

#include "common/base/file_time.h"

namespace addcow {

struct FileInfo {
  // Two names lead to the same file if and only if these are equal. For a
  // block device they are those of the device, not of its node.
  uint64_t device = 0;
  uint64_t inode = 0;
  bool is_block_device = false;
  uint64_t allocated_bytes = 0;  // storage in use; 0 for a block device
  // What the file's file system has left for us; nothing: it cannot be told.
  std::optional<uint64_t> free_bytes = std::nullopt;
  // No byte at or past it can be written by this process (RLIMIT_FSIZE).
  uint64_t size_limit = UINT64_MAX;
  uint32_t permissions = 0600;  // the mode's lowest nine bits
  // Where an access control list says more than the mode, of which the group's bits are then
  // the list's mask: AclLimit of it (attributes.h). Not looked up where the mode gives rights
  // to the owner only.
  std::optional<uint32_t> acl_limit = std::nullopt;
  uint32_t owner = 0;
  uint32_t group = 0;
  FileTime modified = {};  // for a block device it says nothing of its contents
  uint64_t names = 1;      // how many lead to it; 0 for some file systems always
  // Removed, but kept by its file system (NFS, FUSE) until it is closed.
  bool hidden = false;
  // On ext4, XFS, btrfs or tmpfs, or a block device: durable writes are durable
  // there, and FindData and FindHole know of what no sync has covered yet.
  bool well_known = false;

  bool SameFile(const FileInfo& other) const {
    return is_block_device == other.is_block_device && device == other.device &&
           inode == other.inode;
  }
};

// Bytes up to `end` that read alike: they may be other than zero, or are not.
struct DataRun {
  bool data = false;
  uint64_t end = 0;
};

// Neighbouring bytes of a file that all have storage, reserved or written, or
// that all have none.
struct StorageRun {
  bool present = false;
  uint64_t length = 0;
};

// What the holder of a lock does with a file; see File::Lock.
enum class LockKind { kRead, kWrite };

// What others do with a file, by their locks; see File::UseByOthers.
enum class FileUse { kNone, kRead, kWrite };

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_FILE_INFO_H
