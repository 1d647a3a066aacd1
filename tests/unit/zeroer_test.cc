// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/io/zeroer: the ladder from punching to writing zeroes, and what it
// remembers of it.

#include "common/io/zeroer.h"

#include <gtest/gtest.h>

#include "common/base/units.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

// A file of 1 MiB of ones.
class ZeroerTest : public testing::Test {
 protected:
  ZeroerTest() {
    (void)inode_->Write(Repeat(1, kMiB), 0);
    EXPECT_OK(holes_.Settle(file_));
  }

  std::vector<std::string> Tried() {
    auto lines = log_.Changes();
    log_.Clear();
    return lines;
  }
  void ExpectZeroed(uint64_t offset, uint64_t length) {
    EXPECT_EQ(inode_->Bytes(offset, length), Repeat(0, length));
    EXPECT_EQ(inode_->Bytes(offset - 1, 1), Repeat(1, 1));
    EXPECT_EQ(inode_->Bytes(offset + length, 1), Repeat(1, 1));
  }

  const std::shared_ptr<FakeInode> inode_ = std::make_shared<FakeInode>();
  FaultPlan faults_;
  OperationLog log_;
  ForwardingFile file_{
      std::make_unique<ForwardingFile>(std::make_unique<FakeFile>("f", inode_), faults_), log_};
  Holes holes_{file_};
  Zeroer zeroer_{file_, holes_};
};

using Lines = std::vector<std::string>;

TEST_F(ZeroerTest, PunchesFirst) {
  ASSERT_OK(zeroer_.Zero(100, 1000, {}));
  EXPECT_EQ(Tried(), Lines{"punch hole f 100+1000"});
  ExpectZeroed(100, 1000);
}

TEST_F(ZeroerTest, KeepsStorageIfTold) {
  ASSERT_OK(zeroer_.Zero(100, 1000, {.may_punch = false}));
  EXPECT_EQ(Tried(), Lines{"zero range f 100+1000"});
  ExpectZeroed(100, 1000);
}

TEST_F(ZeroerTest, RemembersThatTheFileCannotPunch) {
  inode_->SetAbilities({.punch_hole = false});
  ASSERT_OK(zeroer_.Zero(100, 1000, {}));
  EXPECT_EQ(Tried(), (Lines{"punch hole f 100+1000", "zero range f 100+1000"}));
  ASSERT_OK(zeroer_.Zero(5000, 10, {}));
  EXPECT_EQ(Tried(), Lines{"zero range f 5000+10"});
  ExpectZeroed(5000, 10);
}

TEST_F(ZeroerTest, RemembersThatTheFileCannotZeroRanges) {
  inode_->SetAbilities({.zero_range = false});
  ASSERT_OK(zeroer_.Zero(100, 1000, {.may_punch = false}));
  EXPECT_EQ(Tried(), (Lines{"zero range f 100+1000", "write f 100+1000"}));
  ASSERT_OK(zeroer_.Zero(5000, 10, {.may_punch = false}));
  EXPECT_EQ(Tried(), Lines{"write f 5000+10"});
  ExpectZeroed(5000, 10);
}

TEST_F(ZeroerTest, WritesZeroesWhereNothingElseWorks) {
  inode_->SetAbilities({.punch_hole = false, .zero_range = false});
  ASSERT_OK(zeroer_.Zero(1000, 500000, {}));
  ExpectZeroed(1000, 500000);
  Tried();
  ASSERT_OK(zeroer_.Zero(600000, 10, {}));
  EXPECT_EQ(Tried(), Lines{"write f 600000+10"});
}

// A sector that the range covers is zeroed by one write: after a crash it is
// as before or zero, not half of each.
TEST_F(ZeroerTest, CutsWrittenZeroesBetweenSectors) {
  inode_->SetAbilities({.punch_hole = false, .zero_range = false});
  ASSERT_OK(zeroer_.Zero(1000, 500000, {}));
  const auto writes =
      log_.Records([](const Operation& operation) { return operation.kind == OpKind::kWrite; });
  ASSERT_GT(writes.size(), 1u);
  for (size_t i = 1; i < writes.size(); i++)
    EXPECT_EQ(writes[i].operation.offset % kSectorSize, 0u);
}

TEST_F(ZeroerTest, DoesNotRememberThatOneRangeWasNotAligned) {
  inode_->SetAbilities({.zero_alignment = 512});
  ASSERT_OK(zeroer_.Zero(100, 1000, {}));
  EXPECT_EQ(Tried(),
            (Lines{"punch hole f 100+1000", "zero range f 100+1000", "write f 100+1000"}));
  ASSERT_OK(zeroer_.Zero(4096, 512, {}));
  EXPECT_EQ(Tried(), Lines{"punch hole f 4096+512"});
}

TEST_F(ZeroerTest, FastZeroFailsRatherThanWrite) {
  inode_->SetAbilities({.punch_hole = false, .zero_range = false});
  EXPECT_TRUE(FailsWith(zeroer_.Zero(100, 1000, {.fast_only = true}), EOPNOTSUPP));
  EXPECT_EQ(inode_->Bytes(100, 1000), Repeat(1, 1000));
}

TEST_F(ZeroerTest, FastZeroSucceedsWhereItIsFast) {
  ASSERT_OK(zeroer_.Zero(100, 1000, {.fast_only = true}));
  ExpectZeroed(100, 1000);
}

TEST_F(ZeroerTest, OtherErrorsAreNotALackOfTheRung) {
  faults_.Set({.at = 1, .error = EIO, .where = ChangesOrSyncs});
  EXPECT_TRUE(FailsWith(zeroer_.Zero(100, 1000, {}), EIO));
  EXPECT_EQ(Tried(), Lines{"punch hole f 100+1000"});
  ASSERT_OK(zeroer_.Zero(100, 1000, {}));
  EXPECT_EQ(Tried(), Lines{"punch hole f 100+1000"});
}

TEST_F(ZeroerTest, NothingToZeroIsDone) {
  faults_.Set({.at = 1, .lasting = FaultPlan::Lasting::kPersistent});
  EXPECT_OK(zeroer_.Zero(100, 0, {}));
  EXPECT_OK(zeroer_.ZeroUnlessHole(100, 0));
}

TEST_F(ZeroerTest, LeavesHolesAlone) {
  ASSERT_TRUE(inode_->PunchHole(65536, 65536));
  ASSERT_OK(zeroer_.ZeroUnlessHole(65536, 65536));
  EXPECT_EQ(Tried(), Lines{});
}

TEST_F(ZeroerTest, ZeroesTheDataBetweenHoles) {
  ASSERT_TRUE(inode_->PunchHole(8192, 4096));
  ASSERT_TRUE(inode_->PunchHole(20480, 4096));
  ASSERT_OK(zeroer_.ZeroUnlessHole(100, 30000));
  EXPECT_EQ(Tried(), (Lines{"zero range f 100+8092", "zero range f 12288+8192",
                            "zero range f 24576+5524"}));
  ExpectZeroed(100, 30000);
}

TEST_F(ZeroerTest, ZeroesAllWhereHolesAreNotKnown) {
  inode_->SetAbilities({.seek = false});
  ASSERT_OK(zeroer_.ZeroUnlessHole(100, 30000));
  ExpectZeroed(100, 30000);
}

}  // namespace
}  // namespace addcow
