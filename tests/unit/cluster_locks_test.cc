// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/cluster_locks: who waits for whom.

#include "common/image/cluster_locks.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/support/racer.h"
#include "tests/support/random.h"

namespace addcow {
namespace {

using enum ClusterLocks::Kind;
using Kind = ClusterLocks::Kind;

// Whether a second thread gets `wanted` while this one holds `held`.
bool GetsIt(ClusterRange held, ClusterRange wanted, Kind held_kind = kExclusive,
            Kind wanted_kind = kExclusive) {
  ClusterLocks locks;
  bool got_it;
  const uint64_t ticket = locks.Lock(held, held_kind);
  Racer other([&] { const ClusterRangeLock lock(locks, wanted, wanted_kind); });
  other.WaitUntilBlockedOrDone();
  got_it = other.done();
  locks.Unlock(ticket);
  return got_it;
}

TEST(ClusterLocks, RangesThatDoNotOverlapAreHeldTogether) {
  EXPECT_TRUE(GetsIt({5, 3}, {8, 1}));
  EXPECT_TRUE(GetsIt({5, 3}, {4, 1}));
}

TEST(ClusterLocks, RangesThatOverlapExcludeEachOther) {
  EXPECT_FALSE(GetsIt({5, 3}, {5, 3}));
  EXPECT_FALSE(GetsIt({5, 3}, {7, 1}));
  EXPECT_FALSE(GetsIt({5, 3}, {0, 6}));
  EXPECT_FALSE(GetsIt({5, 3}, {0, 100}));
}

TEST(ClusterLocks, SharedRangesExcludeOnlyExclusiveOnes) {
  EXPECT_TRUE(GetsIt({5, 3}, {5, 3}, kShared, kShared));
  EXPECT_FALSE(GetsIt({5, 3}, {5, 3}, kShared, kExclusive));
  EXPECT_FALSE(GetsIt({5, 3}, {5, 3}, kExclusive, kShared));
  EXPECT_TRUE(GetsIt({5, 3}, {8, 1}, kShared, kExclusive));
}

// Else who wants it alone would wait for ever under a steady load of others.
TEST(ClusterLocks, LaterSharedRangeWaitsForAnExclusiveOneThatWaits) {
  ClusterLocks locks;
  const uint64_t held = locks.Lock({5, 1}, kShared);
  Racer alone([&] { const ClusterRangeLock lock(locks, {5, 1}, kExclusive); });
  alone.WaitUntilBlockedOrDone();
  Racer later([&] { const ClusterRangeLock lock(locks, {5, 1}, kShared); });
  later.WaitUntilBlockedOrDone();
  EXPECT_FALSE(alone.done());
  EXPECT_FALSE(later.done());
  locks.Unlock(held);
  alone.Join();
  later.Join();
}

TEST(ClusterLocks, UnlockedRangeCanBeLockedAgain) {
  ClusterLocks locks;
  for (int i = 0; i < 3; i++) const ClusterRangeLock lock(locks, {1, 2}, kExclusive);
}

TEST(ClusterLocks, ManyThreadsNeverMeetInOneCluster) {
  constexpr uint64_t kClusters = 16;
  ClusterLocks locks;
  std::vector<int> owners(kClusters, 0);  // plain: ThreadSanitizer sees a meeting
  std::vector<std::thread> threads;
  std::atomic<int> meetings = 0;
  for (uint64_t i = 0; i < 4; i++) {
    threads.emplace_back([&, i] {
      Random random(TestSeed() + i);
      for (int round = 0; round < 2000; round++) {
        const uint64_t first = random.Below(kClusters);
        const ClusterRange range{first, random.Between(1, kClusters - first)};
        const ClusterRangeLock lock(locks, range, kExclusive);
        for (uint64_t c = range.first; c < range.end(); c++)
          if (owners[c]++ != 0) meetings++;
        for (uint64_t c = range.first; c < range.end(); c++) owners[c]--;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(meetings, 0);
}

}  // namespace
}  // namespace addcow
