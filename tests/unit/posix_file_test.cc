// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/io/posix_file: the system calls on real files in a temporary
// directory. What a file system may lack (holes) is skipped where it does.

#include "common/io/posix_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "common/base/units.h"
#include "common/io/file_system.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class PosixFileTest : public testing::Test {
 protected:
  std::unique_ptr<File> Create(const std::string& name) {
    auto file = posix_.Create(directory_ / name);
    EXPECT_OK(file);
    return file ? std::move(*file) : nullptr;
  }
  static std::vector<std::byte> Read(File& file, uint64_t offset, uint64_t length) {
    std::vector<std::byte> bytes(length);
    EXPECT_OK(file.ReadExactly(bytes, offset));
    return bytes;
  }

  FileSystem& posix_ = PosixFileSystem();
  const TempDir directory_;
};

TEST_F(PosixFileTest, ReadsWhatWasWritten) {
  const auto file = Create("f");
  const auto data = Repeat(7, 5000);
  ASSERT_OK(file->Write(data, 100000));
  EXPECT_EQ(Read(*file, 100000, 5000), data);
}

TEST_F(PosixFileTest, SizeIsThatOfTheFile) {
  const auto file = Create("f");
  ASSERT_OK(file->Truncate(12345));
  ASSERT_OK_AND_ASSIGN(const uint64_t size, file->Size());
  EXPECT_EQ(size, 12345u);
}

TEST_F(PosixFileTest, OffsetsPastWhatTheSystemTakesAreErrors) {
  const auto file = Create("f");
  std::vector<std::byte> buffer(10);
  EXPECT_TRUE(FailsWith(file->Read(buffer, kMaxOffset), EINVAL));
  EXPECT_TRUE(FailsWith(file->Write(buffer, kMaxOffset), EFBIG));
  EXPECT_TRUE(FailsWith(file->Write(buffer, UINT64_MAX - 4), EFBIG));
  EXPECT_TRUE(FailsWith(file->PunchHole(kMaxOffset, 10), EFBIG));
  EXPECT_TRUE(FailsWith(file->Truncate(kMaxOffset + 1), EFBIG));
}

TEST_F(PosixFileTest, PunchedHoleReadsZeroesAndKeepsTheSize) {
  const auto file = Create("f");
  ASSERT_OK(file->Write(Repeat(1, kMiB), 0));
  const Status punched = file->PunchHole(65536, kMiB);
  if (!punched && punched.error().code() == EOPNOTSUPP) GTEST_SKIP() << "no holes here";
  ASSERT_OK(punched);
  EXPECT_EQ(Read(*file, 65536, kMiB - 65536), Repeat(0, kMiB - 65536));
  EXPECT_EQ(Read(*file, 0, 65536), Repeat(1, 65536));
  ASSERT_OK_AND_ASSIGN(const uint64_t size, file->Size());
  EXPECT_EQ(size, kMiB);
}

TEST_F(PosixFileTest, ZeroedRangeReadsZeroesAndKeepsTheSize) {
  const auto file = Create("f");
  ASSERT_OK(file->Write(Repeat(1, kMiB), 0));
  const Status zeroed = file->ZeroRange(65536, kMiB);
  if (!zeroed && zeroed.error().code() == EOPNOTSUPP) GTEST_SKIP() << "no ZERO_RANGE here";
  ASSERT_OK(zeroed);
  EXPECT_EQ(Read(*file, 65536, kMiB - 65536), Repeat(0, kMiB - 65536));
  ASSERT_OK_AND_ASSIGN(const uint64_t size, file->Size());
  EXPECT_EQ(size, kMiB);
}

TEST_F(PosixFileTest, FindsDataBehindAHole) {
  const auto file = Create("f");
  ASSERT_OK(file->Truncate(4 * kMiB));
  ASSERT_OK(file->Write(Repeat(1, 65536), kMiB));
  ASSERT_OK_AND_ASSIGN(const uint64_t data, file->FindData(0));
  if (data == 0) GTEST_SKIP() << "holes are not known here";
  EXPECT_EQ(data, kMiB);
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, file->FindHole(data));
  EXPECT_EQ(hole, kMiB + 65536);
  ASSERT_OK_AND_ASSIGN(const uint64_t none, file->FindData(hole));
  EXPECT_EQ(none, 4 * kMiB);
}

