// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What clients have asked a server for: how many requests of each kind, their bytes, how
// long they took, how many failed. Always on, so it is cheap: two readings of the clock and
// three additions for a request (tests/shell/test-request-cost.sh).
//
// Threads: any, with no lock.

#ifndef ADDCOW_COMMON_CONTROL_REQUEST_STATISTICS_H
#define ADDCOW_COMMON_CONTROL_REQUEST_STATISTICS_H

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "common/base/counters.h"
#include "common/base/latency.h"
#include "common/base/ticks.h"

namespace addcow {

enum class RequestKind { kRead, kWrite, kZero, kTrim, kFlush, kCache, kExtents, kCount };
inline constexpr size_t kRequestKinds = static_cast<size_t>(RequestKind::kCount);
// As messages and statistics call them.
inline constexpr std::array<const char*, kRequestKinds> kRequestKindNames = {
    "read", "write", "zero", "trim", "flush", "cache", "extents"};

// Of one kind, as it was at one moment. Plain values.
struct RequestCounts {
  uint64_t bytes = 0;   // of those that were done; none of flushes
  uint64_t errors = 0;  // requests that failed; they are among the latencies
  Latencies latencies;  // from the server's call to its return

  bool operator==(const RequestCounts&) const = default;
};
using AllRequestCounts = std::array<RequestCounts, kRequestKinds>;

class RequestStatistics {
 public:
  // One request of `bytes` was done, in so many ticks (ticks.h).
  void Done(RequestKind kind, uint64_t bytes, uint64_t ticks) {
    Add(Took(kind, ticks).bytes, bytes);
  }
  // One has failed.
  void Failed(RequestKind kind, uint64_t ticks) { Add(Took(kind, ticks).errors, 1); }

  AllRequestCounts Read() const;

 private:
  struct Cell {
    std::array<std::atomic<uint64_t>, kLatencyBuckets> buckets = {};
    std::atomic<uint64_t> ticks = 0;
    std::atomic<uint64_t> bytes = 0;
    std::atomic<uint64_t> errors = 0;
  };
  static void Add(std::atomic<uint64_t>& value, uint64_t amount) {
    value.fetch_add(amount, std::memory_order_relaxed);
  }
  Cell& Took(RequestKind kind, uint64_t ticks) {
    Cell& cell = shards_[CounterShard()].cells[static_cast<size_t>(kind)];
    Add(cell.buckets[LatencyBucket(Microseconds(ticks))], 1);
    Add(cell.ticks, ticks);
    return cell;
  }

  struct alignas(128) Shard {
    std::array<Cell, kRequestKinds> cells = {};
  };
  std::array<Shard, kCounterShards> shards_ = {};
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_CONTROL_REQUEST_STATISTICS_H
