// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The identity of the backing file: its record in the header, what is refused
// and what is noted when the backing file is another one, and what the first
// bytes of raw files give away.

#include "common/format/backing_identity.h"

#include <gtest/gtest.h>

#include <cstring>

#include "common/base/little_endian.h"
#include "common/format/header.h"
#include "common/format/sample.h"
#include "common/image/image_files.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

const BackingIdentity kIdentity{.size = 0x1122334455, .modified = FileTime{-2, 999999999}};

Header WithIdentity(const std::string& image = "disk.raw") {
  Header header;
  header.image = {image, "raw"};
  header.backing = NamedFile{"base.img", "raw"};
  header.backing_identity = kIdentity;
  return header;
}

// Byte by byte from the table in docs/format.md.
TEST(BackingIdentity, LiesInTheLastBytesOfTheHeader) {
  ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(WithIdentity(), "x"));
  const auto at = [&](size_t offset, size_t count) {
    uint64_t value = 0;
    for (size_t i = count; i-- > 0;)
      value = value << 8 | static_cast<uint64_t>(bytes[offset + i]);
    return value;
  };
  EXPECT_EQ(at(36, 8), 1u << 16);
  EXPECT_EQ(at(3840, 4), 1u);
  EXPECT_EQ(at(3844, 4), 3u);
  EXPECT_EQ(at(3848, 8), 0x1122334455u);
  EXPECT_EQ(at(3856, 8), UINT64_MAX - 1);
  EXPECT_EQ(at(3864, 4), 999999999u);
  for (size_t i = 3868; i < 4096; i++) EXPECT_EQ(bytes[i], std::byte{0}) << i;
  ASSERT_OK_AND_ASSIGN(const Header read, ParseHeader(bytes, "x"));
  EXPECT_EQ(read, WithIdentity());
}

TEST(BackingIdentity, FieldsThatAreNotThereStayAbsent) {
  for (const BackingIdentity& identity :
       {BackingIdentity{.size = 5, .modified = {}},
        BackingIdentity{.size = {}, .modified = FileTime{7, 8}}}) {
    Header header = WithIdentity();
    header.backing_identity = identity;
    ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
    ASSERT_OK_AND_ASSIGN(const Header read, ParseHeader(bytes, "x"));
    EXPECT_EQ(read.backing_identity, identity);
  }
}

// Byte by byte from the table in docs/format.md.
TEST(BackingIdentity, AHashLiesBehindItsAlgorithm) {
  Header header = WithIdentity();
  BackingSample sample{.edge = 0x12345};
  for (size_t i = 0; i < sample.hash.size(); i++) sample.hash[i] = std::byte(0xa0 + i);
  header.backing_identity->sample = sample;
  ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
  const auto record = std::span(bytes).last(kIdentityBytes);
  EXPECT_EQ(record[28], std::byte{1});
  for (size_t i = 29; i < 32; i++) EXPECT_EQ(record[i], std::byte{0}) << i;
  for (size_t i = 0; i < 16; i++) EXPECT_EQ(record[32 + i], std::byte(0xa0 + i)) << i;
  for (size_t i = 48; i < 96; i++) EXPECT_EQ(record[i], std::byte{0}) << i;
  EXPECT_EQ(record[96], std::byte{0x45});
  EXPECT_EQ(record[97], std::byte{0x23});
  EXPECT_EQ(record[98], std::byte{0x01});
  for (size_t i = 99; i < 256; i++) EXPECT_EQ(record[i], std::byte{0}) << i;
  ASSERT_OK_AND_ASSIGN(const Header read, ParseHeader(bytes, "x"));
  EXPECT_EQ(read, header);
}

TEST(BackingIdentity, AHashThatCannotBeComparedIsNone) {
  BackingIdentity whole = kIdentity;
  whole.sample = BackingSample{.edge = kMostSampleEdge, .hash = Xxh3({})};
  const auto read = [&](std::initializer_list<std::pair<size_t, uint8_t>> with) {
    auto bytes = SerializeIdentity(whole);
    for (const auto& [at, value] : with) bytes[at] = std::byte{value};
    return ParseIdentity(bytes);
  };
  EXPECT_EQ(read({}), whole);
  EXPECT_EQ(read({{28, 0}}), kIdentity);                  // no algorithm
  EXPECT_EQ(read({{28, 2}}), kIdentity);                  // one of a newer program
  EXPECT_EQ(read({{31, 1}}), kIdentity);                  // the same, by its last byte
  EXPECT_EQ(read({{98, 0}}), kIdentity);                  // edges without a byte
  EXPECT_EQ(read({{96, 1}}), kIdentity);                  // of a MiB and a byte
  EXPECT_EQ(read({{99, 0xff}}), kIdentity);               // of 4 GiB
  EXPECT_EQ(read({{4, 2}})->sample, std::nullopt);        // no size
  EXPECT_EQ(read({{48, 1}, {100, 1}, {255, 1}}), whole);  // of a newer program
}

