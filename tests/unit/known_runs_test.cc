// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a server has said of its zeroes is kept as it was said.

#include "common/source/known_runs.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "tests/support/random.h"

namespace addcow {
namespace {

// Against a byte for each byte.
TEST(KnownRuns, KnowWhatWasSaidLast) {
  Random random(5);
  for (int round = 0; round < 200; round++) {
    constexpr uint64_t kSize = 64;
    KnownRuns runs(1000);
    std::vector<std::optional<bool>> model(kSize);
    for (int i = 0; i < 30; i++) {
      const uint64_t start = random.Below(kSize);
      const uint64_t end = random.Between(start, kSize);
      const bool data = random.OneIn(2);
      runs.Add(start, end, data);
      for (uint64_t at = start; at < end; at++) model[at] = data;
      for (uint64_t at = 0; at < kSize; at++) {
        const auto run = runs.At(at);
        ASSERT_EQ(run.has_value(), model[at].has_value()) << at;
        if (!run) continue;
        ASSERT_EQ(run->data, *model[at]) << at;
        // To the last byte that is alike and was told.
        uint64_t alike = at;
        while (alike < kSize && model[alike] == model[at]) alike++;
        ASSERT_EQ(run->end, alike) << at;
      }
    }
  }
}

TEST(KnownRuns, ForgetAllWhereThereAreTooMany) {
  KnownRuns runs(10);
  for (uint64_t i = 0; i < 10; i++) runs.Add(2 * i, 2 * i + 1, true);
  EXPECT_FALSE(runs.forgot());
  EXPECT_TRUE(runs.At(0));
  runs.Add(100, 101, false);
  EXPECT_TRUE(runs.forgot());
  EXPECT_FALSE(runs.At(0));
  EXPECT_TRUE(runs.At(100));
  EXPECT_LE(runs.size(), 10u);
}

TEST(KnownRuns, AnEmptyRangeSaysNothing) {
  KnownRuns runs(10);
  runs.Add(5, 5, true);
  EXPECT_FALSE(runs.At(5));
  EXPECT_EQ(runs.size(), 0u);
}

}  // namespace
}  // namespace addcow
