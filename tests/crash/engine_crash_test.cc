// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The engine when the power fails, one scenario at a time. For each, every
// subset of the writes that were not synced is tried at every moment.

#include <gtest/gtest.h>

#include <tuple>

#include "tests/crash/crash_harness.h"
#include "tests/support/expect.h"

namespace addcow {
namespace {

class EngineCrash : public testing::TestWithParam<bool> {
 protected:
  static constexpr CrashDisk::Effort kEffort{.exhaustive = 12, .samples = 256};

  void Make(const ImageSpec& spec) {
    harness_.emplace(spec, FakeInode::Abilities{}, 1, kEffort, CrashHarness::Origin::kFound,
                     GetParam());
  }

  // Also the states after the last request.
  void TearDown() override {
    if (!harness_) return;
    harness_->CheckStates();
    EXPECT_EQ(harness_->wrong(), "");
    EXPECT_GT(harness_->states(), 4u);
  }

  CrashHarness& disk() { return *harness_; }

  // Of the cluster's first byte.
  bool BitIsDurable(uint64_t cluster) { return harness_->IsDurable(cluster * kC); }
  // Whether this process reads the byte from the image file.
  bool InImage(uint64_t offset) {
    Extent::Source source = Extent::Source::kNone;
    EXPECT_OK(disk().image().Map(offset, 1, [&](const Extent& extent) {
      source = extent.source;
      return true;
    }));
    return source == Extent::Source::kImage;
  }

  std::optional<CrashHarness> harness_;
};

INSTANTIATE_TEST_SUITE_P(, EngineCrash, testing::Bool(), [](const auto& parameter) {
  return parameter.param ? "Subclusters" : "Clusters";
});

TEST_P(EngineCrash, SmallWriteAndFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(BitIsDurable(0));
}

TEST_P(EngineCrash, WriteWithoutAFlushLeavesOldOrNothingElse) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  EXPECT_FALSE(BitIsDurable(0));
}

TEST_P(EngineCrash, WholeClustersAndFlush) {
  Make({.size = 3 * kC, .backing_size = 3 * kC});
  ASSERT_OK(disk().Write(0, 2 * kC));
  ASSERT_OK(disk().Flush());
}

TEST_P(EngineCrash, FlushedThenWrittenAgain) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 1000));
  ASSERT_OK(disk().Flush());
  ASSERT_OK(disk().Write(1200, 1000));
  ASSERT_OK(disk().Write(65000, 1000));
  ASSERT_OK(disk().Flush());
}

TEST_P(EngineCrash, FuaWrite) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(kC - 700, 1400, Fua::kYes));
}

TEST_P(EngineCrash, FuaZero) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Zero(kC - 700, 1400, {}, Fua::kYes));
}

TEST_P(EngineCrash, TrimOfWhatTheBackingFileFills) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Zero(0, kC, {}));
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(BitIsDurable(0));
}

TEST_P(EngineCrash, TrimOfAnAllocatedCluster) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  ASSERT_OK(disk().Zero(0, kC, {}));
  ASSERT_OK(disk().Flush());
}

TEST_P(EngineCrash, TrimAndThenWriteIntoIt) {
  Make({.size = 2 * kC, .backing_size = kC + 1000});
  ASSERT_OK(disk().Zero(100, kC + 5000, {}));
  ASSERT_OK(disk().Write(2000, 10));
  ASSERT_OK(disk().Write(kC + 2000, 10));
  ASSERT_OK(disk().Flush());
}

TEST_P(EngineCrash, ZeroWithoutPunching) {
  Make({.size = 2 * kC, .backing_size = kC / 2});
  ASSERT_OK(disk().Zero(100, kC + 5000, {.may_punch = false}));
  ASSERT_OK(disk().Flush());
}

