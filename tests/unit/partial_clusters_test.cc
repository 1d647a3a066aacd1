// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/partial_clusters: which sectors of which clusters are noted,
// how they are walked through, and how many clusters there may be.

#include "common/image/partial_clusters.h"

#include <gtest/gtest.h>

#include <utility>

#include "tests/support/expect.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

constexpr uint64_t kS = kSectorSize;
constexpr uint64_t kSectors = SectorSet::kSectors;

SectorSet SetOf(const std::vector<std::pair<uint64_t, uint64_t>>& runs) {
  SectorSet set;
  for (const auto& [first, count] : runs) set.Add(first, count);
  return set;
}

TEST(SectorSet, HasNothingAtFirst) {
  const SectorSet set;
  for (uint64_t i = 0; i < kSectors; i++) {
    EXPECT_FALSE(set.Has(i)) << i;
    EXPECT_EQ(set.RunEnd(i), kSectors) << i;
  }
  EXPECT_FALSE(set.HasFirst(1));
}

TEST(SectorSet, EveryRunIsAddedAndFoundAsItIs) {
  for (uint64_t first = 0; first < kSectors; first++) {
    for (uint64_t end = first + 1; end <= kSectors; end++) {
      const SectorSet set = SetOf({{first, end - first}});
      for (uint64_t i = 0; i < kSectors; i++)
        ASSERT_EQ(set.Has(i), first <= i && i < end) << i << " of " << first << "-" << end;
      if (first > 0) {
        ASSERT_EQ(set.RunEnd(0), first) << end;
      }
      ASSERT_EQ(set.RunEnd(first), end) << first;
      ASSERT_EQ(set.RunEnd(end - 1), end) << first;
      if (end < kSectors) {
        ASSERT_EQ(set.RunEnd(end), kSectors) << first << "-" << end;
      }
    }
  }
}

TEST(SectorSet, RunsGoOnAcrossTheWords) {
  const SectorSet set = SetOf({{60, 4}, {64, 4}});
  EXPECT_EQ(set.RunEnd(60), 68u);
  EXPECT_EQ(set.RunEnd(63), 68u);
  EXPECT_EQ(set.RunEnd(64), 68u);
  EXPECT_EQ(SetOf({{0, 60}, {70, 58}}).RunEnd(60), 70u);
}

TEST(SectorSet, RunsMayEndBetweenTheWords) {
  EXPECT_EQ(SetOf({{60, 4}}).RunEnd(60), 64u);
  EXPECT_EQ(SetOf({{64, 4}}).RunEnd(0), 64u);
}

TEST(SectorSet, AddingAgainChangesNothing) {
  const SectorSet set = SetOf({{10, 20}, {15, 5}, {10, 20}});
  EXPECT_EQ(set.RunEnd(10), 30u);
  EXPECT_FALSE(set.Has(9));
  EXPECT_FALSE(set.Has(30));
}

TEST(SectorSet, AddingNoneChangesNothing) { EXPECT_EQ(SetOf({{64, 0}}).RunEnd(0), kSectors); }

TEST(SectorSet, HasFirstWantsAllOfThem) {
  const SectorSet set = SetOf({{0, 65}, {66, 1}});
  EXPECT_TRUE(set.HasFirst(1));
  EXPECT_TRUE(set.HasFirst(65));
  EXPECT_FALSE(set.HasFirst(66));
  EXPECT_FALSE(set.HasFirst(67));
  EXPECT_FALSE(SetOf({{1, 127}}).HasFirst(1));
  EXPECT_TRUE(SetOf({{0, 128}}).HasFirst(kSectors));
}

using Pieces = std::vector<std::pair<bool, uint64_t>>;  // valid, where it ends

// From one end to the other, each piece taken whole.
Pieces Walk(ValidSectors valid, uint64_t offset, uint64_t limit) {
  Pieces pieces;
  while (offset < limit) {
    const auto piece = valid.At(offset, limit);
    EXPECT_GT(piece.end, offset);
    if (piece.end <= offset) break;
    pieces.emplace_back(piece.valid, piece.end);
    offset = piece.end;
  }
  return pieces;
}

TEST(ValidSectors, OfNoClusterNothingIsValid) {
  EXPECT_TRUE(ValidSectors().none());
  EXPECT_EQ(Walk({}, 100, 3 * kC), (Pieces{{false, 3 * kC}}));
}