TEST_F(PosixFileTest, SyncsSucceed) {
  const auto file = Create("f");
  ASSERT_OK(file->Write(Repeat(1, 10), 0));
  EXPECT_OK(file->SyncData());
  EXPECT_OK(file->Sync());
}

TEST_F(PosixFileTest, StartedWritebackSucceedsAlsoPastTheEnd) {
  const auto file = Create("f");
  ASSERT_OK(file->Write(Repeat(1, 10000), 0));
  EXPECT_OK(file->StartWriteback(0, 10000));
  EXPECT_OK(file->StartWriteback(4096, kMiB));
  EXPECT_EQ(Read(*file, 0, 10000), Repeat(1, 10000));
}

TEST_F(PosixFileTest, DurableWriteWritesTheBytes) {
  const auto file = Create("f");
  ASSERT_OK(file->Write(Repeat(1, 5000), 0));
  const Status written = file->WriteDurably(Repeat(2, 1000), 100);
  if (!written && written.error().code() == EOPNOTSUPP) GTEST_SKIP() << "no RWF_DSYNC here";
  ASSERT_OK(written);
  EXPECT_EQ(Read(*file, 0, 100), Repeat(1, 100));
  EXPECT_EQ(Read(*file, 100, 1000), Repeat(2, 1000));
  EXPECT_EQ(Read(*file, 1100, 3900), Repeat(1, 3900));
}

TEST_F(PosixFileTest, DurableWriteFailsAsAWriteDoes) {
  const auto file = Create("f");
  EXPECT_TRUE(FailsWith(file->WriteDurably(Repeat(1, 10), kMaxOffset), EFBIG));
  ASSERT_OK_AND_ASSIGN(const auto read_only,
                       posix_.Open(directory_ / "f", OpenMode::kReadOnly));
  const Status written = read_only->WriteDurably(Repeat(1, 10), 0);
  EXPECT_TRUE(FailsWith(written, EBADF));
  EXPECT_TRUE(FailsSaying(written, "pwritev2: "));
}

// Shares storage or changes nothing, as the file system is.
TEST_F(PosixFileTest, ClonedRangeIsTheSameOrCannotBeHad) {
  const auto from = Create("from");
  const auto to = Create("to");
  ASSERT_OK(from->Write(Repeat(1, 65536), 0));
  ASSERT_OK(to->Write(Repeat(2, 65536), 0));
  const Status cloned = to->CloneFrom(*from, 4096, 8192);
  if (!cloned) {
    EXPECT_TRUE(FailsWith(cloned, EOPNOTSUPP));
    EXPECT_EQ(Read(*to, 0, 65536), Repeat(2, 65536));
    return;
  }
  EXPECT_EQ(Read(*to, 0, 4096), Repeat(2, 4096));
  EXPECT_EQ(Read(*to, 4096, 8192), Repeat(1, 8192));
  EXPECT_EQ(Read(*to, 12288, 53248), Repeat(2, 53248));
  ASSERT_OK(to->Write(Repeat(3, 10), 5000));
  EXPECT_EQ(Read(*from, 5000, 10), Repeat(1, 10));
}

TEST_F(PosixFileTest, CloningFromAnotherFileSystemCannotBeDone) {
  const auto to = Create("to");
  ASSERT_OK(to->Write(Repeat(2, 4096), 0));
  const auto elsewhere = posix_.Open("/proc/self/status", OpenMode::kReadOnly);
  if (!elsewhere) GTEST_SKIP() << "no /proc here";
  EXPECT_TRUE(FailsWith(to->CloneFrom(**elsewhere, 0, 4096), EOPNOTSUPP));
  EXPECT_EQ(Read(*to, 0, 4096), Repeat(2, 4096));
}