TEST_P(EngineCrash, CopyUpOfEverythingSetsTheFlagLast) {
  Make({.size = 3 * kC - 100, .backing_size = 2 * kC + 50});
  ASSERT_OK(disk().CopyUp({0, 3}));
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(disk().image().bitmap().all());
  const auto files = disk().disk().CrashLosingAll();
  ASSERT_OK(files->Remove(kBackingPath));
  EXPECT_OK(OpenTestImage(*files));
}

TEST_P(EngineCrash, CloseIsAFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Close());
}

TEST_P(EngineCrash, BackingFileAbsent) {
  Make({.size = 2 * kC, .backing_size = {}});
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Flush());
}

// Another thread writes while a flush is under way: neither its bits nor its
// data may go with that flush.
TEST_P(EngineCrash, ClusterAllocatedDuringAFlush) {
  Make({.size = 6 * kC, .backing_size = 6 * kC});
  uint64_t next = 1;
  disk().SetMeanwhile([&] {
    if (next < 6) {
      EXPECT_OK(disk().Write(next++ * kC + 300, 1000));
    }
  });
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Flush());
  EXPECT_GT(next, 3u);
  disk().SetMeanwhile(nullptr);
  ASSERT_OK(disk().Flush());
}

TEST_P(EngineCrash, LastClusterAllocatedDuringAFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  disk().SetMeanwhile([&] { EXPECT_OK(disk().Write(kC, kC)); });
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Flush());
  disk().SetMeanwhile(nullptr);
  ASSERT_OK(disk().Flush());
}

TEST_P(EngineCrash, AllocatedClusterWrittenDuringAFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  disk().SetMeanwhile([&] { EXPECT_OK(disk().Write(1050, 1000)); });
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Flush());
}

// The kernel forgets what a failed sync should have written. Nothing may be
// acknowledged as flushed after that.
TEST_P(EngineCrash, SyncOfTheImageFileFails) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  disk().FailNextSync(kImagePath);
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Write(5000, 100));
  EXPECT_FALSE(disk().Close());
}

TEST_P(EngineCrash, SyncOfTheAddCowFileFails) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  disk().FailNextSync(kAddCowPath);
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Close());
}

// A process that was killed between writing bits and syncing them leaves bits
// that the next one sees and a crash can still take away.
TEST_P(EngineCrash, KilledBeforeTheBitsWereSynced) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(kC, 100));
  ASSERT_OK(disk().Flush());
  ASSERT_OK(disk().Write(1000, 100));
  disk().StopBefore(OpKind::kSyncData, kAddCowPath);
  EXPECT_FALSE(disk().Flush());
  disk().Kill();
  EXPECT_TRUE(InImage(0));
  EXPECT_FALSE(BitIsDurable(0));
  ASSERT_OK(disk().Write(3000, 100));
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(BitIsDurable(0));
}

TEST_P(EngineCrash, KilledBeforeTheLastBitsWereSynced) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(0, 2 * kC));
  disk().StopBefore(OpKind::kSyncData, kAddCowPath);
  EXPECT_FALSE(disk().Flush());
  disk().Kill();
  ASSERT_OK(disk().Flush());
}

TEST_P(EngineCrash, KilledBeforeTheFlagWasSynced) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().CopyUp({0, 2}));
  int writes = 0;
  disk().SetMeanwhile([&] {
    // The last sync of this flush is that of the flag.
    if (++writes == 4) disk().StopBefore(OpKind::kSyncData, kAddCowPath);
  });
  EXPECT_FALSE(disk().Flush());
  disk().SetMeanwhile(nullptr);
  disk().Kill();
  ASSERT_OK(disk().Write(100, 100));
  ASSERT_OK(disk().Flush());
}

TEST_P(EngineCrash, BitsThatCouldNotBeWrittenGoWithALaterFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  disk().StopBefore(OpKind::kWrite, kAddCowPath);
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(BitIsDurable(0));
}

// Subclusters. The first flush makes the growth of the file durable, then the feature,
// then the bits.

class SubclusterCrash : public EngineCrash {};
INSTANTIATE_TEST_SUITE_P(, SubclusterCrash, testing::Values(true));