TEST(ValidSectors, OneClustersPiecesAreShown) {
  const ValidSectors valid({{1, SetOf({{2, 3}})}});
  EXPECT_FALSE(valid.none());
  EXPECT_EQ(Walk(valid, kC, 2 * kC),
            (Pieces{{false, kC + 2 * kS}, {true, kC + 5 * kS}, {false, 2 * kC}}));
}

TEST(ValidSectors, InvalidPiecesGoOnOverClustersThatAreNotThere) {
  const ValidSectors valid({{1, SetOf({{2, 1}})}, {4, SetOf({{5, 1}})}});
  EXPECT_EQ(Walk(valid, 0, 6 * kC), (Pieces{{false, kC + 2 * kS},
                                            {true, kC + 3 * kS},
                                            {false, 4 * kC + 5 * kS},
                                            {true, 4 * kC + 6 * kS},
                                            {false, 6 * kC}}));
}

TEST(ValidSectors, ValidPiecesGoOnIntoTheNextCluster) {
  const ValidSectors valid(
      {{0, SetOf({{100, 28}})}, {1, SetOf({{0, 128}})}, {2, SetOf({{0, 7}})}});
  EXPECT_EQ(Walk(valid, 0, 3 * kC),
            (Pieces{{false, 100 * kS}, {true, 2 * kC + 7 * kS}, {false, 3 * kC}}));
}

TEST(ValidSectors, ValidPieceEndsWhereTheNextClusterIsNotThere) {
  const ValidSectors valid({{0, SetOf({{0, 128}})}, {2, SetOf({{0, 128}})}});
  EXPECT_EQ(Walk(valid, 0, 3 * kC), (Pieces{{true, kC}, {false, 2 * kC}, {true, 3 * kC}}));
}

TEST(ValidSectors, PiecesEndAtTheLimit) {
  ValidSectors valid({{0, SetOf({{4, 100}})}});
  EXPECT_EQ(valid.At(10, 20).end, 20u);
  const auto piece = valid.At(4 * kS + 1, 4 * kS + 11);
  EXPECT_TRUE(piece.valid);
  EXPECT_EQ(piece.end, 4 * kS + 11);
  EXPECT_EQ(valid.At(104 * kS, 104 * kS + 1).end, 104 * kS + 1);
}

TEST(ValidSectors, OffsetsInsideASectorAreOfThatSector) {
  const ValidSectors valid({{0, SetOf({{1, 1}})}});
  EXPECT_EQ(Walk(valid, 1, 1500), (Pieces{{false, 512}, {true, 1024}, {false, 1500}}));
  EXPECT_EQ(Walk(valid, 700, 1500), (Pieces{{true, 1024}, {false, 1500}}));
}

// As Map does, which cuts them where the backing file's data ends.
TEST(ValidSectors, InvalidPiecesCanBeTakenInParts) {
  ValidSectors valid({{0, SetOf({{0, 100}})}, {1, SetOf({{10, 1}})}});
  for (const uint64_t offset : {100 * kS, 110 * kS, kC, kC + 9 * kS}) {
    const auto piece = valid.At(offset, 2 * kC);
    EXPECT_FALSE(piece.valid) << offset;
    EXPECT_EQ(piece.end, kC + 10 * kS) << offset;
  }
  EXPECT_TRUE(valid.At(kC + 10 * kS, 2 * kC).valid);
}

class PartialClustersTest : public testing::Test {
 protected:
  void Make(uint64_t disk_size, uint64_t limit = PartialClusters::kMost) {
    layout_.emplace(disk_size, kClusterSize);
    auto bitmap = AllocationBitmap::Create(layout_->clusters(), "x.add-cow");
    ASSERT_OK(bitmap);
    bitmap_ = std::move(*bitmap);
    partials_.emplace(*layout_, *bitmap_, limit);
  }
  bool Add(uint64_t cluster, uint64_t first, uint64_t count) {
    return partials_->Add(cluster * kC + first * kS, count * kS);
  }
  // The valid pieces of the whole disk.
  Pieces All() const {
    return Walk(partials_->In({0, layout_->clusters()}), 0, layout_->virtual_size());
  }
  // How many clusters the table takes.
  uint64_t Room() {
    uint64_t cluster = 0;
    while (cluster < layout_->clusters() && partials_->HasRoomFor(cluster))
      Add(cluster++, 0, 1);
    partials_->Remove({0, layout_->clusters()});
    return cluster;
  }

  std::optional<Layout> layout_;
  std::unique_ptr<AllocationBitmap> bitmap_;
  std::optional<PartialClusters> partials_;
};

