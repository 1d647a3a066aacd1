// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FileSystem::CheckMayChange of the system: what permissions, owners and sticky directories
// let be done to a file, told without doing it.

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "common/io/file_system.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"

namespace addcow {
namespace {

class MayChangeTest : public testing::Test {
 protected:
  static constexpr ::uid_t kOtherUser = 65534;

  MayChangeTest() { EXPECT_OK(PosixFileSystem().Create(file_)); }

  // What `call` gives in a process of its own: of another user, where this one is root.
  static int InChild(const std::function<int()>& call) {
    const ::pid_t child = ::fork();
    if (child == 0) ::_exit(call());
    int status = -1;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    return WEXITSTATUS(status);
  }
  int AsUser(FileChange change) const {
    return InChild([&] {
      const bool root = ::geteuid() == 0;
      if (root && (::setgroups(0, nullptr) != 0 || ::setegid(kOtherUser) != 0 ||
                   ::seteuid(kOtherUser) != 0))
        return 255;
      return MayChange(change);
    });
  }
  int MayChange(FileChange change) const {
    const Status may = PosixFileSystem().CheckMayChange(file_, change);
    return may ? 0 : may.error().code();
  }
  void Expect(int write, int replace) const {
    EXPECT_EQ(AsUser(FileChange::kWrite), write);
    EXPECT_EQ(AsUser(FileChange::kReplace), replace);
  }
  // Only root can give files away.
  static void Own(const std::string& path, ::uid_t user, ::gid_t group) {
    if (::geteuid() != 0) return;
    ASSERT_EQ(::chown(path.c_str(), user, group), 0);
  }
  static void Permit(const std::string& path, ::mode_t mode) {
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
  }

  const TempDir directory_;
  const std::string file_ = directory_ / "f";
};

TEST_F(MayChangeTest, OnesOwnFileAsItsPermissionsAndThoseOfItsDirectoryLet) {
  Own(file_, kOtherUser, kOtherUser);
  Own(directory_.path(), kOtherUser, kOtherUser);
  Expect(0, 0);
  Permit(file_, 0444);
  Expect(EACCES, 0);
  Permit(file_, 0644);
  Permit(directory_.path(), 0555);
  Expect(0, EACCES);
  Permit(directory_.path(), 0755);
}

TEST_F(MayChangeTest, AFileOfAnotherUserIsNotReplacedByOneOfOnesOwn) {
  if (::geteuid() != 0) GTEST_SKIP() << "not root: there is no other user";
  Permit(file_, 0666);
  Permit(directory_.path(), 0777);
  Expect(0, EPERM);
  // Of another group only.
  Own(file_, kOtherUser, 0);
  Expect(0, EPERM);
  // A directory that gives its group to what is made in it.
  Permit(directory_.path(), 02777);
  Expect(0, 0);
  Own(file_, 0, kOtherUser);
  Permit(directory_.path(), 01777);
  Expect(0, EPERM);
  EXPECT_EQ(MayChange(FileChange::kReplace), 0) << "root";
}

// One with rights of its own may be put there.
TEST_F(MayChangeTest, AFileOfAnotherUserIsReplacedByANewOne) {
  if (::geteuid() != 0) GTEST_SKIP() << "not root: there is no other user";
  Permit(directory_.path(), 0777);
  EXPECT_EQ(AsUser(FileChange::kReplaceByNew), 0);
  Permit(directory_.path(), 01777);
  EXPECT_EQ(AsUser(FileChange::kReplaceByNew), EPERM);
  Permit(directory_.path(), 0755);
  EXPECT_EQ(AsUser(FileChange::kReplaceByNew), EACCES);
}

TEST_F(MayChangeTest, WhatIsNotThereIsAnError) {
  EXPECT_TRUE(FailsWith(
      PosixFileSystem().CheckMayChange(directory_ / "none", FileChange::kWrite), ENOENT));
}

}  // namespace
}  // namespace addcow
