// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The doubles that the other tests stand on, tested themselves: FakeFile and
// FakeFileSystem must behave as the system calls do.

#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class FakeFileTest : public testing::Test {
 protected:
  FakeFileTest() : inode_(std::make_shared<FakeInode>()), file_("f", inode_) {}

  const std::shared_ptr<FakeInode> inode_;
  FakeFile file_;
};

TEST_F(FakeFileTest, ReadsWhatWasWritten) {
  const auto data = Repeat(7, 5000);
  ASSERT_OK(file_.Write(data, 4000));
  EXPECT_EQ(inode_->Bytes(4000, 5000), data);
}

TEST_F(FakeFileTest, ReadEndsAtTheEndOfTheFile) {
  ASSERT_OK(file_.Truncate(10));
  std::vector<std::byte> buffer(20);
  ASSERT_OK_AND_ASSIGN(const size_t count, file_.Read(buffer, 5));
  EXPECT_EQ(count, 5u);
}

TEST_F(FakeFileTest, UnwrittenFileIsOneHole) {
  ASSERT_OK(file_.Truncate(100 * kMiB));
  ASSERT_OK_AND_ASSIGN(const uint64_t data, file_.FindData(0));
  EXPECT_EQ(data, 100 * kMiB);
}

TEST_F(FakeFileTest, FindsDataAndHoleByBlocks) {
  ASSERT_OK(file_.Truncate(64 * kKiB));
  ASSERT_OK(file_.Write(Repeat(1, 1), 10000));
  ASSERT_OK_AND_ASSIGN(const uint64_t data, file_.FindData(100));
  EXPECT_EQ(data, 8192u);
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, file_.FindHole(data));
  EXPECT_EQ(hole, 12288u);
}

TEST_F(FakeFileTest, EndOfFileCountsAsAHole) {
  ASSERT_OK(file_.Write(Repeat(1, 5000), 0));
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, file_.FindHole(0));
  EXPECT_EQ(hole, 5000u);
}

TEST_F(FakeFileTest, PunchFreesWholeBlocksAndZeroesTheRest) {
  ASSERT_OK(file_.Write(Repeat(1, 16384), 0));
  ASSERT_OK(file_.PunchHole(1000, 10000));
  EXPECT_EQ(inode_->Bytes(0, 1000), Repeat(1, 1000));
  EXPECT_EQ(inode_->Bytes(1000, 10000), Repeat(0, 10000));
  EXPECT_EQ(inode_->Bytes(11000, 5384), Repeat(1, 5384));
  ASSERT_OK_AND_ASSIGN(const FileInfo info, file_.Info());
  EXPECT_EQ(info.allocated_bytes, 3 * 4096u);
}

TEST_F(FakeFileTest, PunchWithinOneBlockZeroesIt) {
  ASSERT_OK(file_.Write(Repeat(1, 4096), 0));
  ASSERT_OK(file_.PunchHole(100, 200));
  EXPECT_EQ(inode_->Bytes(99, 202), [] {
    auto bytes = Repeat(0, 202);
    bytes.front() = bytes.back() = std::byte{1};
    return bytes;
  }());
}

TEST_F(FakeFileTest, ZeroRangeTakesStorageWithoutData) {
  ASSERT_OK(file_.Truncate(16384));
  ASSERT_OK(file_.ZeroRange(0, 8192));
  ASSERT_OK_AND_ASSIGN(const FileInfo info, file_.Info());
  EXPECT_EQ(info.allocated_bytes, 8192u);
  ASSERT_OK_AND_ASSIGN(const uint64_t data, file_.FindData(0));
  EXPECT_EQ(data, 16384u);
}

TEST_F(FakeFileTest, PunchNeverChangesTheSize) {
  ASSERT_OK(file_.Write(Repeat(1, 100), 0));
  ASSERT_OK(file_.PunchHole(0, 8192));
  EXPECT_EQ(inode_->size(), 100u);
}

// As on disk: up to the file's end only, the last block is kept, zeroed.
TEST_F(FakeFileTest, PunchPastTheEndFreesTheLastBlock) {
  ASSERT_OK(file_.Write(Repeat(1, 5000), 0));
  ASSERT_OK(file_.PunchHole(4096, 904));
  ASSERT_OK_AND_ASSIGN(const FileInfo kept, file_.Info());
  EXPECT_EQ(kept.allocated_bytes, 8192u);
  ASSERT_OK(file_.PunchHole(4096, 4096));
  ASSERT_OK_AND_ASSIGN(const FileInfo freed, file_.Info());
  EXPECT_EQ(freed.allocated_bytes, 4096u);
}

TEST_F(FakeFileTest, GrowingAgainAfterTruncateReadsZeroes) {
  ASSERT_OK(file_.Write(Repeat(1, 8192), 0));
  ASSERT_OK(file_.Truncate(100));
  ASSERT_OK(file_.Truncate(8192));
  EXPECT_EQ(inode_->Bytes(100, 8092), Repeat(0, 8092));
}

TEST_F(FakeFileTest, LackingAbilitiesGiveTheErrorsOfTheSystem) {
  ASSERT_OK(file_.Truncate(8192));
  inode_->SetAbilities({.punch_hole = false, .zero_range = true, .zero_alignment = 512});
  EXPECT_TRUE(FailsWith(file_.PunchHole(0, 512), EOPNOTSUPP));
  EXPECT_TRUE(FailsWith(file_.ZeroRange(1, 512), EINVAL));
}