TEST_P(SubclusterCrash, KilledBeforeAnyStepOfTheFirstFlush) {
  for (const auto& [kind, path, nth] : std::vector<std::tuple<OpKind, const char*, uint64_t>>{
           {OpKind::kSyncData, kImagePath, 1},
           {OpKind::kSyncData, kAddCowPath, 1},
           {OpKind::kWrite, kAddCowPath, 1},
           {OpKind::kSyncData, kAddCowPath, 2},
           {OpKind::kWrite, kAddCowPath, 2},
           {OpKind::kSyncData, kAddCowPath, 3}}) {
    Make({.size = 2 * kC, .backing_size = 2 * kC});
    ASSERT_OK(disk().Write(4096, 4096));
    disk().StopBefore(kind, path, nth);
    EXPECT_FALSE(disk().Flush());
    disk().Kill();
    ASSERT_OK(disk().Write(kC + 8192, 4096));
    ASSERT_OK(disk().Flush());
    EXPECT_TRUE(disk().IsDurable(kC + 8192));
    disk().CheckStates();
    EXPECT_EQ(disk().wrong(), "");
  }
}

TEST_P(SubclusterCrash, LastSubclusterMakesAClusterOfThem) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  for (uint64_t i = 0; i < 15; i++) ASSERT_OK(disk().Write(i * 4096, 4096));
  ASSERT_OK(disk().Flush());
  ASSERT_OK(disk().Write(15 * 4096 + 1, 4095));
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(disk().image().bitmap().Test(0));
}

// What is found may be set by a process that was killed before it synced it.
TEST_P(SubclusterCrash, CloseWithoutPartialClustersLeavesAFileOfVersion1) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .subclusters = {3, 4}});
  ASSERT_OK(disk().CopyUp({0, 1}));
  ASSERT_OK(disk().Close());
  EXPECT_FALSE(disk().HasSubclusters());
  EXPECT_TRUE(BitIsDurable(0));
}

TEST_P(SubclusterCrash, BitsOfBeforeDoNotComeBackWithTheFeature) {
  Make({.size = 3 * kC, .backing_size = 3 * kC});
  for (uint64_t i = 0; i < 2; i++) {
    ASSERT_OK(disk().Write(i * kC + 4096, 4096));
    ASSERT_OK(disk().Flush());
    ASSERT_OK(disk().CopyUp({0, i + 1}));
    ASSERT_OK(disk().Close());
    EXPECT_FALSE(disk().HasSubclusters());
    disk().Kill();
    ASSERT_OK(disk().Write((i + 1) * kC + 8192, 4096));
    ASSERT_OK(disk().Flush());
    EXPECT_TRUE(disk().HasSubclusters());
    disk().CrashAndGoOn();
  }
}

TEST_P(SubclusterCrash, AllAllocatedEndsThem) {
  Make({.size = 2 * kC - 100, .backing_size = 2 * kC, .subclusters = {3, 20}});
  ASSERT_OK(disk().Write(12 * 4096, 2000));
  ASSERT_OK(disk().Flush());
  ASSERT_OK(disk().CopyUp({0, 2}));
  ASSERT_OK(disk().Flush());
  EXPECT_FALSE(disk().HasSubclusters());
  EXPECT_TRUE(BitIsDurable(1));
}

TEST_P(SubclusterCrash, SubclustersWrittenDuringTheFirstFlush) {
  Make({.size = 6 * kC, .backing_size = 6 * kC});
  uint64_t next = 2;
  disk().SetMeanwhile([&] {
    if (next < 12) {
      EXPECT_OK(disk().Write(next++ * 4096, 4096));
    }
  });
  ASSERT_OK(disk().Write(4096, 4096));
  ASSERT_OK(disk().Flush());
  EXPECT_GT(next, 5u);
  disk().SetMeanwhile(nullptr);
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(disk().IsDurable((next - 1) * 4096));
}

}  // namespace
}  // namespace addcow
