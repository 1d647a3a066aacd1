// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/allocation_bitmap: bits, runs over word boundaries, counting.

#include "common/image/allocation_bitmap.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "tests/support/expect.h"
#include "tests/support/random.h"

namespace addcow {
namespace {

std::unique_ptr<AllocationBitmap> Make(uint64_t clusters) {
  auto bitmap = AllocationBitmap::Create(clusters, "x.add-cow");
  return bitmap ? std::move(*bitmap) : nullptr;
}

TEST(AllocationBitmap, StartsWithNothingAllocated) {
  const auto bitmap = Make(130);
  EXPECT_EQ(bitmap->allocated(), 0u);
  EXPECT_FALSE(bitmap->all());
  for (uint64_t i = 0; i < 130; i++) EXPECT_FALSE(bitmap->Test(i)) << i;
}

TEST(AllocationBitmap, SetsJustTheRange) {
  for (uint64_t first = 0; first < 130; first += 13) {
    for (uint64_t count = 1; first + count <= 200; count += 11) {
      const auto bitmap = Make(200);
      EXPECT_EQ(bitmap->Set({first, count}), count);
      for (uint64_t i = 0; i < 200; i++)
        EXPECT_EQ(bitmap->Test(i), i >= first && i < first + count) << i;
    }
  }
}

TEST(AllocationBitmap, SetCountsOnlyNewBits) {
  const auto bitmap = Make(200);
  EXPECT_EQ(bitmap->Set({60, 10}), 10u);
  EXPECT_EQ(bitmap->Set({50, 100}), 90u);
  EXPECT_EQ(bitmap->Set({50, 100}), 0u);
  EXPECT_EQ(bitmap->allocated(), 100u);
}

TEST(AllocationBitmap, BitNOfWordWIsCluster64WPlusN) {
  const auto bitmap = Make(200);
  bitmap->Set({65, 1});
  EXPECT_EQ(bitmap->word(0), 0u);
  EXPECT_EQ(bitmap->word(1), 2u);
}

TEST(AllocationBitmap, AllOnceTheLastBitIsSet) {
  for (const uint64_t clusters : {1u, 63u, 64u, 65u, 128u, 129u}) {
    const auto bitmap = Make(clusters);
    if (clusters > 1) bitmap->Set({0, clusters - 1});
    EXPECT_FALSE(bitmap->all()) << clusters;
    bitmap->Set({clusters - 1, 1});
    EXPECT_TRUE(bitmap->all()) << clusters;
  }
}

TEST(AllocationBitmap, SetAllAllocatesEverything) {
  const auto bitmap = Make(100);
  bitmap->SetAll();
  EXPECT_TRUE(bitmap->all());
  EXPECT_TRUE(bitmap->Test(99));
  EXPECT_EQ(bitmap->allocated(), 100u);
  EXPECT_EQ(bitmap->RunAt({10, 50}).range, (ClusterRange{10, 50}));
}

TEST(AllocationBitmap, LoadedBitsPastTheLastClusterAreIgnored) {
  const auto bitmap = Make(70);
  bitmap->LoadWord(1, ~uint64_t{0});
  EXPECT_EQ(bitmap->word(1), 0x3fu);
  EXPECT_EQ(bitmap->allocated(), 6u);
}

TEST(AllocationBitmap, AllOnceTheLastWordIsLoaded) {
  const auto bitmap = Make(70);
  bitmap->LoadWord(0, ~uint64_t{0});
  EXPECT_FALSE(bitmap->all());
  bitmap->LoadWord(1, ~uint64_t{0});
  EXPECT_TRUE(bitmap->all());
}

TEST(AllocationBitmap, RunEndsWhereTheStateChanges) {
  const auto bitmap = Make(300);
  bitmap->Set({10, 200});
  EXPECT_FALSE(bitmap->RunAt({0, 300}).allocated);
  EXPECT_EQ(bitmap->RunAt({0, 300}).range, (ClusterRange{0, 10}));
  EXPECT_TRUE(bitmap->RunAt({10, 290}).allocated);
  EXPECT_EQ(bitmap->RunAt({10, 290}).range, (ClusterRange{10, 200}));
  EXPECT_EQ(bitmap->RunAt({210, 90}).range, (ClusterRange{210, 90}));
}

TEST(AllocationBitmap, RunIsCutAtTheRequestsEnd) {
  const auto bitmap = Make(300);
  bitmap->Set({0, 100});
  EXPECT_EQ(bitmap->RunAt({3, 2}).range, (ClusterRange{3, 2}));
  EXPECT_EQ(bitmap->RunAt({150, 1}).range, (ClusterRange{150, 1}));
}

TEST(AllocationBitmap, RunsAgreeWithTheBitsOneByOne) {
  Random random(TestSeed());
  for (int round = 0; round < 50; round++) {
    const uint64_t clusters = random.Between(1, 400);
    const auto bitmap = Make(clusters);
    for (int i = 0; i < 8; i++) {
      const uint64_t first = random.Below(clusters);
      bitmap->Set({first, random.Between(1, std::min<uint64_t>(clusters - first, 70))});
    }
    for (uint64_t first = 0; first < clusters; first++) {
      const ClusterRun run = bitmap->RunAt({first, clusters - first});
      ASSERT_EQ(run.range.first, first);
      uint64_t end = first + 1;
      while (end < clusters && bitmap->Test(end) == bitmap->Test(first)) end++;
      ASSERT_EQ(run.range.end(), end) << first;
      ASSERT_EQ(run.allocated, bitmap->Test(first)) << first;
    }
  }
}

TEST(AllocationBitmap, RunsPassOverPagesWithoutABit) {
  constexpr uint64_t kPage = 32768;
  Random random(TestSeed());
  for (int round = 0; round < 20; round++) {
    const uint64_t clusters = 200 * kPage - random.Below(kPage);
    const auto bitmap = Make(clusters);
    std::vector<ClusterRange> set = {{clusters, 0}};
    for (uint64_t first = random.Below(70 * kPage); first < clusters;) {
      const uint64_t near_page_end = RoundUp(first + 1, kPage) - random.Between(0, 2);
      if (random.Below(2) == 0) first = std::max(first, near_page_end);
      if (first >= clusters) break;
      const uint64_t most = random.Below(3) == 0 ? 2 * kPage : 3;
      const uint64_t count = std::min(clusters - first, random.Between(1, most));
      bitmap->Set({first, count});
      set.insert(set.end() - 1, {first, count});
      first += count + random.Between(1, random.Below(2) == 0 ? 5 : 70 * kPage);
    }
    uint64_t position = 0;
    for (const ClusterRange& next : set) {
      if (next.first > position) {
        const ClusterRun run = bitmap->RunAt({position, clusters - position});
        ASSERT_FALSE(run.allocated);
        ASSERT_EQ(run.range, (ClusterRange{position, next.first - position}));
      }
      if (next.count == 0) break;
      const ClusterRun run = bitmap->RunAt({next.first, clusters - next.first});
      ASSERT_TRUE(run.allocated);
      ASSERT_EQ(run.range, next);
      position = next.end();
    }
  }
}

// A reader looks at the first bit, and then at how far its state goes. Here
// it always looks at the bit that is set next, so that this often happens in
// between.
TEST(AllocationBitmap, RunIsNeverEmptyWhileBitsAreSet) {
  constexpr uint64_t kClusters = 64 * 1024;
  const auto bitmap = Make(kClusters);
  std::thread setter([&] {
    for (uint64_t i = 0; i < kClusters; i++) bitmap->Set({i, 1});
  });
  for (uint64_t i = 0; i < kClusters;) {
    const ClusterRun run = bitmap->RunAt({i, kClusters - i});
    EXPECT_GE(run.range.count, 1u);
    EXPECT_LE(run.range.end(), kClusters);
    if (run.allocated) i = run.range.end();
  }
  setter.join();
  EXPECT_TRUE(bitmap->all());
}

// The first bit of a page is set while somebody is about to pass over the page.
TEST(AllocationBitmap, RunNeverEndsBeforeItsBeginningWhileAPageGetsItsFirstBit) {
  constexpr uint64_t kPageBits = 8 * 4096;
  constexpr uint64_t kPages = 5000;
  const auto bitmap = Make(kPages * kPageBits);
  std::atomic<uint64_t> at = 0;
  std::thread setter([&] {
    for (uint64_t page = 0; page < kPages; page++) {
      while (at < page) std::this_thread::yield();
      bitmap->Set({page * kPageBits, 1});
    }
  });
  // They spin for each other: where there are too few processors, not for all pages.
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  uint64_t wrong = 0;
  for (uint64_t page = 0; page < kPages && std::chrono::steady_clock::now() < end; page++) {
    const uint64_t first = page * kPageBits + 100;
    const ClusterRange range{first, kPages * kPageBits - first};
    at = page;
    while (!bitmap->Test(page * kPageBits)) {
      const ClusterRun run = bitmap->RunAt(range);
      if (run.allocated || run.range != range) wrong++;
    }
  }
  at = kPages;
  setter.join();
  EXPECT_EQ(wrong, 0u);
}

TEST(AllocationBitmap, TooLargeForTheMemoryIsAnError) {
  const auto bitmap = AllocationBitmap::Create(UINT64_MAX / 2, "x.add-cow");
  EXPECT_TRUE(FailsWith(bitmap, ENOMEM));
  EXPECT_TRUE(FailsSaying(bitmap, "x.add-cow: no memory for the bitmap"));
}

}  // namespace
}  // namespace addcow
