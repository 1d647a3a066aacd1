// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Programs of others: what they print, and that none is waited for longer than it may take.

#include "common/source/program.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "tests/support/expect.h"

namespace addcow {
namespace {

Result<std::string> Shell(const std::string& script, const ProgramLimits& limits = {}) {
  return OutputOf({"sh", "-c", script}, "/", limits);
}

TEST(ProgramTest, GivesWhatIsPrinted) {
  EXPECT_EQ(*Shell("pwd; echo odd >&2", {.timeout = std::chrono::seconds(60)}), "/\n");
  EXPECT_EQ(Shell("dd if=/dev/zero bs=1000 count=1000")->size(), 1'000'000u);
}

TEST(ProgramTest, SaysWhyItFails) {
  EXPECT_TRUE(FailsSaying(Shell("echo printed; echo why >&2; exit 3"), "sh: why"));
  EXPECT_TRUE(FailsSaying(Shell("kill -9 $$"), "sh: failed"));
  EXPECT_TRUE(FailsWith(OutputOf({"/nowhere/program"}, "/", {}), ENOENT));
}

// As one that was started by a program with SIGCHLD ignored: nobody is told how a child ended.
TEST(ProgramTest, NeedsNoWordOfTheEndOfAChild) {
  const auto before = ::signal(SIGCHLD, SIG_IGN);
  const auto printed = Shell("echo printed", {.timeout = std::chrono::seconds(60)});
  ::signal(SIGCHLD, before);
  ASSERT_OK(printed);
  EXPECT_EQ(*printed, "printed\n");
}

// Also where it prints nothing any more.
TEST(ProgramTest, EndsAtItsTimeAndNamesTheOption) {
  for (const char* const script : {"exec sleep 1000", "exec >&-; exec sleep 1000"}) {
    const auto start = std::chrono::steady_clock::now();
    const auto ended =
        Shell(script, {.timeout = std::chrono::seconds(1), .option_prefix = "--"});
    EXPECT_TRUE(FailsWith(ended, ETIMEDOUT));
    EXPECT_TRUE(FailsSaying(ended, "does not end in 1 s (--timeout=SECONDS gives it more)"));
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
  }
}

TEST(ProgramTest, EndsWithAnInterruptAndLeavesNoProcess) {
  std::string path = testing::TempDir() + "/addcow-program-XXXXXX";
  const int fd = ::mkstemp(path.data());
  ASSERT_GE(fd, 0);
  ::close(fd);
  const auto child = [&] {
    ::pid_t pid = 0;
    std::ifstream(path) >> pid;
    return pid;
  };
  const auto ended = Shell("echo $$ >" + path + "; exec sleep 1000",
                           {.interrupted = [&] { return child() != 0; }});
  EXPECT_TRUE(FailsWith(ended, kErrInterrupted));
  ASSERT_GT(child(), 0);
  EXPECT_EQ(::kill(child(), 0), -1);
  EXPECT_EQ(errno, ESRCH);
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace addcow
