// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The names of the operations, for messages and recorded logs.

#include "tests/support/operation.h"

#include <fmt/format.h>

namespace addcow {

const char* Name(OpKind kind) {
  switch (kind) {
    case OpKind::kRead:
      return "read";
    case OpKind::kWrite:
      return "write";
    case OpKind::kWriteDurably:
      return "write durably";
    case OpKind::kClone:
      return "clone";
    case OpKind::kPunchHole:
      return "punch hole";
    case OpKind::kZeroRange:
      return "zero range";
    case OpKind::kReserve:
      return "reserve";
    case OpKind::kStorageAt:
      return "storage at";
    case OpKind::kSyncData:
      return "sync data";
    case OpKind::kSync:
      return "sync";
    case OpKind::kStartWriteback:
      return "start writeback";
    case OpKind::kSize:
      return "size";
    case OpKind::kTruncate:
      return "truncate";
    case OpKind::kSeekData:
      return "seek data";
    case OpKind::kSeekHole:
      return "seek hole";
    case OpKind::kPrefetch:
      return "prefetch";
    case OpKind::kInfo:
      return "info";
    case OpKind::kAttributes:
      return "attributes";
    case OpKind::kReopen:
      return "open again";
    case OpKind::kLock:
      return "lock";
    case OpKind::kOpen:
      return "open";
    case OpKind::kCreate:
      return "create";
    case OpKind::kRename:
      return "rename";
    case OpKind::kRemove:
      return "remove";
    case OpKind::kSyncDirectory:
      return "sync directory";
    case OpKind::kReadDirectory:
      return "read directory";
    case OpKind::kExists:
      return "exists";
    case OpKind::kIdentify:
      return "identify";
    case OpKind::kCheckMayChange:
      return "check may change";
    case OpKind::kRealPath:
      return "real path";
  }
  return "?";
}

std::string ToString(const Operation& operation) {
  switch (operation.kind) {
    case OpKind::kRead:
    case OpKind::kWrite:
    case OpKind::kWriteDurably:
    case OpKind::kClone:
    case OpKind::kPunchHole:
    case OpKind::kZeroRange:
    case OpKind::kReserve:
    case OpKind::kStorageAt:
    case OpKind::kStartWriteback:
    case OpKind::kPrefetch:
      return fmt::format("{} {} {}+{}", Name(operation.kind), operation.path, operation.offset,
                         operation.length);
    case OpKind::kTruncate:
    case OpKind::kSeekData:
    case OpKind::kSeekHole:
      return fmt::format("{} {} {}", Name(operation.kind), operation.path, operation.offset);
    case OpKind::kRename:
      return fmt::format("{} {} {}", Name(operation.kind), operation.path, operation.to);
    default:
      return fmt::format("{} {}", Name(operation.kind), operation.path);
  }
}

}  // namespace addcow
