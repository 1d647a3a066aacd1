// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow compare: whether two disks read the same, whatever they are kept in.
//
// What both say is zero is not read. Both are read by a few threads, so that neither waits
// for the other, nor one piece for the next.

#ifndef ADDCOW_COMMON_OPS_COMPARE_H
#define ADDCOW_COMMON_OPS_COMPARE_H

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/io/file_system.h"
#include "common/ops/named_disk.h"

namespace addcow {

enum class Difference {
  kNone,
  kData,
  kSize,        // strict only; else the shorter disk is compared as if zeroes followed
  kAllocation,  // strict only: one has data, the other a hole, and both read zero
};

struct CompareOptions {
  NamedDisk a;
  NamedDisk b;
  AccessOptions access = {};
  bool strict = false;
  // With the bytes that are done, and all there are. Called by the caller's thread.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
  Interrupted interrupted = {};
};

struct CompareResult {
  Difference difference = Difference::kNone;
  uint64_t offset = 0;  // bytes; of the first difference, but for kSize
  uint64_t size_a = 0;  // bytes
  uint64_t size_b = 0;
  uint64_t read = 0;  // bytes of each that were read; on a difference more or fewer
  std::vector<std::string> notes = {};
};

// The first difference is found, wherever others are.
Result<CompareResult> CompareDisks(FileSystem& file_system, const CompareOptions& options);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_COMPARE_H
