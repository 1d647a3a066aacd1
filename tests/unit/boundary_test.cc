// SPDX-License-Identifier: LGPL-2.1-or-later
//
// plugin/boundary.h: which errno nbdkit gets for which error. What nbdkit makes
// of them on the wire is in tests/shell/test-fault-errno.sh.

#include "plugin/boundary.h"

#include <gtest/gtest.h>

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace {

std::string reported;

}  // namespace

// In place of nbdkit's.
extern "C" void nbdkit_error(const char* format, ...) {
  char line[1000];
  va_list args;
  va_start(args, format);
  (void)std::vsnprintf(line, sizeof line, format, args);
  va_end(args);
  reported += std::string(line) + "\n";
}
extern "C" void nbdkit_debug(const char*, ...) {}

namespace addcow {
namespace {

int ErrnoFor(int code) {
  reported.clear();
  errno = 0;
  EXPECT_EQ(AtBoundary([&]() -> Status { return Fail(Error::System(code, "pwrite", "f")); }),
            -1);
  return errno;
}

TEST(Boundary, SuccessReportsNothing) {
  reported.clear();
  EXPECT_EQ(AtBoundary([] { return Status(); }), 0);
  EXPECT_EQ(reported, "");
}

TEST(Boundary, ErrorsThatTheProtocolHasAreKept) {
  for (const int code : {EPERM, EROFS, ENOMEM, ENOSPC, EDQUOT, EFBIG})
    EXPECT_EQ(ErrnoFor(code), code);
}

// nbdkit sends EINVAL for what it does not know, and a client takes that for
// its own mistake.
TEST(Boundary, EveryOtherErrnoIsEio) {
  for (int code = 1; code < 200; code++) {
    if (code == EPERM || code == EROFS || code == ENOMEM || code == ENOSPC || code == EDQUOT ||
        code == EFBIG)
      continue;
    EXPECT_EQ(ErrnoFor(code), EIO) << code;
  }
}

TEST(Boundary, UnsupportedIsOnlyAnAnswerToAFastZero) {
  const auto body = []() -> Status { return Fail(Error::System(EOPNOTSUPP, "zero", "f")); };
  reported.clear();
  EXPECT_EQ(AtBoundary(body, Unsupported::kIsAnAnswer), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(reported, "");
  EXPECT_EQ(AtBoundary(body), -1);
  EXPECT_EQ(errno, EIO);
}

TEST(Boundary, ErrorIsReportedInOneLineThatNamesTheFile) {
  ErrnoFor(ENOSPC);
  EXPECT_EQ(reported, "pwrite: f: No space left on device\n");
}

TEST(Boundary, ExceptionsStop) {
  reported.clear();
  EXPECT_EQ(AtBoundary([]() -> Status { throw std::bad_alloc(); }), -1);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(AtBoundary([]() -> Status { throw std::runtime_error("odd"); }), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(reported, "out of memory\nunexpected: odd\n");
}

TEST(Boundary, ClientsSeeBaseNamesInPrintableAscii) {
  EXPECT_EQ(NameForClients("/srv/secret/disk 1.raw"), "disk 1.raw");
  EXPECT_EQ(NameForClients("disk.raw"), "disk.raw");
  EXPECT_EQ(NameForClients("/a/\x1b[2J\n\\\xff\xc3\xa4"), "\\x1b[2J\\x0a\\x5c\\xff\\xc3\\xa4");
}

}  // namespace
}  // namespace addcow
