// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One call that crosses the seam between the project and the operating system
// (common/io/file.h and file_system.h), as the test doubles see it: which
// call, on which path, and where. Doubles match, record and fail operations;
// tests speak about their order.

#ifndef ADDCOW_TESTS_SUPPORT_OPERATION_H
#define ADDCOW_TESTS_SUPPORT_OPERATION_H

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace addcow {

enum class OpKind {
  // Of a File.
  kRead,
  kWrite,
  kWriteDurably,
  kClone,
  kPunchHole,
  kZeroRange,
  kReserve,
  kStorageAt,
  kSyncData,
  kSync,
  kStartWriteback,
  kSize,
  kTruncate,
  kSeekData,
  kSeekHole,
  kPrefetch,
  kInfo,
  kAttributes,
  kReopen,
  kLock,
  // Of a FileSystem.
  kOpen,  // OpenBeneath too
  kCreate,
  kRename,
  kRemove,
  kSyncDirectory,
  kReadDirectory,
  kExists,
  kIdentify,
  kCheckMayChange,
  kRealPath,
};

struct Operation {
  OpKind kind;
  std::string path;                      // the name that the file was opened by
  uint64_t offset = 0;                   // kTruncate: the new size
  uint64_t length = 0;                   // also of `data`
  std::span<const std::byte> data = {};  // of writes only; dies with the call
  std::string to = {};                   // kRename only
};

// Whether the operation is a File's. Only those may be short or give EINTR:
// what a FileSystem returns is a finished result.
constexpr bool IsFileOperation(OpKind kind) { return kind < OpKind::kOpen; }

// Whether the operation changes what a later crash or reader may find.
constexpr bool IsChange(OpKind kind) {
  switch (kind) {
    case OpKind::kWrite:
    case OpKind::kWriteDurably:
    case OpKind::kClone:
    case OpKind::kPunchHole:
    case OpKind::kZeroRange:
    case OpKind::kTruncate:
    case OpKind::kCreate:
    case OpKind::kRename:
    case OpKind::kRemove:
      return true;
    default:
      return false;
  }
}

constexpr bool IsSync(OpKind kind) {
  return kind == OpKind::kSyncData || kind == OpKind::kSync || kind == OpKind::kSyncDirectory;
}

const char* Name(OpKind kind);

// For example "write /vm/disk.raw 65536+512".
std::string ToString(const Operation& operation);

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_OPERATION_H
