// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/io/holes: what a file system says of holes is believed only of what a
// sync has covered, but where it is well known.

#include "common/io/holes.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "common/base/units.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

constexpr uint64_t kBlock = FakeInode::kBlockSize;

// A file of 1 MiB on FUSE with a write-back cache.
class HolesTest : public testing::Test {
 protected:
  HolesTest() {
    inode_->SetAbilities({.well_known = false, .seek_knows_unsynced = false});
    (void)inode_->Truncate(kMiB);
  }

  void Write(uint64_t offset, uint64_t length) {
    ASSERT_OK(file_.Write(Repeat(1, length), offset));
    holes_.Written(offset, length);
  }
  void Sync() {
    const uint64_t begun = holes_.SyncBegins();
    ASSERT_OK(file_.SyncData());
    holes_.SyncSucceeded(begun);
  }
  uint64_t Data(uint64_t offset) {
    const auto data = holes_.FindData(offset);
    EXPECT_OK(data);
    return data.value_or(UINT64_MAX);
  }
  uint64_t Hole(uint64_t offset) {
    const auto hole = holes_.FindHole(offset);
    EXPECT_OK(hole);
    return hole.value_or(UINT64_MAX);
  }

  const std::shared_ptr<FakeInode> inode_ = std::make_shared<FakeInode>();
  FaultPlan faults_;
  OperationLog log_;
  ForwardingFile file_{
      std::make_unique<ForwardingFile>(std::make_unique<FakeFile>("f", inode_), faults_), log_};
  Holes holes_{file_};
};

TEST_F(HolesTest, DataIsVisitedInPartsUntilItIsEnough) {
  inode_->SetAbilities({});
  ASSERT_OK(holes_.Settle(file_));
  Write(kBlock, 3 * kBlock);
  Write(8 * kBlock, kBlock);
  std::vector<std::pair<uint64_t, uint64_t>> parts;
  const auto visit = [&](uint64_t end, size_t enough) {
    parts.clear();
    EXPECT_OK(holes_.VisitData(100, end, 2 * kBlock, [&](uint64_t at, uint64_t length) {
      parts.emplace_back(at / kBlock, length);
      return Result<bool>(parts.size() < enough);
    }));
    return parts;
  };
  using Parts = decltype(parts);
  EXPECT_EQ(visit(kMiB, 9), (Parts{{1, 2 * kBlock}, {3, kBlock}, {8, kBlock}}));
  EXPECT_EQ(visit(kMiB, 2), (Parts{{1, 2 * kBlock}, {3, kBlock}}));
  EXPECT_EQ(visit(2 * kBlock + 5, 9), (Parts{{1, kBlock + 5}}));
  EXPECT_EQ(visit(kBlock, 9), Parts{});
  EXPECT_TRUE(FailsWith(holes_.VisitData(0, kMiB, kMiB,
                                         [](uint64_t, uint64_t) -> Result<bool> {
                                           return Fail(Error::Because(EIO, "f", "why"));
                                         }),
                        EIO));
}

TEST_F(HolesTest, AllIsDataUntilSettled) {
  EXPECT_EQ(Data(100), 100u);
  EXPECT_EQ(Hole(100), kMiB);
}

TEST_F(HolesTest, WellKnownFileSystemIsAskedAndNothingSynced) {
  inode_->SetAbilities({});
  ASSERT_OK(holes_.Settle(file_));
  EXPECT_TRUE(holes_.well_known());
  EXPECT_EQ(log_.Count(OpKind::kSyncData), 0u);
  EXPECT_EQ(Data(0), kMiB);
  Write(kBlock, kBlock);
  EXPECT_EQ(Data(0), kBlock);
  EXPECT_EQ(Hole(kBlock), 2 * kBlock);
}

TEST_F(HolesTest, WhatOthersWroteBeforeIsSynced) {
  (void)inode_->Write(Repeat(1, kBlock), 2 * kBlock);
  ASSERT_EQ(*file_.FindData(0), kMiB) << "a double that is too kind";
  ASSERT_OK(holes_.Settle(file_));
  EXPECT_FALSE(holes_.well_known());
  EXPECT_EQ(Data(0), 2 * kBlock);
  EXPECT_EQ(Hole(2 * kBlock), 3 * kBlock);
}

