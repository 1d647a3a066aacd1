// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The engine when the power fails, one scenario at a time, with clusters of all sizes.
// For each, every subset of the writes that were not synced is tried at every moment.

#include <gtest/gtest.h>

#include <tuple>

#include "tests/crash/crash_harness.h"
#include "tests/support/expect.h"
#include "tests/support/forms.h"

namespace addcow {
namespace {

struct Setup {
  const char* name;
  Form form;
  bool subclusters;  // whether the engine may use them

  friend void PrintTo(const Setup& setup, std::ostream* out) { *out << setup.name; }
};

// Places are multiples of 64 KiB. A disk is a part of one cluster of 2 MiB.
constexpr Setup kSubclusters{"Subclusters", kVersion1Form, true};
constexpr Setup kClusters{"Clusters", kVersion1Form, false};
constexpr Setup k4k{"Acow4k", k4kForm, true};
constexpr Setup k2M{"Acow2M", k2MForm, true};

class EngineCrash : public testing::TestWithParam<Setup> {
 protected:
  void Make(const ImageSpec& spec) {
    const Form& form = GetParam().form;
    const size_t most = form.cluster_size > kC ? 9 : 12;  // it has many subclusters
    harness_.emplace(InForm(spec, form), FakeInode::Abilities{}, 1,
                     CrashDisk::Effort{.exhaustive = most, .samples = 256},
                     CrashHarness::Origin::kFound, GetParam().subclusters);
  }

  // Also the states after the last request.
  void TearDown() override {
    if (!harness_) return;
    harness_->CheckStates();
    EXPECT_EQ(harness_->wrong(), "");
    EXPECT_GT(harness_->states(), 4u);
  }

  CrashHarness& disk() { return *harness_; }
  Status CopyUp(uint64_t offset, uint64_t length) {
    return disk().CopyUp(disk().layout().Touched(offset, length));
  }

  // Of the first byte of so many times 64 KiB.
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

std::string SetupName(const testing::TestParamInfo<Setup>& one) { return one.param.name; }

INSTANTIATE_TEST_SUITE_P(, EngineCrash, testing::Values(kSubclusters, kClusters, k4k, k2M),
                         SetupName);

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
  ASSERT_OK(CopyUp(0, 3 * kC - 100));
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
  ASSERT_OK(CopyUp(0, disk().size()));
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
INSTANTIATE_TEST_SUITE_P(, SubclusterCrash, testing::Values(kSubclusters), SetupName);

class FirstFlushCrash : public EngineCrash {};
INSTANTIATE_TEST_SUITE_P(, FirstFlushCrash, testing::Values(kSubclusters, k2M), SetupName);

TEST_P(FirstFlushCrash, KilledBeforeAnyOfItsSteps) {
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
  ASSERT_OK(CopyUp(0, kC));
  ASSERT_OK(disk().Close());
  EXPECT_FALSE(disk().HasSubclusters());
  EXPECT_TRUE(BitIsDurable(0));
}

TEST_P(SubclusterCrash, BitsOfBeforeDoNotComeBackWithTheFeature) {
  Make({.size = 3 * kC, .backing_size = 3 * kC});
  for (uint64_t i = 0; i < 2; i++) {
    ASSERT_OK(disk().Write(i * kC + 4096, 4096));
    ASSERT_OK(disk().Flush());
    ASSERT_OK(CopyUp(0, (i + 1) * kC));
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
  ASSERT_OK(CopyUp(0, disk().size()));
  ASSERT_OK(disk().Flush());
  EXPECT_FALSE(disk().HasSubclusters());
  EXPECT_TRUE(BitIsDurable(1));
}

TEST_P(FirstFlushCrash, SubclustersWrittenMeanwhile) {
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
