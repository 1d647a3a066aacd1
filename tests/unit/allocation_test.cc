// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/allocation: which file has a byte, by both levels of bits, with
// clusters of every size; and what a flush takes of them.

#include "common/image/allocation.h"

#include "tests/support/engine_rooms.h"
#include "tests/support/random.h"

namespace addcow {
namespace {

struct Clusters {
  Revision revision;
  uint64_t size;
};

class AllocationTest : public EngineRooms, public testing::WithParamInterface<Clusters> {
 protected:
  ImageSpec Spec(uint64_t size) const {
    ImageSpec spec{.size = size, .backing_size = size, .garbage = false};
    spec.revision = GetParam().revision;
    spec.cluster_size = GetParam().size;
    return spec;
  }
  const uint64_t c_ = GetParam().size;
};

TEST_P(AllocationTest, NewDiskHasNothing) {
  Make(Spec(3 * c_ - 100));
  EXPECT_FALSE(allocation().RunAt(0, 3 * c_ - 100).in_image);
  EXPECT_EQ(allocation().RunAt(0, 3 * c_ - 100).end, 3 * c_ - 100);
  EXPECT_FALSE(allocation().HasPending());
  EXPECT_FALSE(allocation().AnyPartial());
  EXPECT_EQ(allocation().UnpublishedBytes(), 0u);
}

TEST_P(AllocationTest, GrainsAreSubclustersThatEndWithTheDisk) {
  Make(Spec(3 * c_ - 100));
  EXPECT_EQ(allocation().GrainStart(5000), kS);
  EXPECT_EQ(allocation().GrainEnd(5000), 2 * kS);
  EXPECT_EQ(allocation().GrainEnd(3 * c_ - 200), 3 * c_ - 100);
}

TEST_P(AllocationTest, WithoutSubclustersGrainsAreClusters) {
  Make(Spec(3 * c_ - 100), false);
  EXPECT_EQ(allocation().GrainStart(c_ + 1), c_);
  EXPECT_EQ(allocation().GrainEnd(c_ + 1), 2 * c_);
  EXPECT_EQ(allocation().GrainEnd(2 * c_ + 1), 3 * c_ - 100);
}

// Against a walk over all subclusters, each time some more are set.
TEST_P(AllocationTest, CountsWhatIsThereInPart) {
  const uint64_t size = 80 * c_ - 100;
  Make(Spec(size));
  Random random(static_cast<unsigned>(c_));
  for (int round = 0; round < 40; round++) {
    const uint64_t start = RoundDown(random.Below(size), kS);
    const uint64_t length = round % 3 == 0 ? c_ : kS * (1 + random.Below(3));
    SetInImage(allocation().GrainStart(start),
               allocation().GrainEnd(std::min(start + length, size)));
    AllocationCounts expected{.cluster_size = c_, .clusters = 80};
    for (uint64_t cluster = 0; cluster < 80; cluster++) {
      uint64_t there = 0;
      for (uint64_t at = cluster * c_; at < std::min((cluster + 1) * c_, size); at += kS)
        there += InImage(at, std::min(at + kS, size)) ? 1u : 0u;
      const bool allocated = allocation().clusters().Test(cluster);
      expected.allocated += allocated ? 1u : 0u;
      expected.partial += !allocated && there > 0 ? 1u : 0u;
      expected.subclusters += allocated ? 0 : there;
    }
    const AllocationCounts counts = allocation().Counts();
    EXPECT_EQ(counts.clusters, expected.clusters);
    EXPECT_EQ(counts.allocated, expected.allocated);
    EXPECT_EQ(counts.partial, expected.partial);
    EXPECT_EQ(counts.subclusters, expected.subclusters);
    EXPECT_EQ(counts.unpublished_bytes, allocation().UnpublishedBytes());
  }
}

TEST_P(AllocationTest, EverySubclusterOfAClusterIsTheCluster) {
  Make(Spec(2 * c_));
  for (uint64_t at = 0; at < c_; at += kS) {
    EXPECT_FALSE(allocation().clusters().Test(0));
    SetInImage(at, at + kS);
    EXPECT_TRUE(InImage(0, at + kS));
  }
  EXPECT_TRUE(allocation().clusters().Test(0));
  EXPECT_FALSE(allocation().AnyPartial());
}

TEST_P(AllocationTest, TheLastClusterIsCompleteWithFewer) {
  const uint64_t size = c_ + 100;
  Make(Spec(size));
  SetInImage(c_, size);
  EXPECT_TRUE(allocation().clusters().Test(1));
}

// Against a plain list of bytes.
TEST_P(AllocationTest, RunsAreThoseOfAModel) {
  const uint64_t size = 4 * c_ + 3 * kS + 17;
  Make(Spec(size));
  std::vector<bool> model(DivideUp(size, kS));
  Random random(TestSeed());
  for (int round = 0; round < 40; round++) {
    const uint64_t first = random.Below(model.size());
    const uint64_t count = random.Between(1, std::min<uint64_t>(model.size() - first, 40));
    const uint64_t end = std::min((first + count) * kS, size);
    SetInImage(first * kS, end);
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(first), count, true);
    for (uint64_t at = 0; at < size;) {
      const Allocation::Run run = allocation().RunAt(at, size);
      ASSERT_GT(run.end, at);
      for (uint64_t i = at / kS; i < DivideUp(run.end, kS); i++)
        ASSERT_EQ(run.in_image, model[i]) << "subcluster " << i << ", round " << round;
      at = run.end;
    }
  }
}

TEST_P(AllocationTest, WhatWasPublishedIsFoundAgain) {
  Make(Spec(3 * c_));
  SetInImage(c_ + kS, 3 * c_);
  const bool partial = c_ > 2 * kS || c_ == 2 * kS;
  EXPECT_EQ(allocation().UnpublishedBytes(), 2 * c_ - kS);
  ASSERT_OK(durability().Flush(FlushFor::kWriter));
  EXPECT_FALSE(allocation().HasPending());
  EXPECT_TRUE(allocation().IsDurable(c_ + kS, 3 * c_));
  EXPECT_FALSE(allocation().IsDurable(c_, 3 * c_));
  Reopen();
  EXPECT_FALSE(InImage(c_, c_ + kS));
  EXPECT_TRUE(InImage(c_ + kS, 2 * c_));
  EXPECT_TRUE(InImage(2 * c_, 3 * c_));
  EXPECT_EQ(allocation().AnyPartial(), partial && c_ > kS);
  EXPECT_EQ(rooms_->files.header.subclusters, c_ > kS);
}

TEST_P(AllocationTest, WhatWasNotPublishedIsNot) {
  Make(Spec(3 * c_));
  SetInImage(0, 2 * c_);
  Reopen();
  EXPECT_FALSE(allocation().RunAt(0, 3 * c_).in_image);
}

TEST_P(AllocationTest, BitsThatAreTakenCanBePutBack) {
  Make(Spec(3 * c_));
  SetInImage(kS, 2 * c_);
  Allocation::Taken taken = allocation().Take();
  EXPECT_FALSE(taken.empty());
  EXPECT_FALSE(allocation().HasPending());
  allocation().PutBack(std::move(taken));
  EXPECT_TRUE(allocation().HasPending());
}

TEST_P(AllocationTest, NoRoomForABitIsSaidBeforeItIsSet) {
  Make(Spec(3 * c_));
  const BitmapPlace place = rooms_->files.layout().bitmap();
  ASSERT_TRUE(
      fake_.Find(kAddCowPath)->PunchHole(place.offset, place.padded_end() - place.offset));
  faults_.Set(
      {.at = 1,
       .error = ENOSPC,
       .lasting = FaultPlan::Lasting::kPersistent,
       .where = [](const Operation& operation) { return operation.kind == OpKind::kReserve; }});
  Reopen();
  EXPECT_TRUE(FailsWith(allocation().TakeStorage(0, c_), ENOSPC));
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, AllocationTest,
    testing::Values(Clusters{Revision::kVersion1, 64 * kKiB},
                    Clusters{Revision::kAcow, 4 * kKiB}, Clusters{Revision::kAcow, 8 * kKiB},
                    Clusters{Revision::kAcow, 64 * kKiB}, Clusters{Revision::kAcow, 2 * kMiB}),
    [](const auto& row) {
      return std::string(row.param.revision == Revision::kAcow ? "Acow" : "First") +
             std::to_string(row.param.size / kKiB) + "KiB";
    });

}  // namespace
}  // namespace addcow