TEST(BackingIdentity, IsLeftOutWhereTheNamesNeedItsRoom) {
  Header header = WithIdentity(std::string(3840 - 80 - 8, 'n'));
  EXPECT_TRUE(IdentityFits(header));
  ASSERT_OK_AND_ASSIGN(const HeaderBytes fits, SerializeHeader(header, "x"));
  EXPECT_EQ(ParseHeader(fits, "x")->backing_identity, kIdentity);
  header.image.name += 'n';
  EXPECT_FALSE(IdentityFits(header));
  ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
  ASSERT_OK_AND_ASSIGN(const Header read, ParseHeader(bytes, "x"));
  EXPECT_EQ(read.backing_identity, std::nullopt);
  EXPECT_EQ(read.image.name, header.image.name);
}

TEST(BackingIdentity, OtherOptionalFeaturesAreKept) {
  Header header = WithIdentity();
  header.optional_features = 0xff00'0000'0000'0001;
  ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
  EXPECT_EQ(ParseHeader(bytes, "x")->optional_features, 0xff00'0000'0000'0001u);
}

TEST(BackingIdentity, ARecordThatCannotBeUnderstoodIsNoneAndNeverRefused) {
  const auto read = [](size_t offset, std::initializer_list<uint8_t> with,
                       Header header = WithIdentity()) {
    auto bytes = SerializeHeader(header, "x");
    EXPECT_OK(bytes);
    std::memcpy(bytes->data() + offset, with.begin(), with.size());
    const auto parsed = ParseHeader(*bytes, "x");
    EXPECT_OK(parsed);
    return parsed->backing_identity;
  };
  EXPECT_EQ(read(3840, {2}), std::nullopt);     // another version
  EXPECT_EQ(read(3844, {0}), std::nullopt);     // no field is there
  EXPECT_EQ(read(38, {0}), std::nullopt);       // the bit is clear
  EXPECT_EQ(read(3864, {0, 0xca, 0x9a, 0x3b}),  // a billion nanoseconds
            (BackingIdentity{.size = kIdentity.size, .modified = {}}));
  EXPECT_EQ(read(3844, {0xff, 0xff}), kIdentity);  // fields of a newer program
  EXPECT_EQ(read(4095, {0xff}), kIdentity);        // and what it put there
  // A name that reaches into it: another program has written the header.
  ASSERT_OK_AND_ASSIGN(HeaderBytes bytes, SerializeHeader(WithIdentity("nnnn"), "x"));
  const Le32 offset = 3838;
  std::memcpy(bytes.data() + 20, &offset, sizeof offset);
  std::memcpy(bytes.data() + 3838, "nnnn", 4);
  ASSERT_OK_AND_ASSIGN(const Header read_back, ParseHeader(bytes, "x"));
  EXPECT_EQ(read_back.backing_identity, std::nullopt);
  EXPECT_EQ(read_back.optional_features, 1u << 16);  // as found
}

class IdentityAtOpen : public testing::Test {
 protected:
  void Make(uint64_t size = 4 * kClusterSize, uint64_t backing_size = 3 * kClusterSize) {
    fake_.MakeDirectory(kDirectory);
    ASSERT_OK(MakeTestImage(fake_, kDirectory, {.size = size, .backing_size = backing_size}));
    Base().SetModified({1000, 5});
    Note({.size = backing_size, .modified = FileTime{1000, 5}});
  }
  void Note(const BackingIdentity& identity) {
    Header header = WithIdentity();
    header.backing_identity = identity;
    auto bytes = SerializeHeader(header, "x");
    ASSERT_OK(bytes);
    ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(*bytes, 0));
  }
  FakeInode& Base() { return *fake_.Find(kBackingPath); }
  Result<ImageFiles> Open() { return OpenImageFiles(fake_, source_); }
  // The one note of an image that is opened.
  std::string OnlyNote() {
    const auto files = Open();
    EXPECT_OK(files);
    if (!files) return "";
    EXPECT_EQ(files->notes.size(), 1u);
    return files->notes.empty() ? "" : files->notes.front();
  }

  FakeFileSystem fake_;
  ImageSource source_{.add_cow_path = kAddCowPath, .image_path = {}, .backing_path = {}};
};

TEST_F(IdentityAtOpen, TheSameBaseIsOpenedWithoutAWord) {
  Make();
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_TRUE(files.notes.empty());
}

