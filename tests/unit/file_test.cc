// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/io/file: what the public functions of File make of system calls that
// are short, interrupted or fail; and the helpers of file_system.h.

#include "common/io/file.h"

#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/random.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class FileTest : public testing::Test {
 protected:
  FileTest() { (void)inode_->Write(bytes_, 0); }

  const std::vector<std::byte> bytes_ = Random(1).Bytes(10000);
  const std::shared_ptr<FakeInode> inode_ = std::make_shared<FakeInode>();
  FaultPlan faults_;
  ForwardingFile file_{std::make_unique<FakeFile>("f", inode_), faults_};
};

constexpr auto kShort = FaultPlan::Effect::kShort;
constexpr auto kPersistent = FaultPlan::Lasting::kPersistent;

TEST_F(FileTest, ReadGoesOnAfterShortReads) {
  faults_.Set({.at = 1, .effect = kShort, .lasting = kPersistent});
  std::vector<std::byte> buffer(10000);
  ASSERT_OK_AND_ASSIGN(const size_t count, file_.Read(buffer, 0));
  EXPECT_EQ(count, 10000u);
  EXPECT_EQ(buffer, bytes_);
  EXPECT_GT(faults_.counted(), 10u);
}

TEST_F(FileTest, WriteGoesOnAfterShortWrites) {
  faults_.Set({.at = 1, .effect = kShort, .lasting = kPersistent});
  const auto data = Repeat(9, 5000);
  ASSERT_OK(file_.Write(data, 100));
  EXPECT_EQ(inode_->Bytes(100, 5000), data);
  EXPECT_GT(faults_.counted(), 10u);
}

TEST_F(FileTest, WriteOfNothingByTheSystemIsAnErrorNotALoop) {
  struct NothingWritten final : public Interceptor {
    Verdict Before(const Operation&) override { return {0, 0}; }
  } nothing;
  ForwardingFile file(std::make_unique<FakeFile>("f", inode_), nothing);
  EXPECT_TRUE(FailsWith(file.Write(Repeat(1, 10), 0), EIO));
}

TEST_F(FileTest, ReadStopsAtTheEnd) {
  std::vector<std::byte> buffer(100);
  ASSERT_OK_AND_ASSIGN(const size_t count, file_.Read(buffer, 9990));
  EXPECT_EQ(count, 10u);
}

TEST_F(FileTest, ReadExactlyRefusesTheEnd) {
  std::vector<std::byte> buffer(100);
  EXPECT_OK(file_.ReadExactly(buffer, 9900));
  const Status status = file_.ReadExactly(buffer, 9901);
  EXPECT_TRUE(FailsWith(status, EIO));
  EXPECT_TRUE(FailsSaying(status, "f: ends at byte 10000"));
}

TEST_F(FileTest, EmptyTransfersDoNothing) {
  faults_.Set({.at = 1, .error = EIO, .lasting = kPersistent});
  EXPECT_OK(file_.Read({}, 0));
  EXPECT_OK(file_.Write({}, 0));
}

TEST_F(FileTest, RetriesEveryCallThatASignalInterrupted) {
  std::vector<std::byte> buffer(10);
  const std::vector<std::function<bool()>> calls = {
      [&] { return file_.Read(buffer, 0).has_value(); },
      [&] { return file_.Write(buffer, 0).has_value(); },
      [&] { return file_.PunchHole(0, 10).has_value(); },
      [&] { return file_.ZeroRange(0, 10).has_value(); },
      [&] { return file_.SyncData().has_value(); },
      [&] { return file_.Sync().has_value(); },
      [&] { return file_.Size().has_value(); },
      [&] { return file_.Truncate(10000).has_value(); },
      [&] { return file_.FindData(0).has_value(); },
      [&] { return file_.FindHole(0).has_value(); },
      [&] { return file_.Prefetch(0, 10).has_value(); },
      [&] { return file_.Info().has_value(); },
  };
  for (size_t i = 0; i < calls.size(); i++) {
    faults_.Set({.at = 1, .error = EINTR});
    EXPECT_TRUE(calls[i]()) << i;
    EXPECT_TRUE(faults_.fired()) << i;
  }
}