TEST_F(PartialClustersTest, IsEmptyAtFirst) {
  Make(4 * kC);
  EXPECT_FALSE(partials_->any());
  EXPECT_EQ(partials_->count(), 0u);
  EXPECT_TRUE(partials_->In({0, 4}).none());
  EXPECT_TRUE(partials_->Runs(10).empty());
}

TEST_F(PartialClustersTest, ShowsTheSectorsThatWereAdded) {
  Make(4 * kC);
  EXPECT_FALSE(Add(1, 5, 2));
  EXPECT_FALSE(Add(1, 7, 1));
  EXPECT_FALSE(Add(3, 127, 1));
  EXPECT_EQ(partials_->count(), 2u);
  EXPECT_EQ(
      All(),
      (Pieces{
          {false, kC + 5 * kS}, {true, kC + 8 * kS}, {false, 4 * kC - kS}, {true, 4 * kC}}));
}

TEST_F(PartialClustersTest, ShowsOnlyTheRangeAskedFor) {
  Make(4 * kC);
  for (uint64_t cluster = 0; cluster < 4; cluster++) Add(cluster, 0, 1);
  const ValidSectors valid = partials_->In({1, 2});
  EXPECT_EQ(Walk(valid, 0, 4 * kC), (Pieces{{false, kC},
                                            {true, kC + kS},
                                            {false, 2 * kC},
                                            {true, 2 * kC + kS},
                                            {false, 4 * kC}}));
  EXPECT_TRUE(partials_->In({4, 1}).none());
}

TEST_F(PartialClustersTest, WhatWasShownDoesNotChange) {
  Make(4 * kC);
  Add(0, 0, 1);
  const ValidSectors before = partials_->In({0, 4});
  Add(0, 1, 1);
  partials_->Remove({0, 1});
  EXPECT_EQ(Walk(before, 0, kC), (Pieces{{true, kS}, {false, kC}}));
}

TEST_F(PartialClustersTest, LastMissingSectorCompletesTheCluster) {
  Make(4 * kC);
  EXPECT_FALSE(Add(2, 1, 126));
  EXPECT_FALSE(Add(2, 127, 1));
  EXPECT_TRUE(Add(2, 0, 1));
  EXPECT_TRUE(Add(2, 3, 1));  // and it stays complete
}

TEST_F(PartialClustersTest, LastClusterIsCompleteWhereTheDiskEnds) {
  Make(kC + 2 * kS);
  EXPECT_FALSE(Add(1, 0, 1));
  EXPECT_TRUE(Add(1, 1, 1));
}

TEST_F(PartialClustersTest, LastSectorMayBeCutByTheEndOfTheDisk) {
  Make(kC + kS + 10);
  EXPECT_FALSE(partials_->Add(kC + kS, 10));
  EXPECT_EQ(All(), (Pieces{{false, kC + kS}, {true, kC + kS + 10}}));
  EXPECT_TRUE(Add(1, 0, 1));
}

TEST_F(PartialClustersTest, DiskOfOneByteIsCompleteWithIt) {
  Make(1);
  EXPECT_TRUE(partials_->Add(0, 1));
}

TEST_F(PartialClustersTest, OfAnAllocatedClusterNothingIsNoted) {
  Make(4 * kC);
  bitmap_->Set({1, 1});
  EXPECT_FALSE(Add(1, 0, 128));
  EXPECT_FALSE(partials_->any());
}

TEST_F(PartialClustersTest, RemoveTakesOutTheRangeAndNothingElse) {
  Make(6 * kC);
  for (uint64_t cluster = 0; cluster < 6; cluster++) Add(cluster, 0, 1);
  partials_->Remove({1, 3});
  EXPECT_EQ(partials_->count(), 3u);
  EXPECT_EQ(partials_->Runs(10), (std::vector<ClusterRange>{{0, 1}, {4, 2}}));
  partials_->Remove({1, 3});
  EXPECT_EQ(partials_->count(), 3u);
  partials_->Remove({0, 6});
  EXPECT_FALSE(partials_->any());
}

TEST_F(PartialClustersTest, RunsAreOfNeighboursAndNoLongerThanTold) {
  Make(20 * kC);
  for (const uint64_t cluster : {7u, 0u, 1u, 3u, 4u, 5u, 6u, 8u, 19u}) Add(cluster, 0, 1);
  EXPECT_EQ(partials_->Runs(100), (std::vector<ClusterRange>{{0, 2}, {3, 6}, {19, 1}}));
  EXPECT_EQ(partials_->Runs(4), (std::vector<ClusterRange>{{0, 2}, {3, 4}, {7, 2}, {19, 1}}));
}