TEST_F(HolesTest, WhatIsWrittenIsDataBeforeTheSyncAndAfterIt) {
  ASSERT_OK(holes_.Settle(file_));
  Write(2 * kBlock, 2 * kBlock);
  for (int i = 0; i < 2; i++) {
    EXPECT_EQ(Data(0), 2 * kBlock);
    EXPECT_EQ(Data(3 * kBlock + 5), 3 * kBlock + 5);
    EXPECT_EQ(Hole(2 * kBlock), 4 * kBlock);
    EXPECT_EQ(Data(4 * kBlock), kMiB);
    Sync();
  }
}

TEST_F(HolesTest, UnsyncedDataGoesOnInSyncedDataAndBack) {
  ASSERT_OK(holes_.Settle(file_));
  Write(kBlock, kBlock);
  Write(5 * kBlock, kBlock);
  Sync();
  Write(0, kBlock);
  Write(2 * kBlock, kBlock);
  EXPECT_EQ(Hole(0), 3 * kBlock);
  EXPECT_EQ(Data(3 * kBlock), 5 * kBlock);
  EXPECT_EQ(Hole(5 * kBlock), 6 * kBlock);
}

TEST_F(HolesTest, ClusterInTheMiddleOfUnsyncedRangesIsNoHole) {
  ASSERT_OK(holes_.Settle(file_));
  Write(0, 10);
  Write(kBlock * 4, 10);
  Write(kBlock * 4 + 10, 20);
  Write(kBlock * 4 - 30, 30);
  EXPECT_EQ(Data(11), kBlock * 4 - 30);
  EXPECT_EQ(Hole(kBlock * 4 - 30), kBlock * 4 + 30);
}

TEST_F(HolesTest, WhatIsWrittenDuringASyncStaysData) {
  ASSERT_OK(holes_.Settle(file_));
  Write(0, kBlock);
  const uint64_t begun = holes_.SyncBegins();
  ASSERT_OK(file_.SyncData());
  Write(4 * kBlock, kBlock);
  holes_.SyncSucceeded(begun);
  EXPECT_EQ(Data(kBlock), 4 * kBlock);
  EXPECT_EQ(Hole(4 * kBlock), 5 * kBlock);
}

TEST_F(HolesTest, FailedSyncMakesNothingAHole) {
  ASSERT_OK(holes_.Settle(file_));
  Write(4 * kBlock, kBlock);
  (void)holes_.SyncBegins();
  EXPECT_EQ(Data(0), 4 * kBlock);
}

TEST_F(HolesTest, ManyRangesBecomeOne) {
  ASSERT_TRUE(inode_->Truncate(100 * kMiB));
  ASSERT_OK(holes_.Settle(file_));
  for (uint64_t i = 1; i <= 2000; i++) Write(i * 2 * kBlock, kBlock);
  EXPECT_EQ(Data(0), 2 * kBlock);
  EXPECT_GE(Hole(2 * kBlock), 2 * kBlock + 1000 * 2 * kBlock);
  EXPECT_EQ(Data(4001 * kBlock), 100 * kMiB);
  Sync();
  EXPECT_EQ(Hole(2 * kBlock), 3 * kBlock);
}

TEST_F(HolesTest, WhereNothingCanBeSyncedAllIsData) {
  for (const int error : {EROFS, EINVAL, EOPNOTSUPP, ENOSYS, EBADF, EPERM}) {
    Holes holes(file_);
    faults_.Set({.at = 1, .error = error, .where = [](const Operation& operation) {
                   return operation.kind == OpKind::kSyncData;
                 }});
    EXPECT_OK(holes.Settle(file_));
    ASSERT_OK_AND_ASSIGN(const uint64_t data, holes.FindData(77));
    EXPECT_EQ(data, 77u);
    ASSERT_OK_AND_ASSIGN(const uint64_t hole, holes.FindHole(77));
    EXPECT_EQ(hole, kMiB);
  }
}

TEST_F(HolesTest, FailedSyncAtTheBeginningIsAnError) {
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kSyncData;
               }});
  EXPECT_TRUE(FailsWith(holes_.Settle(file_), EIO));
  EXPECT_EQ(Data(77), 77u);
}

}  // namespace
}  // namespace addcow