TEST_F(PosixFileTest, ReservedStorageReadsAsBeforeAndKeepsTheSize) {
  const auto file = Create("f");
  ASSERT_OK(file->Write(Repeat(1, 5000), 0));
  ASSERT_OK(file->Truncate(kMiB));
  const Status reserved = file->Reserve(4096, 2 * kMiB);
  if (!reserved && reserved.error().code() == EOPNOTSUPP) GTEST_SKIP() << "no fallocate here";
  ASSERT_OK(reserved);
  EXPECT_EQ(Read(*file, 0, 5000), Repeat(1, 5000));
  EXPECT_EQ(Read(*file, 5000, kMiB - 5000), Repeat(0, kMiB - 5000));
  ASSERT_OK_AND_ASSIGN(const uint64_t size, file->Size());
  EXPECT_EQ(size, kMiB);
  ASSERT_OK_AND_ASSIGN(const FileInfo info, file->Info());
  EXPECT_GE(info.allocated_bytes, kMiB);
  EXPECT_TRUE(info.free_bytes.has_value());
}

TEST_F(PosixFileTest, StorageThatWasReservedIsTold) {
  const auto file = Create("f");
  ASSERT_OK(file->Truncate(kMiB));
  const auto run = file->StorageAt(0, kMiB);
  if (!run && run.error().code() == EOPNOTSUPP) GTEST_SKIP() << "not told here";
  ASSERT_OK(run);
  EXPECT_FALSE(run->present);
  EXPECT_EQ(run->length, kMiB);
  if (!file->Reserve(256 * kKiB, 128 * kKiB)) GTEST_SKIP() << "no fallocate here";
  ASSERT_OK_AND_ASSIGN(const StorageRun before, file->StorageAt(0, kMiB));
  EXPECT_FALSE(before.present);
  EXPECT_EQ(before.length, 256 * kKiB);
  ASSERT_OK_AND_ASSIGN(const StorageRun within, file->StorageAt(300 * kKiB, kMiB - 300 * kKiB));
  EXPECT_TRUE(within.present);
  EXPECT_EQ(within.length, 84 * kKiB);
  ASSERT_OK_AND_ASSIGN(const StorageRun cut, file->StorageAt(256 * kKiB, 10));
  EXPECT_TRUE(cut.present);
  EXPECT_EQ(cut.length, 10u);
}

