// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/range_locks: who waits for whom.

#include "common/image/range_locks.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/support/racer.h"
#include "tests/support/random.h"

namespace addcow {
namespace {

using enum RangeLocks::Kind;
using LockKind = RangeLocks::Kind;

// Whether a second thread gets `wanted` while this one holds `held`.
bool GetsIt(ClusterRange held, ClusterRange wanted, LockKind held_kind = kExclusive,
            LockKind wanted_kind = kExclusive) {
  RangeLocks locks;
  bool got_it;
  const uint64_t ticket = locks.Lock(held, held_kind);
  Racer other([&] {
    const RangeLock lock(locks, wanted.first * kSubclusterSize, wanted.end() * kSubclusterSize,
                         wanted_kind);
  });
  other.WaitUntilBlockedOrDone();
  got_it = other.done();
  locks.Unlock(ticket);
  return got_it;
}

TEST(RangeLocks, RangesThatDoNotOverlapAreHeldTogether) {
  EXPECT_TRUE(GetsIt({5, 3}, {8, 1}));
  EXPECT_TRUE(GetsIt({5, 3}, {4, 1}));
}

TEST(RangeLocks, RangesThatOverlapExcludeEachOther) {
  EXPECT_FALSE(GetsIt({5, 3}, {5, 3}));
  EXPECT_FALSE(GetsIt({5, 3}, {7, 1}));
  EXPECT_FALSE(GetsIt({5, 3}, {0, 6}));
  EXPECT_FALSE(GetsIt({5, 3}, {0, 100}));
}

TEST(RangeLocks, SharedRangesExcludeOnlyExclusiveOnes) {
  EXPECT_TRUE(GetsIt({5, 3}, {5, 3}, kShared, kShared));
  EXPECT_FALSE(GetsIt({5, 3}, {5, 3}, kShared, kExclusive));
  EXPECT_FALSE(GetsIt({5, 3}, {5, 3}, kExclusive, kShared));
  EXPECT_TRUE(GetsIt({5, 3}, {8, 1}, kShared, kExclusive));
}

// Else who wants it alone would wait for ever under a steady load of others.
TEST(RangeLocks, LaterSharedRangeWaitsForAnExclusiveOneThatWaits) {
  RangeLocks locks;
  const uint64_t held = locks.Lock({5, 1}, kShared);
  Racer alone([&] {
    const RangeLock lock(locks, 5 * kSubclusterSize, 6 * kSubclusterSize, kExclusive);
  });
  alone.WaitUntilBlockedOrDone();
  Racer later(
      [&] { const RangeLock lock(locks, 5 * kSubclusterSize, 6 * kSubclusterSize, kShared); });
  later.WaitUntilBlockedOrDone();
  EXPECT_FALSE(alone.done());
  EXPECT_FALSE(later.done());
  locks.Unlock(held);
  alone.Join();
  later.Join();
}

TEST(RangeLocks, UnlockedRangeCanBeLockedAgain) {
  RangeLocks locks;
  for (int i = 0; i < 3; i++)
    const RangeLock lock(locks, kSubclusterSize, 3 * kSubclusterSize, kExclusive);
}

TEST(RangeLocks, ManyThreadsNeverMeetInOneCluster) {
  constexpr uint64_t kClusters = 16;
  RangeLocks locks;
  std::vector<int> owners(kClusters, 0);  // plain: ThreadSanitizer sees a meeting
  std::vector<std::thread> threads;
  std::atomic<int> meetings = 0;
  for (uint64_t i = 0; i < 4; i++) {
    threads.emplace_back([&, i] {
      Random random(TestSeed() + i);
      for (int round = 0; round < 2000; round++) {
        const uint64_t first = random.Below(kClusters);
        const ClusterRange range{first, random.Between(1, kClusters - first)};
        const RangeLock lock(locks, range.first * kSubclusterSize,
                             range.end() * kSubclusterSize, kExclusive);
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
