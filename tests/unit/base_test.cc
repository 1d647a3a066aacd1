// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/base: byte order, rounding, the text of errors, the search for
// zeroes, and file descriptors that close themselves.

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstring>

#include "common/base/error.h"
#include "common/base/little_endian.h"
#include "common/base/shell_word.h"
#include "common/base/unique_fd.h"
#include "common/base/units.h"
#include "common/base/zero_bytes.h"
#include "tests/support/expect.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

TEST(LittleEndian, StoresTheLeastSignificantByteFirst) {
  const Le32 value = 0x01020304;
  std::array<uint8_t, 4> bytes;
  std::memcpy(bytes.data(), &value, sizeof value);
  EXPECT_EQ(bytes, (std::array<uint8_t, 4>{4, 3, 2, 1}));
}

TEST(LittleEndian, Stores64BitsInEightBytes) {
  const Le64 value = 0x0102030405060708;
  std::array<uint8_t, 8> bytes;
  std::memcpy(bytes.data(), &value, sizeof value);
  EXPECT_EQ(bytes, (std::array<uint8_t, 8>{8, 7, 6, 5, 4, 3, 2, 1}));
}

TEST(LittleEndian, ReadsBackWhatWasStored) {
  for (const uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{0x80}, uint64_t{1} << 63,
                               UINT64_MAX, uint64_t{0xfedcba9876543210}})
    EXPECT_EQ(uint64_t{Le64(value)}, value);
}

TEST(LittleEndian, AssignmentReplacesEveryByte) {
  Le32 value = 0xffffffff;
  value = 1;
  EXPECT_EQ(uint32_t{value}, 1u);
}

TEST(ShellWord, PlainNamesAreAsTheyAre) {
  for (const char* name : {"base.img", "/vm/../a-b_c", "10%", "a=b:c@d,e+f"})
    EXPECT_EQ(ShellWord(name), name);
}

TEST(ShellWord, OthersAreQuoted) {
  EXPECT_EQ(ShellWord(""), "''");
  EXPECT_EQ(ShellWord("my disk.img"), "'my disk.img'");
  EXPECT_EQ(ShellWord("$(rm *)"), "'$(rm *)'");
  EXPECT_EQ(ShellWord("it's"), "'it'\\''s'");
  EXPECT_EQ(ShellWord("~"), "'~'");
  EXPECT_EQ(ShellWord("gr\xc3\xbcn"), "'gr\xc3\xbcn'");
  EXPECT_EQ(ShellWord("a\nb'\\"), "$'a\\x0ab\\'\\\\'");
}

TEST(Units, DivideUpCountsAStartedUnit) {
  EXPECT_EQ(DivideUp(0, 8), 0u);
  EXPECT_EQ(DivideUp(1, 8), 1u);
  EXPECT_EQ(DivideUp(8, 8), 1u);
  EXPECT_EQ(DivideUp(9, 8), 2u);
}

TEST(Units, DivideUpDoesNotOverflow) {
  EXPECT_EQ(DivideUp(UINT64_MAX, 65536), uint64_t{1} << 48);
}

TEST(Units, RoundDownAndUpKeepMultiples) {
  EXPECT_EQ(RoundDown(1024, 512), 1024u);
  EXPECT_EQ(RoundUp(1024, 512), 1024u);
}

TEST(Units, RoundDownAndUpGoToTheNextMultiple) {
  EXPECT_EQ(RoundDown(1535, 512), 1024u);
  EXPECT_EQ(RoundUp(1025, 512), 1536u);
}

TEST(Units, RoundUpWorksUpToTwoToThePowerOf63) {
  EXPECT_EQ(RoundUp(kMaxOffset, 65536), uint64_t{1} << 63);
}

TEST(Units, RangeFitsUpToTheEnd) {
  EXPECT_TRUE(RangeFits(0, 100, 100));
  EXPECT_TRUE(RangeFits(100, 0, 100));
  EXPECT_FALSE(RangeFits(0, 101, 100));
  EXPECT_FALSE(RangeFits(101, 0, 100));
}

TEST(Units, RangeFitsDoesNotWrapAround) {
  EXPECT_FALSE(RangeFits(UINT64_MAX, 2, 100));
  EXPECT_FALSE(RangeFits(50, UINT64_MAX, 100));
}

TEST(ErrorMessage, NamesOperationFileOffsetCountAndReason) {
  EXPECT_EQ(Error::Io(EIO, "pread", "test.raw", 65536, 4096).Message(),
            "pread: test.raw: offset=65536, count=4096: Input/output error");
}

TEST(ErrorMessage, LeavesOutWhatThereIsNot) {
  EXPECT_EQ(Error::System(ENOENT, "open", "x").Message(), "open: x: No such file or directory");
}