TEST_F(PartialClustersTest, RunAtTellsPartialClustersFromOthers) {
  Make(10 * kC);
  const auto run_at = [&](uint64_t first, uint64_t count) {
    const auto run = partials_->RunAt({first, count});
    EXPECT_EQ(run.range.first, first);
    return std::pair(run.partial, run.range.count);
  };
  EXPECT_EQ(run_at(0, 10), std::pair(false, uint64_t{10}));
  for (const uint64_t cluster : {3u, 4u, 6u}) Add(cluster, 0, 1);
  EXPECT_EQ(run_at(0, 10), std::pair(false, uint64_t{3}));
  EXPECT_EQ(run_at(0, 2), std::pair(false, uint64_t{2}));
  EXPECT_EQ(run_at(3, 7), std::pair(true, uint64_t{2}));
  EXPECT_EQ(run_at(3, 1), std::pair(true, uint64_t{1}));
  EXPECT_EQ(run_at(5, 5), std::pair(false, uint64_t{1}));
  EXPECT_EQ(run_at(7, 3), std::pair(false, uint64_t{3}));
}

// How many there may be.

TEST_F(PartialClustersTest, FullTableHasRoomOnlyForWhatIsInIt) {
  Make(10 * kC, 2);
  EXPECT_TRUE(partials_->HasRoomFor(0));
  Add(0, 0, 1);
  EXPECT_TRUE(partials_->HasRoomFor(5));
  Add(5, 0, 1);
  EXPECT_FALSE(partials_->HasRoomFor(6));
  EXPECT_TRUE(partials_->HasRoomFor(5));
  partials_->Remove({0, 1});
  EXPECT_TRUE(partials_->HasRoomFor(6));
}

TEST_F(PartialClustersTest, WithoutALimitAboveZeroThereIsNoRoom) {
  Make(10 * kC, 0);
  EXPECT_FALSE(partials_->HasRoomFor(0));
}

TEST_F(PartialClustersTest, HalfOfTheRoomTakenIsCrowded) {
  Make(10 * kC, 4);
  EXPECT_FALSE(partials_->crowded());
  Add(0, 0, 1);
  EXPECT_FALSE(partials_->crowded());
  Add(0, 5, 1);
  EXPECT_FALSE(partials_->crowded());
  Add(1, 0, 1);
  EXPECT_TRUE(partials_->crowded());
  partials_->Remove({0, 1});
  EXPECT_FALSE(partials_->crowded());
}

TEST_F(PartialClustersTest, RoomIsForWhatIsFilledInASecond) {
  Make(70000 * kC);
  EXPECT_EQ(Room(), PartialClusters::kMost);
  partials_->Filled(1000, 1.0);
  EXPECT_EQ(Room(), 1000u);
  partials_->Filled(1000, 2.0);
  EXPECT_EQ(Room(), 500u);
  partials_->Filled(1000, 0.5);
  EXPECT_EQ(Room(), 2000u);
}

TEST_F(PartialClustersTest, RoomHasALeastAndAMost) {
  Make(70000 * kC);
  partials_->Filled(1000, 1000.0);
  EXPECT_EQ(Room(), PartialClusters::kLeast);
  partials_->Filled(1000, 1e-9);
  EXPECT_EQ(Room(), PartialClusters::kMost);
}

TEST_F(PartialClustersTest, RoomNeverExceedsTheLimitGivenAtFirst) {
  Make(1000 * kC, 10);
  partials_->Filled(1000, 1e-9);
  EXPECT_EQ(Room(), 10u);
  partials_->Filled(1000, 1000.0);
  EXPECT_EQ(Room(), 10u);
}

TEST_F(PartialClustersTest, FewClustersOrNoTimeSayNothing) {
  Make(2000 * kC, 1000);
  partials_->Filled(PartialClusters::kEnough - 1, 1.0);
  EXPECT_EQ(Room(), 1000u);
  partials_->Filled(500, 0.0);
  EXPECT_EQ(Room(), 1000u);
  partials_->Filled(PartialClusters::kEnough, 1.0);
  EXPECT_EQ(Room(), PartialClusters::kLeast);
}

}  // namespace
}  // namespace addcow
