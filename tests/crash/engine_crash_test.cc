// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The engine when the power fails, one scenario at a time. For each, every
// subset of the writes that were not synced is tried at every moment.

#include <gtest/gtest.h>

#include "tests/crash/crash_harness.h"
#include "tests/support/expect.h"

namespace addcow {
namespace {

class EngineCrash : public testing::Test {
 protected:
  static constexpr CrashDisk::Effort kEffort{.exhaustive = 12, .samples = 256};

  void Make(const ImageSpec& spec) {
    harness_.emplace(spec, FakeInode::Abilities{}, 1, kEffort);
  }

  // Also the states after the last request.
  void TearDown() override {
    if (!harness_) return;
    harness_->CheckStates();
    EXPECT_EQ(harness_->wrong(), "");
    EXPECT_GT(harness_->states(), 4u);
  }

  CrashHarness& disk() { return *harness_; }

  // The add-cow file as the worst crash leaves it.
  bool BitIsDurable(uint64_t cluster) {
    const auto files = harness_->disk().CrashLosingAll();
    const auto byte = files->Find(kAddCowPath)->Bytes(kBitmapOffset + cluster / 8, 1)[0];
    return (static_cast<unsigned>(byte) >> (cluster % 8) & 1) != 0;
  }

  std::optional<CrashHarness> harness_;
};

TEST_F(EngineCrash, SmallWriteAndFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(BitIsDurable(0));
}

TEST_F(EngineCrash, WriteWithoutAFlushLeavesOldOrNothingElse) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  EXPECT_FALSE(BitIsDurable(0));
}

TEST_F(EngineCrash, WholeClustersAndFlush) {
  Make({.size = 3 * kC, .backing_size = 3 * kC});
  ASSERT_OK(disk().Write(0, 2 * kC));
  ASSERT_OK(disk().Flush());
}

TEST_F(EngineCrash, FlushedThenWrittenAgain) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 1000));
  ASSERT_OK(disk().Flush());
  ASSERT_OK(disk().Write(1200, 1000));
  ASSERT_OK(disk().Write(65000, 1000));
  ASSERT_OK(disk().Flush());
}

TEST_F(EngineCrash, FuaWrite) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(kC - 700, 1400, Fua::kYes));
}

TEST_F(EngineCrash, FuaZero) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Zero(kC - 700, 1400, {}, Fua::kYes));
}

TEST_F(EngineCrash, TrimOfWhatTheBackingFileFills) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Zero(0, kC, {}));
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(BitIsDurable(0));
}

TEST_F(EngineCrash, TrimOfAnAllocatedCluster) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  ASSERT_OK(disk().Zero(0, kC, {}));
  ASSERT_OK(disk().Flush());
}

TEST_F(EngineCrash, TrimAndThenWriteIntoIt) {
  Make({.size = 2 * kC, .backing_size = kC + 1000});
  ASSERT_OK(disk().Zero(100, kC + 5000, {}));
  ASSERT_OK(disk().Write(2000, 10));
  ASSERT_OK(disk().Write(kC + 2000, 10));
  ASSERT_OK(disk().Flush());
}

TEST_F(EngineCrash, ZeroWithoutPunching) {
  Make({.size = 2 * kC, .backing_size = kC / 2});
  ASSERT_OK(disk().Zero(100, kC + 5000, {.may_punch = false}));
  ASSERT_OK(disk().Flush());
}

TEST_F(EngineCrash, CopyUpOfEverythingSetsTheFlagLast) {
  Make({.size = 3 * kC - 100, .backing_size = 2 * kC + 50});
  ASSERT_OK(disk().CopyUp({0, 3}));
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(disk().image().bitmap().all());
  const auto files = disk().disk().CrashLosingAll();
  ASSERT_OK(files->Remove(kBackingPath));
  EXPECT_OK(OpenTestImage(*files));
}

TEST_F(EngineCrash, CloseIsAFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Close());
}

TEST_F(EngineCrash, BackingFileAbsent) {
  Make({.size = 2 * kC, .backing_size = {}});
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Flush());
}

// Another thread writes while a flush is under way: neither its bits nor its
// data may go with that flush.
TEST_F(EngineCrash, ClusterAllocatedDuringAFlush) {
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

TEST_F(EngineCrash, LastClusterAllocatedDuringAFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  disk().SetMeanwhile([&] { EXPECT_OK(disk().Write(kC, kC)); });
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Flush());
  disk().SetMeanwhile(nullptr);
  ASSERT_OK(disk().Flush());
}

TEST_F(EngineCrash, AllocatedClusterWrittenDuringAFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  disk().SetMeanwhile([&] { EXPECT_OK(disk().Write(1050, 1000)); });
  ASSERT_OK(disk().Write(1000, 100));
  ASSERT_OK(disk().Flush());
}

// The kernel forgets what a failed sync should have written. Nothing may be
// acknowledged as flushed after that.
TEST_F(EngineCrash, SyncOfTheImageFileFails) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  disk().FailNextSync(kImagePath);
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Write(5000, 100));
  EXPECT_FALSE(disk().Close());
}

TEST_F(EngineCrash, SyncOfTheAddCowFileFails) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  disk().FailNextSync(kAddCowPath);
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Close());
}

// A process that was killed between writing bits and syncing them leaves bits
// that the next one sees and a crash can still take away.
TEST_F(EngineCrash, KilledBeforeTheBitsWereSynced) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  disk().StopBefore(OpKind::kSyncData, kAddCowPath);
  EXPECT_FALSE(disk().Flush());
  disk().Kill();
  EXPECT_TRUE(disk().image().bitmap().Test(0));
  EXPECT_FALSE(BitIsDurable(0));
  ASSERT_OK(disk().Write(3000, 100));
  ASSERT_OK(disk().Flush());
  EXPECT_TRUE(BitIsDurable(0));
}

TEST_F(EngineCrash, KilledBeforeTheLastBitsWereSynced) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(0, 2 * kC));
  disk().StopBefore(OpKind::kSyncData, kAddCowPath);
  EXPECT_FALSE(disk().Flush());
  disk().Kill();
  ASSERT_OK(disk().Flush());
}

TEST_F(EngineCrash, KilledBeforeTheFlagWasSynced) {
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

TEST_F(EngineCrash, BitsThatCouldNotBeWrittenGoWithALaterFlush) {
  Make({.size = 2 * kC, .backing_size = 2 * kC});
  ASSERT_OK(disk().Write(1000, 100));
  disk().StopBefore(OpKind::kWrite, kAddCowPath);
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(disk().Flush());
  EXPECT_FALSE(BitIsDurable(0));
}

}  // namespace
}  // namespace addcow