TEST(ErrorMessage, ReasonReplacesTheTextOfTheErrno) {
  EXPECT_EQ(Error::Because(EINVAL, "x.add-cow", "is too odd").Message(),
            "x.add-cow: is too odd");
}

TEST(ErrorMessage, UnknownErrnoIsShownAsANumber) {
  EXPECT_EQ(Error::System(99999, "open", "x").Message(), "open: x: error 99999");
}

TEST(ErrorMessage, IsOneLineWhateverTheFileIsCalled) {
  EXPECT_EQ(Error::System(ENOENT, "open", "a\nb\tc\x7f\x1b[31m").Message(),
            "open: a\\x0ab\\x09c\\x7f\\x1b[31m: No such file or directory");
}

TEST(ErrorMessage, IsOneLineWhateverTheReasonHolds) {
  EXPECT_EQ(Error::Because(EIO, "x", "one\ntwo").Message(), "x: one\\x0atwo");
}

TEST(ErrorMessage, KeepsTextBeyondAscii) {
  EXPECT_EQ(Error::Because(EIO, "größe.raw", "no").Message(), "größe.raw: no");
}

// EUCLEAN stands for a broken image in this project. From the system it means
// a broken file system, which no repair of the image mends.
TEST(Error, CorruptFileSystemIsNotACorruptImage) {
  const Error error = Error::System(EUCLEAN, "open", "x");
  EXPECT_EQ(error.code(), EIO);
  EXPECT_EQ(error.Message(), "open: x: the file system is corrupt (EUCLEAN)");
  EXPECT_EQ(Error::Io(EUCLEAN, "pread", "x", 0, 1).code(), EIO);
  EXPECT_EQ(Error::Because(kErrCorrupt, "x", "bad").code(), kErrCorrupt);
}

TEST(Error, AnotherCodeLeavesTheWords) {
  const Error error = Error::System(ENOSPC, "fdatasync", "f").WithCode(EIO);
  EXPECT_EQ(error.code(), EIO);
  EXPECT_EQ(error.Message(), Error::System(ENOSPC, "fdatasync", "f").Message());
  EXPECT_EQ(Error::Because(EINVAL, "f", "is odd").WithCode(EIO).Message(), "f: is odd");
}

TEST(Error, KeepsWhatItWasMadeOf) {
  const Error error = Error::Io(ENOSPC, "pwrite", "test.raw", 512, 1);
  EXPECT_EQ(error.code(), ENOSPC);
  EXPECT_EQ(error.operation(), "pwrite");
  EXPECT_EQ(error.file(), "test.raw");
  EXPECT_EQ(error.offset(), 512u);
}

Status FailIfOdd(int value) {
  if (value % 2 != 0) return Fail(Error::System(value, "odd", ""));
  return {};
}

Result<int> Half(int value) {
  ADDCOW_TRY(FailIfOdd(value));
  return value / 2;
}

Result<int> Quarter(int value) {
  ADDCOW_TRY_ASSIGN(const int half, Half(value));
  return Half(half);
}

TEST(Try, PassesErrorsOn) { EXPECT_TRUE(FailsWith(Quarter(7), 7)); }

TEST(Try, GoesOnWithTheValue) {
  ASSERT_OK_AND_ASSIGN(const int quarter, Quarter(8));
  EXPECT_EQ(quarter, 2);
}

TEST(IsZero, EmptyIsZero) { EXPECT_TRUE(IsZero({})); }

TEST(IsZero, ZeroesOfAnyLengthAreZero) {
  for (const uint64_t size : {1u, 15u, 16u, 17u, 31u, 32u, 33u, 4096u, 65537u})
    EXPECT_TRUE(IsZero(Repeat(0, size))) << size;
}

TEST(IsZero, FindsOneBitAtAnyPlace) {
  for (const uint64_t size : {1u, 15u, 16u, 17u, 32u, 33u, 200u}) {
    for (uint64_t position = 0; position < size; position++) {
      auto bytes = Repeat(0, size);
      bytes[position] = std::byte{0x80};
      EXPECT_FALSE(IsZero(bytes)) << position << " of " << size;
    }
  }
}

TEST(IsZero, LooksAtNoByteBeforeOrAfter) {
  auto bytes = Repeat(1, 100);
  std::fill(bytes.begin() + 3, bytes.end() - 3, std::byte{0});
  EXPECT_TRUE(IsZero(std::span(bytes).subspan(3, 94)));
}

TEST(UniqueFd, ClosesWhatItHolds) {
  int number;
  {
    const UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(fd.valid());
    number = fd.get();
  }
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

TEST(UniqueFd, HandsOverWhenMoved) {
  UniqueFd from(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int number = from.get();
  const UniqueFd to(std::move(from));
  EXPECT_EQ(to.get(), number);
  EXPECT_NE(::fcntl(number, F_GETFD), -1);
}

}  // namespace
}  // namespace addcow
