// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See request_statistics.h.

#include "common/control/request_statistics.h"

namespace addcow {

AllRequestCounts RequestStatistics::Read() const {
  const auto value = [](const std::atomic<uint64_t>& of) {
    return of.load(std::memory_order_relaxed);
  };
  AllRequestCounts all = {};
  for (const Shard& shard : shards_) {
    for (size_t kind = 0; kind < kRequestKinds; kind++) {
      const Cell& cell = shard.cells[kind];
      RequestCounts& counts = all[kind];
      for (size_t i = 0; i < kLatencyBuckets; i++)
        counts.latencies.buckets[i] += value(cell.buckets[i]);
      counts.latencies.nanoseconds += Nanoseconds(value(cell.ticks));
      counts.bytes += value(cell.bytes);
      counts.errors += value(cell.errors);
    }
  }
  return all;
}

}  // namespace addcow
