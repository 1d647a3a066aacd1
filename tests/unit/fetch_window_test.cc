// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fetch_window: who reads which block, and what of it can be kept.

#include "common/jobs/fetch_window.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/support/racer.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

using Block = FetchWindow::Block;
using Found = FetchWindow::Found;
using Kept = std::vector<ByteRange>;

constexpr ByteRange kWindow{kC, kC};

TEST(FetchWindow, ClaimsEachBlockOnce) {
  FetchWindow window(kC, 2 * kC);
  EXPECT_EQ(window.Claim({kC + 5, 10}, {kC, 2 * kS}), (ByteRange{kC, 2 * kS}));
  EXPECT_EQ(window.Claim({kC, 3 * kS}, kWindow), (ByteRange{kC + 2 * kS, kC - 2 * kS}));
  EXPECT_EQ(window.Claim(kWindow, kWindow).length, 0u);
}

TEST(FetchWindow, ClaimEndsWithTheDisk) {
  FetchWindow window(kC, kC + kS + 100);
  EXPECT_EQ(window.length(), kS + 100);
  EXPECT_EQ(window.Claim({kC + kS, 1}, {kC, kS + 100}), (ByteRange{kC, kS + 100}));
}

TEST(FetchWindow, OnlyWhatIsThereIsThere) {
  FetchWindow window(kC, 2 * kC);
  EXPECT_EQ(window.Wait({kC, 1}), Found::kIdle);
  for (const auto& [to, found] : {std::pair{Block::kData, Found::kThere},
                                  {Block::kZero, Found::kThere},
                                  {Block::kElsewhere, Found::kNot},
                                  {Block::kFailed, Found::kNot},
                                  {Block::kIdle, Found::kIdle}}) {
    const ByteRange claimed = window.Claim(kWindow, kWindow);
    const ByteRange first{claimed.offset, kS};
    window.Set(first, to);
    window.Set(claimed, Block::kIdle);
    EXPECT_EQ(window.Wait(first), found);
  }
}

TEST(FetchWindow, WaitsOnlyForItsOwnBlocks) {
  FetchWindow window(kC, 2 * kC);
  (void)window.Claim(kWindow, kWindow);
  window.Set({kC, kS}, Block::kData);
  EXPECT_EQ(window.Wait({kC, kS}), Found::kThere);
  Found found = Found::kNot;
  Racer waiter([&] { found = window.Wait({kC, 2 * kS}); });
  waiter.WaitUntilBlockedOrDone();
  EXPECT_FALSE(waiter.done());
  window.Set({kC + kS, kS}, Block::kData);
  waiter.Join();
  EXPECT_EQ(found, Found::kThere);
}

TEST(FetchWindow, SetTouchesNothingThatSomebodyElseHasSaid) {
  FetchWindow window(kC, 2 * kC);
  (void)window.Claim(kWindow, kWindow);
  window.Set({kC, kS}, Block::kData);
  window.Set(kWindow, Block::kFailed);
  EXPECT_EQ(window.Wait({kC, kS}), Found::kThere);
  EXPECT_EQ(window.Wait({kC, 2 * kS}), Found::kNot);
}

TEST(FetchWindow, IsSettledWhenNothingIsIdleOrRead) {
  FetchWindow window(kC, 2 * kC);
  EXPECT_FALSE(window.WaitUntilSettled());
  (void)window.Claim({kC, kS}, {kC, kS});
  bool settled = true;
  Racer waiter([&] { settled = window.WaitUntilSettled(); });
  waiter.WaitUntilBlockedOrDone();
  EXPECT_FALSE(waiter.done());
  window.Set({kC, kS}, Block::kData);
  waiter.Join();
  EXPECT_FALSE(settled);
  window.GiveUpIdle();
  EXPECT_TRUE(window.WaitUntilSettled());
  EXPECT_EQ(window.Wait({kC, kS}), Found::kThere);
}

// What ToKeep says of a window of two clusters, block by block: '.' failed, 'd' data,
// 'z' zero, 'e' elsewhere.
Kept ToKeep(const std::string& blocks, uint64_t unit, uint64_t grain, uint64_t cut = 0) {
  FetchWindow window(2 * kC, 2 * kC + blocks.size() * kS - cut);
  const ByteRange all{window.offset(), window.length()};
  (void)window.Claim(all, all);
  for (size_t i = 0; i < blocks.size(); i++) {
    const char c = blocks[i];
    const uint64_t offset = window.offset() + i * kS;
    window.Set({offset, std::min(kS, window.end() - offset)}, c == 'd'   ? Block::kData
                                                              : c == 'z' ? Block::kZero
                                                              : c == 'e' ? Block::kElsewhere
                                                                         : Block::kFailed);
  }
  Kept ranges = window.ToKeep(unit, grain);
  for (ByteRange& range : ranges) range.offset -= window.offset();
  return ranges;
}

TEST(FetchWindow, KeepsWholeUnits) {
  EXPECT_EQ(ToKeep("dddddddd", 4 * kS, kS), (Kept{{0, 8 * kS}}));
  EXPECT_EQ(ToKeep("dzzzzezd", 4 * kS, kS), (Kept{{0, 8 * kS}}));
  EXPECT_EQ(ToKeep("dddd", 4 * kS, 4 * kS), (Kept{{0, 4 * kS}}));
}

TEST(FetchWindow, KeepsNoUnitWithoutData) {
  EXPECT_EQ(ToKeep("zzzzdddd", 4 * kS, kS), (Kept{{4 * kS, 4 * kS}}));
  EXPECT_EQ(ToKeep("zzezeeee", 4 * kS, kS), Kept{});
}

TEST(FetchWindow, OfAUnitThatIsNotWholeKeepsGrains) {
  EXPECT_EQ(ToKeep("dd.zzddd", 4 * kS, kS), (Kept{{0, 2 * kS}, {4 * kS, 4 * kS}}));
  EXPECT_EQ(ToKeep("d.zd", 4 * kS, 2 * kS), (Kept{{2 * kS, 2 * kS}}));
  EXPECT_EQ(ToKeep("de.d", 4 * kS, kS), (Kept{{0, kS}, {3 * kS, kS}}));
}

TEST(FetchWindow, OfAGrainItKeepsAllOrNothing) {
  EXPECT_EQ(ToKeep("ddd.", 4 * kS, 4 * kS), Kept{});
  EXPECT_EQ(ToKeep("ddde", 4 * kS, 4 * kS), Kept{});
  EXPECT_EQ(ToKeep("dzzd", 4 * kS, 4 * kS), (Kept{{0, 4 * kS}}));
}

TEST(FetchWindow, LastUnitEndsWithTheDisk) {
  EXPECT_EQ(ToKeep("dddddd", 4 * kS, kS, 100), (Kept{{0, 6 * kS - 100}}));
  EXPECT_EQ(ToKeep("zzzzd", 4 * kS, 4 * kS, 1), (Kept{{4 * kS, kS - 1}}));
  EXPECT_EQ(ToKeep("zzzz.d", 4 * kS, kS, 1), (Kept{{5 * kS, kS - 1}}));
}

}  // namespace
}  // namespace addcow