TEST_F(IdentityAtOpen, AShorterBaseIsRefusedWithWhatItWasAndHowToAcceptIt) {
  Make();
  ASSERT_TRUE(Base().Truncate(3 * kClusterSize - 1));
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, EINVAL));
  EXPECT_TRUE(FailsSaying(files, "/vm/base.img: the backing file has 196607 bytes"));
  EXPECT_TRUE(FailsSaying(files, "196608"));
  EXPECT_TRUE(FailsSaying(files, "addcow rebase -u -b base.img -F raw /vm/x.add-cow"));
  EXPECT_TRUE(FailsWith(Image::Open(fake_, source_, nullptr), EINVAL));
}

TEST_F(IdentityAtOpen, ABaseThatTheUserNamedIsCheckedTheSameWay) {
  Make();
  fake_.Put("/elsewhere/b", 100);
  source_.backing_path = "/elsewhere/b";
  EXPECT_TRUE(FailsSaying(Open(), "addcow rebase -u -b /elsewhere/b -F raw /vm/x.add-cow"));
}

TEST_F(IdentityAtOpen, NamesInTheCommandAreQuoted) {
  Make();
  fake_.Put("/vm/my base", 100);
  source_.backing_path = "/vm/my base";
  EXPECT_TRUE(FailsSaying(Open(), "rebase -u -b '/vm/my base' -F raw /vm/x.add-cow"));
}

TEST_F(IdentityAtOpen, ALongerBaseIsOneLineInTheLog) {
  Make();
  ASSERT_TRUE(Base().Truncate(3 * kClusterSize + 1));
  EXPECT_NE(OnlyNote().find("has 196609 bytes, but"), std::string::npos);
  std::vector<std::string> log;
  ASSERT_OK(Image::Open(fake_, source_, [&](LogLevel level, const std::string& message) {
    EXPECT_EQ(level, LogLevel::kNote);
    log.push_back(message);
  }));
  EXPECT_EQ(log.size(), 1u);
}

TEST_F(IdentityAtOpen, AnotherTimeIsOneLineInTheLog) {
  Make();
  Base().SetModified({1000, 6});
  EXPECT_NE(OnlyNote().find("modified at 1970-01-01 00:16:40.000000006 UTC, but"),
            std::string::npos);
  // A device's time is that of its node.
  Base().SetAbilities({.is_block_device = true});
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_TRUE(files.notes.empty());
}

TEST_F(IdentityAtOpen, AllAllocatedAsksForNoBase) {
  Make();
  Header header = WithIdentity();
  header.all_allocated = true;
  const HeaderFlags flags = FlagsOf(header);
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(flags.bytes(), flags.offset));
  ASSERT_TRUE(Base().Truncate(0));
  EXPECT_OK(Open());
}

TEST_F(IdentityAtOpen, ADiskSmallerThanItsBaseIsNoted) {
  Make(2 * kClusterSize);
  EXPECT_NE(OnlyNote().find("the disk has 131072 bytes and its backing file 196608"),
            std::string::npos);
}

TEST_F(IdentityAtOpen, AnotherFormatsSignatureIsNotedAndChangesNothing) {
  using namespace std::string_literals;
  Make();
  for (const auto& [begins, format] :
       {std::pair("QFI\xfb"s, "qcow2"), std::pair("KDMV"s, "vmdk"),
        std::pair("# Disk DescriptorFile"s, "vmdk"), std::pair("vhdxfile"s, "vhdx"),
        std::pair("LUKS\xba\xbe"s, "luks")}) {
    const auto bytes = std::as_bytes(std::span(begins));
    ASSERT_TRUE(Base().Write(bytes, 0));
    const std::string note = OnlyNote();
    EXPECT_NE(note.find(format), std::string::npos) << note;
    ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(fake_));
    std::vector<std::byte> read(begins.size());
    ASSERT_OK(image->Read(read, 0));
    EXPECT_EQ(Difference(read, bytes), "");
  }
}

TEST_F(IdentityAtOpen, AnAddCowFileAsRawBaseIsRefused) {
  Make();
  ASSERT_TRUE(Base().Write(fake_.Find(kAddCowPath)->Bytes(0, 8), 0));
  EXPECT_TRUE(FailsSaying(Open(), "/vm/base.img: is an add-cow file"));
}

TEST_F(IdentityAtOpen, AnAddCowFileAsImageFileIsRefusedUnlessAGuestWroteIt) {
  Make();
  ASSERT_TRUE(fake_.Find(kImagePath)->Write(fake_.Find(kAddCowPath)->Bytes(0, 8), 0));
  EXPECT_TRUE(FailsSaying(Open(), "/vm/disk.raw: is an add-cow file"));
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(Repeat(1, 1), kBitmapOffset));
  EXPECT_OK(Open());
}

}  // namespace
}  // namespace addcow
