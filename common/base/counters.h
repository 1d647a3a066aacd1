// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Counters that many threads add to all the time: each has kShards values, of which a
// thread adds to one, mostly its own, so that none waits for another's cache line. To add
// costs about ten instructions; to read is for who shows them.
//
// They only grow, and each is exact; of two that are read one after the other, the second
// may have what the first has not seen yet.
//
// Threads: any, with no lock. Memory order: relaxed, since nothing follows from a count.

#ifndef ADDCOW_COMMON_BASE_COUNTERS_H
#define ADDCOW_COMMON_BASE_COUNTERS_H

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace addcow {

// A power of two: as many as nbdkit has threads for two connections.
inline constexpr size_t kCounterShards = 32;

// Which shard this thread adds to. By its identity, which lies as far from those of other
// threads as their stacks; a multiplication (Fibonacci hashing) spreads them evenly. A
// thread_local number would cost a shared library a call and more.
inline size_t CounterShard() {
#if defined(__GNUC__) && !defined(__clang__)
  const auto thread = reinterpret_cast<uintptr_t>(__builtin_thread_pointer());  // the same
#else
  const auto thread = (uintptr_t)::pthread_self();  // a number or a pointer
#endif
  return static_cast<size_t>((uint64_t{thread} >> 12) * 0x9e3779b97f4a7c15u >> 59);
}
static_assert(uint64_t{1} << (64 - 59) == kCounterShards);

// `Name` is an enum class that counts from 0; its last is kCount, and names none.
template <typename Name>
class Counters {
 public:
  void Add(Name name, uint64_t amount) { Add(name, amount, CounterShard()); }
  // For several of one thread; `shard` is CounterShard().
  void Add(Name name, uint64_t amount, size_t shard) {
    shards_[shard].values[static_cast<size_t>(name)].fetch_add(amount,
                                                               std::memory_order_relaxed);
  }

  uint64_t Sum(Name name) const {
    uint64_t sum = 0;
    for (const Shard& shard : shards_)
      sum += shard.values[static_cast<size_t>(name)].load(std::memory_order_relaxed);
    return sum;
  }

 private:
  // What two processors write lies in two lines, and in two pairs of lines.
  struct alignas(128) Shard {
    std::array<std::atomic<uint64_t>, static_cast<size_t>(Name::kCount)> values = {};
  };
  std::array<Shard, kCounterShards> shards_ = {};
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_COUNTERS_H
