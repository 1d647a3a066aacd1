// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See measure.h.

#include "common/ops/measure.h"

#include <algorithm>

#include "common/base/units.h"

namespace addcow {

namespace {

constexpr uint64_t kEntrySize = 8;     // of L1, L2 and refcount tables
constexpr uint64_t kRefcountSize = 2;  // 16 bits

uint64_t ClustersOf(uint64_t bytes) { return DivideUp(bytes, kQcow2ClusterSize); }

// The bytes of all clusters of `unit` bytes that have any data.
Result<uint64_t> DataBytes(Source& source, uint64_t unit, const Interrupted& interrupted,
                           const std::string& name) {
  const uint64_t size = source.size();
  uint64_t bytes = 0;
  uint64_t counted = 0;  // up to here
  for (uint64_t at = 0; at < size;) {
    ADDCOW_TRY(CheckInterrupted(interrupted, name));
    ADDCOW_TRY_ASSIGN(const DataRun run, source.RunAt(at, size));
    if (run.data) {
      const uint64_t first = std::max(RoundDown(at, unit), counted);
      counted = std::min(RoundUp(run.end, unit), RoundUp(size, unit));
      bytes += counted - std::min(first, counted);
    }
    at = run.end;
  }
  return bytes;
}

}  // namespace

// Header, L1 table, L2 tables, data, and refcounts of all of them, their own included: the
// last are counted until that needs no more.
uint64_t Qcow2Size(uint64_t size) {
  const uint64_t data = ClustersOf(size);
  const uint64_t per_table = kQcow2ClusterSize / kEntrySize;
  const uint64_t per_block = kQcow2ClusterSize / kRefcountSize;
  const uint64_t l2 = DivideUp(data, per_table);
  const uint64_t l1 = ClustersOf(l2 * kEntrySize);
  const uint64_t others = 1 + l1 + l2 + data;
  uint64_t refcounts = 0;
  for (;;) {
    const uint64_t blocks = DivideUp(others + refcounts, per_block);
    const uint64_t needed = blocks + ClustersOf(blocks * kEntrySize);
    if (needed == refcounts) break;
    refcounts = needed;
  }
  return (1 + l1 + l2 + refcounts) * kQcow2ClusterSize + RoundUp(size, kQcow2ClusterSize);
}

Result<Measured> MeasureDisk(FileSystem& file_system, const NamedDisk& disk,
                             const AccessOptions& access, MeasureFor what,
                             const Interrupted& interrupted) {
  AccessOptions options = access;
  options.interrupted = interrupted;
  ADDCOW_TRY_ASSIGN(const Base base, OpenNamedDisk(file_system, disk, options));
  Source& source = *base.source;
  if (what == MeasureFor::kRaw) {
    ADDCOW_TRY_ASSIGN(const uint64_t bytes, DataBytes(source, 1, interrupted, disk.name));
    return Measured{.required = bytes, .fully_allocated = source.size()};
  }
  ADDCOW_TRY_ASSIGN(const uint64_t bytes,
                    DataBytes(source, kQcow2ClusterSize, interrupted, disk.name));
  const uint64_t all = Qcow2Size(source.size());
  return Measured{.required = all - RoundUp(source.size(), kQcow2ClusterSize) + bytes,
                  .fully_allocated = all};
}

}  // namespace addcow
