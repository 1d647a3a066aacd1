// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/backing, over common/source/file_source: the one place that knows where
// the backing file ends.

#include "common/image/backing.h"

#include <gtest/gtest.h>

#include <optional>

#include "common/source/file_source.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

// A backing file of `size` ones.
class BackingTest : public testing::Test {
 protected:
  void Make(uint64_t size) {
    ASSERT_TRUE(inode_->Write(Repeat(1, size), 0));
    auto file =
        std::make_unique<ForwardingFile>(std::make_unique<FakeFile>("base.img", inode_), log_);
    backing_.emplace(std::make_unique<FileSource>(std::move(file), size), true);
  }
  std::vector<std::byte> Read(uint64_t offset, uint64_t length) {
    auto buffer = Repeat(0xee, length);
    EXPECT_OK(backing_->Read(buffer, offset));
    return buffer;
  }

  const std::shared_ptr<FakeInode> inode_ = std::make_shared<FakeInode>();
  OperationLog log_;
  std::optional<Backing> backing_{std::in_place, nullptr};
};

TEST_F(BackingTest, ReadsTheFile) {
  Make(10000);
  EXPECT_EQ(Read(9000, 1000), Repeat(1, 1000));
}

TEST_F(BackingTest, ReadsZeroesAfterTheEnd) {
  Make(10000);
  auto expected = Repeat(1, 10);
  expected.resize(100);
  EXPECT_EQ(Read(9990, 100), expected);
}

TEST_F(BackingTest, ReadsZeroesFarPastTheEndWithoutAskingTheFile) {
  Make(10000);
  EXPECT_EQ(Read(10000, 100), Repeat(0, 100));
  EXPECT_EQ(Read(kTiB, 100), Repeat(0, 100));
  EXPECT_EQ(log_.Count(OpKind::kRead), 0u);
}

TEST_F(BackingTest, WithoutAFileAllIsZero) {
  EXPECT_EQ(Read(0, 100), Repeat(0, 100));
  ASSERT_OK_AND_ASSIGN(const uint64_t data, backing_->FindData(0, 100));
  EXPECT_EQ(data, 100u);
  EXPECT_OK(backing_->Prefetch(0, 100));
}

TEST_F(BackingTest, FileTruncatedUnderneathIsAnErrorNotZeroes) {
  Make(10000);
  ASSERT_TRUE(inode_->Truncate(5000));
  auto buffer = Repeat(0, 100);
  EXPECT_TRUE(FailsWith(backing_->Read(buffer, 4950), EIO));
  EXPECT_TRUE(FailsSaying(backing_->Read(buffer, 4950), "ends at byte 5000"));
}

TEST_F(BackingTest, FindsDataAndHoles) {
  Make(65536);
  ASSERT_TRUE(inode_->PunchHole(4096, 8192));
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, backing_->FindHole(0, 65536));
  EXPECT_EQ(hole, 4096u);
  ASSERT_OK_AND_ASSIGN(const uint64_t data, backing_->FindData(4096, 65536));
  EXPECT_EQ(data, 12288u);
}

TEST_F(BackingTest, DataThatWasFoundIsNotAskedForAgain) {
  Make(65536);
  ASSERT_TRUE(inode_->PunchHole(32768, 8192));
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, backing_->FindHole(0, 65536));
  EXPECT_EQ(hole, 32768u);
  log_.Clear();
  ASSERT_OK_AND_ASSIGN(const uint64_t data, backing_->FindData(4096, 65536));
  EXPECT_EQ(data, 4096u);
  ASSERT_OK_AND_ASSIGN(const uint64_t end, backing_->FindHole(4096, 65536));
  EXPECT_EQ(end, 32768u);
  ASSERT_OK_AND_ASSIGN(const uint64_t near_end, backing_->FindHole(4096, 8192));
  EXPECT_EQ(near_end, 8192u);
  EXPECT_EQ(log_.Count(OpKind::kSeekData) + log_.Count(OpKind::kSeekHole), 0u);
  ASSERT_OK_AND_ASSIGN(const uint64_t next, backing_->FindData(32768, 65536));
  EXPECT_EQ(next, 40960u);
}

TEST_F(BackingTest, FindsNothingPastTheLimit) {
  Make(65536);
  ASSERT_TRUE(inode_->PunchHole(4096, 8192));
  ASSERT_OK_AND_ASSIGN(const uint64_t data, backing_->FindData(4096, 10000));
  EXPECT_EQ(data, 10000u);
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, backing_->FindHole(12288, 20000));
  EXPECT_EQ(hole, 20000u);
}

TEST_F(BackingTest, NoDataFromTheEndOfTheFileOn) {
  Make(10000);
  ASSERT_OK_AND_ASSIGN(const uint64_t data, backing_->FindData(10000, 65536));
  EXPECT_EQ(data, 65536u);
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, backing_->FindHole(0, 65536));
  EXPECT_EQ(hole, 10000u);
}

TEST_F(BackingTest, PrefetchesOnlyWhatTheFileHas) {
  Make(10000);
  EXPECT_OK(backing_->Prefetch(9000, 5000));
  EXPECT_OK(backing_->Prefetch(20000, 5000));
  EXPECT_EQ(log_.Lines([](const Operation& op) { return op.kind == OpKind::kPrefetch; }),
            std::vector<std::string>{"prefetch base.img 9000+1000"});
}

}  // namespace
}  // namespace addcow
