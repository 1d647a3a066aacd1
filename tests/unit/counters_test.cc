// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/base: counters, ticks and latencies; and what a server counts of requests.

#include "common/base/counters.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "common/base/latency.h"
#include "common/base/ticks.h"
#include "common/control/request_statistics.h"

namespace addcow {
namespace {

enum class Fruit { kApple, kPear, kCount };

template <typename Body>
void InThreads(size_t count, Body body) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; i++) threads.emplace_back(body);
  for (std::thread& thread : threads) thread.join();
}

TEST(Counters, AreExactWhateverThreadsAdd) {
  constexpr uint64_t kTimes = 10000;
  Counters<Fruit> counters;
  InThreads(8, [&] {
    for (uint64_t i = 0; i < kTimes; i++) {
      counters.Add(Fruit::kApple, 1);
      counters.Add(Fruit::kPear, 3);
    }
  });
  EXPECT_EQ(counters.Sum(Fruit::kApple), 8 * kTimes);
  EXPECT_EQ(counters.Sum(Fruit::kPear), 24 * kTimes);
}

TEST(Counters, AThreadKeepsItsShard) {
  const size_t shard = CounterShard();
  EXPECT_LT(shard, kCounterShards);
  EXPECT_EQ(CounterShard(), shard);
}

TEST(Latency, BucketsArePowersOfTwo) {
  EXPECT_EQ(LatencyBucket(0), 0u);
  EXPECT_EQ(LatencyBucket(1), 1u);
  EXPECT_EQ(LatencyBucket(2), 2u);
  EXPECT_EQ(LatencyBucket(3), 2u);
  EXPECT_EQ(LatencyBucket(4), 3u);
  for (size_t bucket = 0; bucket + 1 < kLatencyBuckets; bucket++) {
    const auto bound = static_cast<uint64_t>(LatencyBound(bucket).count());
    EXPECT_EQ(LatencyBucket(bound - 1), bucket);
    EXPECT_EQ(LatencyBucket(bound), bucket + 1);
  }
}

TEST(Latency, LastBucketHasAllThatIsLonger) {
  EXPECT_EQ(LatencyBucket(uint64_t{1} << 25), kLatencyBuckets - 1);
  EXPECT_EQ(LatencyBucket(uint64_t{1} << 40), kLatencyBuckets - 1);
  EXPECT_EQ(LatencyBucket((uint64_t{1} << 63) - 1), kLatencyBuckets - 1);
}

TEST(Latency, HistogramHasCountAndSum) {
  LatencyHistogram histogram;
  histogram.Add(std::chrono::microseconds(3));
  histogram.Add(std::chrono::nanoseconds(500));
  const Latencies latencies = histogram.Read();
  EXPECT_EQ(latencies.count(), 2u);
  EXPECT_EQ(latencies.nanoseconds, 3500u);
  EXPECT_EQ(latencies.buckets[0], 1u);
  EXPECT_EQ(latencies.buckets[2], 1u);
}

// To a quarter: another program may have had the processor in between.
TEST(Ticks, AreAsLongAsTheClockSays) {
  CalibrateTicks();
  using Clock = std::chrono::steady_clock;
  double nearest = 1;
  for (int tries = 0; tries < 100 && nearest > 0.01; tries++) {
    const auto before = Clock::now();
    const uint64_t start = Ticks();
    auto now = before;
    while (now - before < std::chrono::milliseconds(2)) now = Clock::now();
    const auto ticks = static_cast<double>(Nanoseconds(TicksSince(start)));
    const double clock = std::chrono::duration<double, std::nano>(now - before).count();
    nearest = std::min(nearest, std::abs(ticks / clock - 1));
  }
  EXPECT_LT(nearest, 0.25);
}

TEST(Ticks, NoTimeIsNegative) { EXPECT_EQ(TicksSince(Ticks() + (uint64_t{1} << 40)), 0u); }

TEST(RequestStatistics, CountWhatWasDoneAndWhatFailed) {
  RequestStatistics statistics;
  InThreads(4, [&] {
    for (int i = 0; i < 1000; i++) {
      statistics.Done(RequestKind::kRead, 4096, 0);
      statistics.Done(RequestKind::kFlush, 0, 0);
      if (i % 10 == 0) statistics.Failed(RequestKind::kRead, 0);
    }
  });
  const AllRequestCounts counts = statistics.Read();
  const RequestCounts& reads = counts[static_cast<size_t>(RequestKind::kRead)];
  EXPECT_EQ(reads.latencies.count(), 4400u);
  EXPECT_EQ(reads.bytes, 4000u * 4096);
  EXPECT_EQ(reads.errors, 400u);
  EXPECT_EQ(counts[static_cast<size_t>(RequestKind::kFlush)].latencies.count(), 4000u);
  EXPECT_EQ(counts[static_cast<size_t>(RequestKind::kWrite)], RequestCounts());
}

}  // namespace
}  // namespace addcow