TEST_F(FakeFileTest, WithoutSeekAllIsData) {
  ASSERT_OK(file_.Truncate(8192));
  inode_->SetAbilities({.seek = false});
  ASSERT_OK_AND_ASSIGN(const uint64_t data, file_.FindData(100));
  EXPECT_EQ(data, 100u);
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, file_.FindHole(100));
  EXPECT_EQ(hole, 8192u);
}

TEST_F(FakeFileTest, CloneDoesNotChangeWithTheOriginal) {
  ASSERT_OK(file_.Write(Repeat(1, 8192), 0));
  const auto clone = inode_->Clone();
  ASSERT_OK(file_.Write(Repeat(2, 100), 4000));
  EXPECT_EQ(clone->Bytes(0, 8192), Repeat(1, 8192));
}

TEST_F(FakeFileTest, SameBytesAreSameWhereverThereAreHoles) {
  ASSERT_OK(file_.Write(Repeat(1, 8192), 0));
  const auto clone = inode_->Clone();
  FakeFile other("other", clone);
  EXPECT_TRUE(inode_->SameBytes(*inode_));
  EXPECT_TRUE(inode_->SameBytes(*clone));
  ASSERT_OK(file_.Truncate(16384));
  EXPECT_FALSE(inode_->SameBytes(*clone));
  ASSERT_OK(other.Write(Repeat(0, 8192), 8192));
  EXPECT_TRUE(inode_->SameBytes(*clone));
  EXPECT_TRUE(clone->SameBytes(*inode_));
  ASSERT_OK(other.Write(Repeat(3, 1), 16383));
  EXPECT_FALSE(inode_->SameBytes(*clone));
  EXPECT_FALSE(clone->SameBytes(*inode_));
  ASSERT_OK(file_.Write(Repeat(3, 1), 16383));
  EXPECT_TRUE(clone->SameBytes(*inode_));
  ASSERT_OK(file_.Write(Repeat(2, 1), 5000));
  EXPECT_FALSE(clone->SameBytes(*inode_));
}

TEST(FakeFileSystem, RefusesToWriteThroughAReadOnlyHandle) {
  FakeFileSystem file_system;
  file_system.Put("/a/b", 10);
  ASSERT_OK_AND_ASSIGN(const auto file, file_system.Open("/a/b", OpenMode::kReadOnly));
  EXPECT_TRUE(FailsWith(file->Write(Repeat(1, 1), 0), EBADF));
}

TEST(FakeFileSystem, CreateFailsWhereTheNameIsTaken) {
  FakeFileSystem file_system;
  file_system.Put("/a/b");
  EXPECT_TRUE(FailsWith(file_system.Create("/a/b"), EEXIST));
}

TEST(FakeFileSystem, CreateFailsWithoutTheDirectory) {
  FakeFileSystem file_system;
  EXPECT_TRUE(FailsWith(file_system.Create("/nowhere/b"), ENOENT));
}

TEST(FakeFileSystem, RelativeNamesStartFromTheWorkingDirectory) {
  FakeFileSystem file_system;
  file_system.Put("/cwd/x");
  ASSERT_OK_AND_ASSIGN(const std::string path, file_system.RealPath("./y/../x"));
  EXPECT_EQ(path, "/cwd/x");
}

TEST(FakeFileSystem, RealPathFollowsSymbolicLinks) {
  FakeFileSystem file_system;
  file_system.Put("/a/b");
  file_system.PutSymbolicLink("/c/link", "../a/b");
  ASSERT_OK_AND_ASSIGN(const std::string path, file_system.RealPath("/c/link"));
  EXPECT_EQ(path, "/a/b");
}

TEST(FakeFileSystem, RenameKeepsAnExistingFileIfTold) {
  FakeFileSystem file_system;
  file_system.Put("/a/b");
  file_system.Put("/a/c");
  EXPECT_TRUE(FailsWith(file_system.Rename("/a/b", "/a/c", RenameMode::kKeepExisting), EEXIST));
  EXPECT_OK(file_system.Rename("/a/b", "/a/c", RenameMode::kReplace));
  EXPECT_EQ(file_system.List(), std::vector<std::string>{"/a/c"});
}

TEST(FakeFileSystem, TwoNamesOfOneFileShareItsIdentity) {
  FakeFileSystem file_system;
  file_system.PutName("/a/c", file_system.Put("/a/b", 1));
  file_system.Put("/a/d", 1);
  ASSERT_OK_AND_ASSIGN(const auto b, file_system.Open("/a/b", OpenMode::kReadOnly));
  ASSERT_OK_AND_ASSIGN(const auto c, file_system.Open("/a/c", OpenMode::kReadOnly));
  ASSERT_OK_AND_ASSIGN(const auto d, file_system.Open("/a/d", OpenMode::kReadOnly));
  ASSERT_OK_AND_ASSIGN(const FileInfo info_b, b->Info());
  ASSERT_OK_AND_ASSIGN(const FileInfo info_c, c->Info());
  ASSERT_OK_AND_ASSIGN(const FileInfo info_d, d->Info());
  EXPECT_TRUE(info_b.SameFile(info_c));
  EXPECT_FALSE(info_b.SameFile(info_d));
}

}  // namespace
}  // namespace addcow
