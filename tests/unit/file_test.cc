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
      [&] { return file_.StartWriteback(0, 10).has_value(); },
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
  EXPECT_TRUE(
      FailsSaying(file_.StartWriteback(5, 6), "sync_file_range: f: offset=5, count=6" + why));
  EXPECT_TRUE(FailsSaying(file_.Size(), "size: f" + why));
  EXPECT_TRUE(FailsSaying(file_.Truncate(7), "ftruncate: f: offset=7"));
  EXPECT_TRUE(FailsSaying(file_.FindData(8), "lseek: f: offset=8"));
  EXPECT_TRUE(FailsSaying(file_.FindHole(8), "lseek: f: offset=8"));
  EXPECT_TRUE(FailsSaying(file_.Prefetch(5, 6), "fadvise: f: offset=5, count=6" + why));
  EXPECT_TRUE(FailsSaying(file_.Info(), "fstat: f" + why));
}

TEST_F(FileTest, WritebackThatCannotBeStartedIsNoError) {
  for (const int error : {ENOSYS, EOPNOTSUPP, EINVAL, ESPIPE, EPERM, ENOMEM, EAGAIN}) {
    faults_.Set({.at = 1, .error = error});
    EXPECT_OK(file_.StartWriteback(0, 10)) << error;
    EXPECT_TRUE(faults_.fired());
  }
  for (const int error : {EIO, ENOSPC, EDQUOT, EROFS}) {
    faults_.Set({.at = 1, .error = error});
    EXPECT_TRUE(FailsWith(file_.StartWriteback(0, 10), error));
  }
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

// So that a caller does not go back when a file was truncated underneath.
TEST_F(FileTest, FindPastTheEndIsTheOffset) {
  ASSERT_OK(file_.Truncate(1000));
  for (const uint64_t offset : {1000ul, 1001ul, 70000ul}) {
    ASSERT_OK_AND_ASSIGN(const uint64_t data, file_.FindData(offset));
    EXPECT_EQ(data, offset);
    ASSERT_OK_AND_ASSIGN(const uint64_t hole, file_.FindHole(offset));
    EXPECT_EQ(hole, offset);
  }
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

TEST(PathOfName, FollowsLinksOnTheWayAndNotTheLastOne) {
  FakeFileSystem files;
  files.Put("/b/real");
  files.Put("/a/other");
  files.PutSymbolicLink("/a/link", "../b/real");
  files.PutSymbolicLink("/dir", "/a");
  for (const char* path : {"/a/link", "/dir/link", "/b/../dir/link"}) {
    ASSERT_OK_AND_ASSIGN(const std::string name, PathOfName(files, path));
    EXPECT_EQ(name, "/a/link") << path;
  }
  files.Put("/cwd/x");
  ASSERT_OK_AND_ASSIGN(const std::string here, PathOfName(files, "x"));
  EXPECT_EQ(here, "/cwd/x");
  EXPECT_TRUE(FailsWith(PathOfName(files, "/none/x"), ENOENT));
}

TEST(ResolveName, AbsoluteNamesStay) { EXPECT_EQ(ResolveName("/vm", "/a/b"), "/a/b"); }

TEST(DirectoryOf, IsWhatStandsBeforeTheLastSlash) {
  EXPECT_EQ(DirectoryOf("/a/b"), "/a");
  EXPECT_EQ(DirectoryOf("/b"), "/");
  EXPECT_EQ(DirectoryOf("b"), ".");
}

class OpenWritableOrReadOnlyTest : public testing::Test {
 protected:
  Result<std::unique_ptr<File>> Open() {
    return OpenWritableOrReadOnly([&](OpenMode mode) { return file_system_.Open("/f", mode); },
                                  not_writable_);
  }

  FakeFileSystem file_system_;
  std::optional<Error> not_writable_;
};

TEST_F(OpenWritableOrReadOnlyTest, FallsBackWhereWritingIsForbiddenAndSaysWhy) {
  file_system_.Put("/f", 1);
  for (const int code : {EACCES, EPERM, EROFS, ETXTBSY}) {
    file_system_.ForbidWriting("/f", code);
    not_writable_.reset();
    ASSERT_OK_AND_ASSIGN(const auto file, Open());
    EXPECT_TRUE(FailsWith(file->Truncate(0), EBADF));
    ASSERT_TRUE(not_writable_);
    EXPECT_EQ(not_writable_->code(), code);
  }
}

TEST_F(OpenWritableOrReadOnlyTest, PassesOtherErrorsOn) {
  EXPECT_TRUE(FailsWith(Open(), ENOENT));
  EXPECT_FALSE(not_writable_);
}

TEST_F(OpenWritableOrReadOnlyTest, HasNothingToSayOfAFileThatMayBeWritten) {
  file_system_.Put("/f", 1);
  ASSERT_OK_AND_ASSIGN(const auto file, Open());
  EXPECT_OK(file->Truncate(0));
  EXPECT_FALSE(not_writable_);
}

TEST(NameBeneath, RelativeNamesStartFromTheDirectory) {
  EXPECT_EQ(NameBeneath("/vm", "/vm", "disk.raw"), "disk.raw");
  EXPECT_EQ(NameBeneath("/vm", "/vm/a/b", "c/d"), "a/b/c/d");
  EXPECT_EQ(NameBeneath("/", "/vm", "disk.raw"), "vm/disk.raw");
}

TEST(NameBeneath, LeadingDotsAreResolved) {
  EXPECT_EQ(NameBeneath("/vm", "/vm/a", "../base.img"), "base.img");
  EXPECT_EQ(NameBeneath("/vm", "/vm/a", "./.././base.img"), "base.img");
  EXPECT_EQ(NameBeneath("/vm", "/vm/a", "../../base.img"), std::nullopt);
  EXPECT_EQ(NameBeneath("/vm", "/other", "../vm/base.img"), "base.img");
  EXPECT_EQ(NameBeneath("/vm", "/vm", "../../../../etc/shadow"), std::nullopt);
}

// What stands before such a ".." may be a symbolic link: OpenBeneath decides.
TEST(NameBeneath, LaterDotsAreLeftToTheSystem) {
  EXPECT_EQ(NameBeneath("/vm", "/vm", "a/../../etc/shadow"), "a/../../etc/shadow");
}

TEST(NameBeneath, AbsoluteNamesMustStartWithTheRoot) {
  EXPECT_EQ(NameBeneath("/vm", "/x", "/vm/disk.raw"), "disk.raw");
  EXPECT_EQ(NameBeneath("/vm/", "/x", "//vm/./disk.raw"), "disk.raw");
  EXPECT_EQ(NameBeneath("/vm", "/vm", "/vmware/disk.raw"), std::nullopt);
  EXPECT_EQ(NameBeneath("/vm", "/vm", "/etc/shadow"), std::nullopt);
  EXPECT_EQ(NameBeneath("/vm", "/vm", "/x/../vm/disk.raw"), std::nullopt);
}

TEST(NameBeneath, TheRootItselfIsNotBeneathIt) {
  EXPECT_EQ(NameBeneath("/vm", "/vm/a", ".."), std::nullopt);
  EXPECT_EQ(NameBeneath("/vm", "/vm", "/vm"), std::nullopt);
}

class FileLockTest : public testing::Test {
 protected:
  std::unique_ptr<File> Open() {
    auto file = file_system_.Open("/f", OpenMode::kReadOnly);
    return file ? std::move(*file) : nullptr;
  }

  FakeFileSystem file_system_;
  const std::shared_ptr<FakeInode> inode_ = file_system_.Put("/f", 1);
};

TEST_F(FileLockTest, SaysWhatStandsAgainstIt) {
  const auto first = Open();
  const auto second = Open();
  ASSERT_OK(first->Lock(LockKind::kWrite));
  const Status refused = second->Lock(LockKind::kRead);
  EXPECT_TRUE(FailsWith(refused, EBUSY));
  EXPECT_EQ(refused.error().Message(),
            "/f: is in use by another program that may write to it (stop that program first)");
}

TEST_F(FileLockTest, SaysHowToDoWithoutInTheWordsOfTheProgram) {
  inode_->SetAbilities({.lock = false});
  const Status refused = WithLockRemedy(Open()->Lock(LockKind::kRead), "--");
  EXPECT_TRUE(FailsWith(refused, ENOLCK));
  EXPECT_EQ(refused.error().Message(),
            "/f: cannot be locked: No locks available (--lock=off does without, if no other "
            "program uses it)");
}

TEST_F(FileLockTest, NoRemedyWhereALockWouldDo) {
  const auto first = Open();
  ASSERT_OK(first->Lock(LockKind::kWrite));
  const Status refused = WithLockRemedy(Open()->Lock(LockKind::kRead), "--");
  EXPECT_TRUE(FailsWith(refused, EBUSY));
  EXPECT_EQ(refused.error().Message().find("lock=off"), std::string::npos);
}

TEST_F(FileLockTest, UseByOthersIsTheStrongestOfTheirLocks) {
  const auto own = Open();
  const auto other = Open();
  const auto use = [&] { return own->UseByOthers().value_or(FileUse::kNone); };
  ASSERT_OK(own->Lock(LockKind::kRead));
  EXPECT_EQ(use(), FileUse::kNone);
  ASSERT_OK(other->Lock(LockKind::kRead));
  EXPECT_EQ(use(), FileUse::kRead);
  inode_->SetAbilities({.lock = false});
  EXPECT_TRUE(FailsWith(own->UseByOthers(), ENOLCK));
}

}  // namespace
}  // namespace addcow