TEST_F(PosixFileTest, PastTheLimitOfFileSizesNothingIsReservedAndTheLimitIsTold) {
  const auto file = Create("f");
  struct rlimit old;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const struct rlimit small = {kMiB, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status reserved = file->Reserve(kMiB - 4096, 8192);
  const auto info = file->Info();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  EXPECT_TRUE(FailsWith(reserved, EFBIG));
  ASSERT_OK(info);
  EXPECT_EQ(info->size_limit, kMiB);
}

TEST_F(PosixFileTest, PrefetchChangesNothing) {
  const auto file = Create("f");
  ASSERT_OK(file->Write(Repeat(1, 10), 0));
  EXPECT_OK(file->Prefetch(0, 10));
  EXPECT_EQ(Read(*file, 0, 10), Repeat(1, 10));
}

TEST_F(PosixFileTest, WritingAReadOnlyFileFails) {
  (void)Create("f");
  ASSERT_OK_AND_ASSIGN(const auto file, posix_.Open(directory_ / "f", OpenMode::kReadOnly));
  EXPECT_TRUE(FailsWith(file->Write(Repeat(1, 10), 0), EBADF));
}

TEST_F(PosixFileTest, TwoNamesOfOneFileAreTheSame) {
  const auto a = Create("a");
  const auto b = Create("b");
  ASSERT_EQ(::link((directory_ / "a").c_str(), (directory_ / "c").c_str()), 0);
  ASSERT_OK_AND_ASSIGN(const auto c, posix_.Open(directory_ / "c", OpenMode::kReadOnly));
  ASSERT_OK_AND_ASSIGN(const FileInfo info_a, a->Info());
  ASSERT_OK_AND_ASSIGN(const FileInfo info_b, b->Info());
  ASSERT_OK_AND_ASSIGN(const FileInfo info_c, c->Info());
  EXPECT_TRUE(info_a.SameFile(info_c));
  EXPECT_FALSE(info_a.SameFile(info_b));
}

using PosixFileSystemTest = PosixFileTest;

// Would hang if the FIFO were opened as a file is: there is no writer.
TEST_F(PosixFileSystemTest, RefusesAFifoWithoutWaiting) {
  const std::string path = directory_ / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  for (const OpenMode mode : {OpenMode::kReadOnly, OpenMode::kReadWrite}) {
    const auto opened = posix_.Open(path, mode);
    EXPECT_TRUE(FailsWith(opened, EINVAL));
    EXPECT_TRUE(FailsSaying(opened, "not a regular file or a block device"));
  }
}

// As Samba and an NFS server have it for their clients: who opens the file has to
// wait until they let go, which an ordinary open does.
TEST_F(PosixFileSystemTest, OpenWaitsForALeaseToBeGivenUp) {
  const std::string path = directory_ / "leased";
  ASSERT_OK(posix_.Create(path));
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t holder = ::fork();
  ASSERT_GE(holder, 0);
  if (holder == 0) {
    sigset_t broken;
    ::sigemptyset(&broken);
    ::sigaddset(&broken, SIGIO);
    ::sigprocmask(SIG_BLOCK, &broken, nullptr);
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    const char held = ::fcntl(fd, F_SETLEASE, F_WRLCK) == 0 ? 'y' : 'n';
    if (::write(ready[1], &held, 1) != 1) ::_exit(2);
    int signal = 0;
    if (held == 'y') ::sigwait(&broken, &signal);
    ::_exit(::fcntl(fd, F_SETLEASE, F_UNLCK) == 0 ? 0 : 3);
  }
  char held = 0;
  ASSERT_EQ(::read(ready[0], &held, 1), 1);
  if (held == 'y') {
    EXPECT_OK(posix_.Open(path, OpenMode::kReadWrite));
  }
  int status = 0;
  ASSERT_EQ(::waitpid(holder, &status, 0), holder);
  ::close(ready[0]);
  ::close(ready[1]);
  if (held != 'y') GTEST_SKIP() << "no leases here";
  EXPECT_EQ(status, 0);
}

TEST_F(PosixFileSystemTest, RefusesADirectoryAndADevice) {
  EXPECT_TRUE(FailsWith(posix_.Open(directory_.path(), OpenMode::kReadOnly), EISDIR));
  EXPECT_TRUE(FailsWith(posix_.Open("/dev/null", OpenMode::kReadOnly), EINVAL));
}

TEST_F(PosixFileSystemTest, MissingFileIsAnErrorThatNamesIt) {
  const std::string path = directory_ / "none";
  const auto opened = posix_.Open(path, OpenMode::kReadWrite);
  EXPECT_TRUE(FailsWith(opened, ENOENT));
  EXPECT_TRUE(FailsSaying(opened, "open: " + path + ": No such file"));
}

TEST_F(PosixFileSystemTest, CreateFailsWhereTheNameIsTaken) {
  (void)Create("f");
  EXPECT_TRUE(FailsWith(posix_.Create(directory_ / "f"), EEXIST));
}

TEST_F(PosixFileSystemTest, RenameReplacesIfTold) {
  ASSERT_OK(Create("a")->Write(Repeat(1, 1), 0));
  (void)Create("b");
  ASSERT_OK(posix_.Rename(directory_ / "a", directory_ / "b", RenameMode::kReplace));
  ASSERT_OK_AND_ASSIGN(const auto file, posix_.Open(directory_ / "b", OpenMode::kReadOnly));
  EXPECT_EQ(Read(*file, 0, 1), Repeat(1, 1));
}

TEST_F(PosixFileSystemTest, RenameKeepsAnExistingFileIfTold) {
  (void)Create("a");
  (void)Create("b");
  EXPECT_TRUE(FailsWith(
      posix_.Rename(directory_ / "a", directory_ / "b", RenameMode::kKeepExisting), EEXIST));
  EXPECT_OK(posix_.Rename(directory_ / "a", directory_ / "c", RenameMode::kKeepExisting));
  ASSERT_OK_AND_ASSIGN(const bool there, posix_.Exists(directory_ / "a"));
  EXPECT_FALSE(there);
}

TEST_F(PosixFileSystemTest, RemoveRemoves) {
  (void)Create("f");
  ASSERT_OK(posix_.Remove(directory_ / "f"));
  EXPECT_TRUE(FailsWith(posix_.Remove(directory_ / "f"), ENOENT));
}

TEST_F(PosixFileSystemTest, DanglingLinkExists) {
  ASSERT_EQ(::symlink("nowhere", (directory_ / "link").c_str()), 0);
  ASSERT_OK_AND_ASSIGN(const bool there, posix_.Exists(directory_ / "link"));
  EXPECT_TRUE(there);
}

TEST_F(PosixFileSystemTest, SyncsADirectoryAndNothingElse) {
  (void)Create("f");
  EXPECT_OK(posix_.SyncDirectory(directory_.path()));
  EXPECT_TRUE(FailsWith(posix_.SyncDirectory(directory_ / "f"), ENOTDIR));
}

// Two open file descriptions of one process are strangers to each other, so
// this is also what two processes see. The shell tests have QEMU in it.
TEST_F(PosixFileSystemTest, ReadersShareAndWritersDoNot) {
  (void)Create("f");
  const auto open = [&] {
    return std::move(*posix_.Open(directory_ / "f", OpenMode::kReadOnly));
  };
  auto first = open();
  const auto second = open();
  ASSERT_OK(first->Lock(LockKind::kRead));
  EXPECT_OK(second->Lock(LockKind::kRead));
  EXPECT_TRUE(FailsWith(open()->Lock(LockKind::kWrite), EBUSY));
  first.reset();
  ASSERT_OK(second->Lock(LockKind::kWrite));  // from kRead
  EXPECT_TRUE(FailsWith(open()->Lock(LockKind::kRead), EBUSY));
  EXPECT_TRUE(FailsWith(open()->Lock(LockKind::kWrite), EBUSY));
  ASSERT_OK(second->Lock(LockKind::kRead));  // and back
  EXPECT_OK(open()->Lock(LockKind::kRead));
}

TEST_F(PosixFileSystemTest, LocksOutliveTheParentOfAFork) {
  (void)Create("f");
  int to_child[2];
  ASSERT_EQ(::pipe(to_child), 0);
  auto file = std::move(*posix_.Open(directory_ / "f", OpenMode::kReadWrite));
  ASSERT_OK(file->Lock(LockKind::kWrite));
  const pid_t child = ::fork();
  if (child == 0) {  // as a daemon: holds the descriptor until it is told
    ::close(to_child[1]);
    char byte;
    ::_exit(::read(to_child[0], &byte, 1) == 0 ? 0 : 1);
  }
  file.reset();
  const auto other = std::move(*posix_.Open(directory_ / "f", OpenMode::kReadOnly));
  EXPECT_TRUE(FailsWith(other->Lock(LockKind::kRead), EBUSY));
  ::close(to_child[1]);
  ::close(to_child[0]);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_OK(other->Lock(LockKind::kRead));
}

TEST_F(PosixFileSystemTest, OpensBeneathADirectoryAndNowhereElse) {
  ASSERT_OK_AND_ASSIGN(const std::string root, posix_.RealPath(directory_.path()));
  ASSERT_EQ(::mkdir((directory_ / "in").c_str(), 0700), 0);
  ASSERT_EQ(::mkdir((directory_ / "in/sub").c_str(), 0700), 0);
  (void)Create("in/f");
  (void)Create("out");
  const auto open = [&](const std::string& name) {
    return posix_.OpenBeneath(root + "/in", name, OpenMode::kReadOnly);
  };
  const auto link = [&](const char* target, const char* name) {
    ASSERT_EQ(::symlink(target, (directory_ / ("in/" + std::string(name))).c_str()), 0);
  };
  link("sub/../f", "inside");
  link("../out", "outside");
  link((root + "/in/f").c_str(), "absolute");
  link("/proc/self/cwd", "magic");
  EXPECT_OK(open("f"));
  EXPECT_OK(open("sub/../f"));
  EXPECT_OK(open("inside"));
  EXPECT_TRUE(FailsWith(open("sub/../../out"), EXDEV));
  EXPECT_TRUE(FailsWith(open("outside"), EXDEV));
  EXPECT_TRUE(FailsWith(open("absolute"), EXDEV));
  EXPECT_TRUE(FailsWith(open("magic"), EXDEV));
  EXPECT_TRUE(FailsWith(open("none"), ENOENT));
  EXPECT_TRUE(FailsWith(open("sub"), EISDIR));
}

// By no name: the file is renamed, and another has its name.
TEST_F(PosixFileSystemTest, OpensTheSameFileAgain) {
  const auto file = Create("f");
  ASSERT_OK(file->Write(Repeat(1, 10), 0));
  ASSERT_EQ(::rename((directory_ / "f").c_str(), (directory_ / "g").c_str()), 0);
  (void)Create("f");
  ASSERT_OK_AND_ASSIGN(const auto again, file->Reopen());
  ASSERT_OK(again->Write(Repeat(2, 5), 0));
  std::vector<std::byte> bytes(10);
  ASSERT_OK(file->ReadExactly(bytes, 0));
  EXPECT_EQ(bytes[0], std::byte{2});
  ASSERT_OK_AND_ASSIGN(const auto reader, posix_.Open(directory_ / "g", OpenMode::kReadOnly));
  ASSERT_OK_AND_ASSIGN(const auto reads_only, reader->Reopen());
  EXPECT_TRUE(FailsWith(reads_only->Write(Repeat(3, 5), 0), EBADF));
}

TEST_F(PosixFileSystemTest, FileOpenedAgainHasNoPartInTheLock) {
  const auto file = Create("f");
  ASSERT_OK(file->Lock(LockKind::kWrite));
  {
    ASSERT_OK_AND_ASSIGN(const auto again, file->Reopen());
    EXPECT_TRUE(FailsWith(again->Lock(LockKind::kRead), EBUSY));
  }
  // Closing it has not taken the lock away.
  ASSERT_OK_AND_ASSIGN(const auto other, posix_.Open(directory_ / "f", OpenMode::kReadWrite));
  EXPECT_TRUE(FailsWith(other->Lock(LockKind::kRead), EBUSY));
}

TEST_F(PosixFileSystemTest, TellsWhichFileANameLeadsToAndHowManyNamesItHas) {
  const auto file = Create("f");
  ASSERT_EQ(::link((directory_ / "f").c_str(), (directory_ / "g").c_str()), 0);
  ASSERT_EQ(::symlink("g", (directory_ / "link").c_str()), 0);
  ASSERT_OK_AND_ASSIGN(FileInfo info, file->Info());
  EXPECT_EQ(info.names, 2u);
  ASSERT_OK_AND_ASSIGN(const FileInfo there, posix_.Identify(directory_ / "link"));
  EXPECT_TRUE(there.SameFile(info));
  ASSERT_OK(posix_.Remove(directory_ / "f"));
  ASSERT_OK(posix_.Remove(directory_ / "g"));
  EXPECT_TRUE(FailsWith(posix_.Identify(directory_ / "f"), ENOENT));
  ASSERT_OK_AND_ASSIGN(info, file->Info());
  EXPECT_EQ(info.names, 0u);
}

TEST_F(PosixFileSystemTest, RealPathFollowsLinks) {
  (void)Create("f");
  ASSERT_EQ(::symlink("f", (directory_ / "link").c_str()), 0);
  ASSERT_OK_AND_ASSIGN(const std::string direct, posix_.RealPath(directory_ / "f"));
  ASSERT_OK_AND_ASSIGN(const std::string linked, posix_.RealPath(directory_ / "link"));
  EXPECT_EQ(direct, linked);
  EXPECT_TRUE(FailsWith(posix_.RealPath(directory_ / "none"), ENOENT));
}

}  // namespace
}  // namespace addcow
