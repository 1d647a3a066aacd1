// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How long things take, as a histogram: bucket n has what took less than 2^n microseconds
// and not less than half of that; the last has all that is longer. From 1 us to half a
// minute in 27 numbers, each at most a factor of two from what it stands for.

#ifndef ADDCOW_COMMON_BASE_LATENCY_H
#define ADDCOW_COMMON_BASE_LATENCY_H

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace addcow {

inline constexpr size_t kLatencyBuckets = 27;

inline size_t LatencyBucket(uint64_t microseconds) {
  // How many bits it has. With one more at its end it is never 0, which costs a branch.
  const auto bits = static_cast<size_t>(std::bit_width(microseconds << 1 | 1)) - 1;
  return std::min(bits, kLatencyBuckets - 1);
}

// What is longer than all in `bucket`, which is not the last.
inline std::chrono::microseconds LatencyBound(size_t bucket) {
  return std::chrono::microseconds(int64_t{1} << bucket);
}

// As it was at one moment. Plain values.
struct Latencies {
  std::array<uint64_t, kLatencyBuckets> buckets = {};
  uint64_t nanoseconds = 0;  // of all together

  uint64_t count() const { return std::reduce(buckets.begin(), buckets.end()); }
  double seconds() const { return static_cast<double>(nanoseconds) / 1e9; }

  bool operator==(const Latencies&) const = default;
};

// For what happens some hundred times a second at most. Any thread; no lock.
class LatencyHistogram {
 public:
  // `time` is not negative.
  void Add(std::chrono::nanoseconds time) {
    const auto nanoseconds = static_cast<uint64_t>(time.count());
    buckets_[LatencyBucket(nanoseconds / 1000)].fetch_add(1, std::memory_order_relaxed);
    nanoseconds_.fetch_add(nanoseconds, std::memory_order_relaxed);
  }

  Latencies Read() const {
    Latencies all;
    for (size_t i = 0; i < kLatencyBuckets; i++)
      all.buckets[i] = buckets_[i].load(std::memory_order_relaxed);
    all.nanoseconds = nanoseconds_.load(std::memory_order_relaxed);
    return all;
  }

 private:
  std::array<std::atomic<uint64_t>, kLatencyBuckets> buckets_ = {};
  std::atomic<uint64_t> nanoseconds_ = 0;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_LATENCY_H