TEST_F(FileTest, ErrorsNameOperationFileAndPlace) {
  faults_.Set({.at = 1, .error = EIO, .lasting = kPersistent});
  std::vector<std::byte> buffer(10);
  const std::string why = ": Input/output error";
  EXPECT_TRUE(FailsSaying(file_.Read(buffer, 5), "pread: f: offset=5, count=10" + why));
  EXPECT_TRUE(FailsSaying(file_.Write(buffer, 5), "pwrite: f: offset=5, count=10" + why));
  EXPECT_TRUE(FailsSaying(file_.PunchHole(5, 6), "punch hole: f: offset=5, count=6" + why));
  EXPECT_TRUE(FailsSaying(file_.ZeroRange(5, 6), "zero range: f: offset=5, count=6" + why));
  EXPECT_TRUE(FailsSaying(file_.SyncData(), "fdatasync: f" + why));
  EXPECT_TRUE(FailsSaying(file_.Sync(), "fsync: f" + why));
  EXPECT_TRUE(FailsSaying(file_.Size(), "size: f" + why));
  EXPECT_TRUE(FailsSaying(file_.Truncate(7), "ftruncate: f: offset=7"));
  EXPECT_TRUE(FailsSaying(file_.FindData(8), "lseek: f: offset=8"));
  EXPECT_TRUE(FailsSaying(file_.FindHole(8), "lseek: f: offset=8"));
  EXPECT_TRUE(FailsSaying(file_.Prefetch(5, 6), "fadvise: f: offset=5, count=6" + why));
  EXPECT_TRUE(FailsSaying(file_.Info(), "fstat: f" + why));
}

TEST_F(FileTest, ErrorInTheMiddleOfATransferSaysWhere) {
  struct ShortThenError final : public Interceptor {
    Verdict Before(const Operation&) override {
      return calls++ == 0 ? Verdict{0, 4000} : Verdict{EIO, {}};
    }
    int calls = 0;
  } fault;
  ForwardingFile file(std::make_unique<FakeFile>("f", inode_), fault);
  EXPECT_TRUE(FailsSaying(file.Write(bytes_, 0), "offset=4000, count=6000"));
}

TEST_F(FileTest, FindDataIsTheSizeWhereOnlyHolesFollow) {
  ASSERT_OK(file_.Truncate(kMiB));
  ASSERT_OK_AND_ASSIGN(const uint64_t data, file_.FindData(20000));
  EXPECT_EQ(data, kMiB);
}

TEST_F(FileTest, FindHoleIsTheSizeWhereNoneComesBefore) {
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, file_.FindHole(5));
  EXPECT_EQ(hole, 10000u);
}

TEST_F(FileTest, AllIsDataWhereTheFileSystemCannotTell) {
  ASSERT_OK(file_.Truncate(kMiB));
  for (const int code : {EINVAL, EOPNOTSUPP}) {
    faults_.Set({.at = 1, .error = code});
    ASSERT_OK_AND_ASSIGN(const uint64_t data, file_.FindData(20000));
    EXPECT_EQ(data, 20000u);
    faults_.Set({.at = 1, .error = code});
    ASSERT_OK_AND_ASSIGN(const uint64_t hole, file_.FindHole(20000));
    EXPECT_EQ(hole, kMiB);
  }
}

TEST(FileInfo, BlockDeviceIsNeverTheSameAsARegularFile) {
  const FileInfo regular{.device = 1, .inode = 0};
  const FileInfo device{.device = 1, .inode = 0, .is_block_device = true};
  EXPECT_FALSE(regular.SameFile(device));
  EXPECT_TRUE(device.SameFile(device));
}

TEST(ResolveName, RelativeNamesStartFromTheDirectory) {
  EXPECT_EQ(ResolveName("/vm", "disk.raw"), "/vm/disk.raw");
  EXPECT_EQ(ResolveName("/", "disk.raw"), "/disk.raw");
  EXPECT_EQ(ResolveName(".", "disk.raw"), "disk.raw");
}

TEST(ResolveName, AbsoluteNamesStay) { EXPECT_EQ(ResolveName("/vm", "/a/b"), "/a/b"); }

TEST(DirectoryOf, IsWhatStandsBeforeTheLastSlash) {
  EXPECT_EQ(DirectoryOf("/a/b"), "/a");
  EXPECT_EQ(DirectoryOf("/b"), "/");
  EXPECT_EQ(DirectoryOf("b"), ".");
}

TEST(OpenWritableOrReadOnly, FallsBackWhereWritingIsForbidden) {
  for (const int code : {EACCES, EPERM, EROFS, ETXTBSY}) {
    FakeFileSystem file_system;
    file_system.Put("/f", 1);
    file_system.ForbidWriting("/f", code);
    OpenMode mode = OpenMode::kReadWrite;
    EXPECT_OK(OpenWritableOrReadOnly(file_system, "/f", &mode));
    EXPECT_EQ(mode, OpenMode::kReadOnly) << code;
  }
}

TEST(OpenWritableOrReadOnly, PassesOtherErrorsOn) {
  FakeFileSystem file_system;
  EXPECT_TRUE(FailsWith(OpenWritableOrReadOnly(file_system, "/f"), ENOENT));
}

TEST(OpenWritableOrReadOnly, SaysThatItMayBeWritten) {
  FakeFileSystem file_system;
  file_system.Put("/f", 1);
  OpenMode mode = OpenMode::kReadOnly;
  EXPECT_OK(OpenWritableOrReadOnly(file_system, "/f", &mode));
  EXPECT_EQ(mode, OpenMode::kReadWrite);
}

}  // namespace
}  // namespace addcow
