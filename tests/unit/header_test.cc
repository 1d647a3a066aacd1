// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/format/header: every rule of the byte table in docs/format.md, from
// both sides of its limit. The headers are put together byte by byte here,
// not by SerializeHeader, so that reader and writer cannot agree on a mistake.

#include "common/format/header.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/expect.h"

namespace addcow {
namespace {

// The byte table, by offset.
constexpr uint64_t kVersionAt = 8;
constexpr uint64_t kBackingNameOffsetAt = 12;
constexpr uint64_t kBackingNameSizeAt = 16;
constexpr uint64_t kImageNameOffsetAt = 20;
constexpr uint64_t kImageNameSizeAt = 24;
constexpr uint64_t kFeaturesAt = 28;
constexpr uint64_t kOptionalFeaturesAt = 36;
constexpr uint64_t kHeaderPagesAt = 44;
constexpr uint64_t kBackingFormatAt = 48;
constexpr uint64_t kImageFormatAt = 64;
constexpr uint64_t kNamesAt = 80;

class Bytes {
 public:
  explicit Bytes(uint64_t size = 4096) : bytes_(size) {}

  Bytes& Put(uint64_t offset, std::string_view text) {
    std::memcpy(bytes_.data() + offset, text.data(), text.size());
    return *this;
  }
  Bytes& Put32(uint64_t offset, uint32_t value) { return PutNumber(offset, value, 4); }
  Bytes& Put64(uint64_t offset, uint64_t value) { return PutNumber(offset, value, 8); }
  Bytes& Resize(uint64_t size) {
    bytes_.resize(size);
    return *this;
  }

  std::vector<std::byte>& get() { return bytes_; }
  Result<Header> Parse() const { return ParseHeader(bytes_, "x.add-cow"); }

 private:
  Bytes& PutNumber(uint64_t offset, uint64_t value, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
      bytes_[offset + i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
    return *this;
  }

  std::vector<std::byte> bytes_;
};

// A valid header without a backing file.
Bytes Plain() {
  Bytes bytes;
  bytes.Put(0, "ADD_COW\xff").Put32(kVersionAt, 1).Put64(kFeaturesAt, 2);
  bytes.Put32(kHeaderPagesAt, 1).Put(kImageFormatAt, "raw");
  bytes.Put32(kImageNameOffsetAt, 80).Put32(kImageNameSizeAt, 8).Put(kNamesAt, "disk.raw");
  return bytes;
}

// And with one.
Bytes WithBacking() {
  Bytes bytes = Plain();
  bytes.Put64(kFeaturesAt, 3).Put(kBackingFormatAt, "raw");
  bytes.Put32(kBackingNameOffsetAt, 88).Put32(kBackingNameSizeAt, 8).Put(88, "base.img");
  return bytes;
}

TEST(ParseHeader, AcceptsAnImageWithoutABackingFile) {
  ASSERT_OK_AND_ASSIGN(const Header header, Plain().Parse());
  EXPECT_EQ(header.image, (NamedFile{"disk.raw", "raw"}));
  EXPECT_EQ(header.backing, std::nullopt);
  EXPECT_FALSE(header.all_allocated);
}

TEST(ParseHeader, AcceptsAnImageWithABackingFile) {
  ASSERT_OK_AND_ASSIGN(const Header header, WithBacking().Parse());
  EXPECT_EQ(header.backing, (NamedFile{"base.img", "raw"}));
}

TEST(ParseHeader, ErrorsNameTheFile) {
  EXPECT_TRUE(FailsSaying(Plain().Put32(kVersionAt, 2).Parse(), "x.add-cow: "));
}

// Magic, version, size.

TEST(ParseHeader, RefusesEveryWrongByteOfTheMagic) {
  for (uint64_t i = 0; i < 8; i++) {
    Bytes bytes = Plain();
    bytes.get()[i] ^= std::byte{1};
    EXPECT_TRUE(FailsWith(bytes.Parse(), kErrUnsupported)) << i;
    EXPECT_TRUE(FailsSaying(bytes.Parse(), "must be '41 44 44 5f 43 4f 57 ff'")) << i;
  }
}

TEST(ParseHeader, RefusesAnEmptyFile) {
  EXPECT_TRUE(FailsSaying(ParseHeader({}, "x.add-cow"), "it is empty"));
}

TEST(ParseHeader, RefusesAFileThatEndsInTheMagic) {
  EXPECT_TRUE(FailsSaying(Plain().Resize(7).Parse(), "magic is '41 44 44 5f 43 4f 57'"));
}

TEST(ParseHeader, RefusesAFileShorterThanTheHeader) {
  EXPECT_TRUE(FailsSaying(Plain().Resize(4095).Parse(), "truncated: 4095 bytes"));
  EXPECT_TRUE(FailsSaying(Plain().Resize(8).Parse(), "must be 4096"));
  EXPECT_OK(Plain().Resize(4096).Parse());
}

TEST(ParseHeader, RefusesOtherVersions) {
  for (const uint32_t version : {0u, 2u, 0x01000000u, 0xffffffffu}) {
    const auto parsed = Plain().Put32(kVersionAt, version).Parse();
    EXPECT_TRUE(FailsWith(parsed, kErrUnsupported)) << version;
    EXPECT_TRUE(FailsSaying(parsed, fmt::format("version is {}, must be 1", version)));
  }
}

TEST(ParseHeader, RefusesOtherHeaderPagesSizes) {
  for (const uint32_t pages : {0u, 2u, 0xffffffffu})
    EXPECT_TRUE(FailsSaying(Plain().Put32(kHeaderPagesAt, pages).Parse(),
                            fmt::format("header pages size is {}, must be 1", pages)));
}

// Features.

TEST(ParseHeader, RefusesEveryUnknownFeatureByItsNumber) {
  for (uint64_t bit = 3; bit < 64; bit++) {
    if (bit == 16) continue;  // SUBCLUSTERS
    const auto parsed = Plain().Put64(kFeaturesAt, 2 | uint64_t{1} << bit).Parse();
    EXPECT_TRUE(FailsWith(parsed, kErrUnsupported)) << bit;
    EXPECT_TRUE(
        FailsSaying(parsed, fmt::format("unknown bit {}, must be made of 0x10007", bit)));
  }
}

TEST(ParseHeader, RefusesAMissingImageFileBit) {
  EXPECT_TRUE(FailsSaying(Plain().Put64(kFeaturesAt, 0).Parse(),
                          "features is 0x0, must have bit 1 (IMAGE_FILE) set"));
}

TEST(ParseHeader, RefusesTheBackingFileBitWithoutABackingFile) {
  EXPECT_TRUE(FailsSaying(Plain().Put64(kFeaturesAt, 3).Parse(),
                          "features is 0x3, must have bit 0 (BACKING_FILE) clear"));
}

TEST(ParseHeader, RefusesABackingFileWithoutItsBit) {
  EXPECT_TRUE(FailsSaying(WithBacking().Put64(kFeaturesAt, 2).Parse(),
                          "features is 0x2, must have bit 0 (BACKING_FILE) set"));
}

TEST(ParseHeader, ReadsAllAllocated) {
  ASSERT_OK_AND_ASSIGN(const Header plain, Plain().Put64(kFeaturesAt, 6).Parse());
  EXPECT_TRUE(plain.all_allocated);
  ASSERT_OK_AND_ASSIGN(const Header backed, WithBacking().Put64(kFeaturesAt, 7).Parse());
  EXPECT_TRUE(backed.all_allocated);
}

TEST(ParseHeader, ReadsSubclusters) {
  ASSERT_OK_AND_ASSIGN(const Header header, Plain().Put64(kFeaturesAt, 0x10002).Parse());
  EXPECT_TRUE(header.subclusters);
  EXPECT_FALSE(Plain().Parse()->subclusters);
}

TEST(ParseHeader, ReadsNoSubclusters) {
  ASSERT_OK_AND_ASSIGN(const Header header,
                       Plain().Put64(kOptionalFeaturesAt, 0x8000000000020001).Parse());
  EXPECT_TRUE(header.no_subclusters);
  EXPECT_EQ(header.optional_features, 0x8000000000000001);
  EXPECT_FALSE(Plain().Put64(kOptionalFeaturesAt, 0xfffffffffffdffff).Parse()->no_subclusters);
}

TEST(ParseHeader, IgnoresAndKeepsOptionalFeatures) {
  ASSERT_OK_AND_ASSIGN(const Header header,
                       Plain().Put64(kOptionalFeaturesAt, 0x8000000000000001).Parse());
  EXPECT_EQ(header.optional_features, 0x8000000000000001);
}

// Names. Each rule holds for both, so the tests run over both.

struct NameFields {
  const char* what;
  uint64_t offset_at;
  uint64_t size_at;
};

class ParseHeaderName : public testing::TestWithParam<NameFields> {
 protected:
  // A header with this name at [offset, offset + size), the other out of its way.
  Result<Header> ParseWith(uint32_t offset, uint32_t size) const {
    const bool image = GetParam().offset_at == kImageNameOffsetAt;
    Bytes bytes = image ? Plain() : WithBacking();
    bytes.Put32(GetParam().offset_at, offset).Put32(GetParam().size_at, size);
    // The other name, where there is one: one byte at one end of the room.
    if (!image)
      bytes.Put32(kImageNameOffsetAt, offset == 80 ? 4094 : 80).Put32(kImageNameSizeAt, 1);
    bytes.Put(80, std::string(4016, 'n'));
    return bytes.Parse();
  }
  std::string What(const std::string& text) const {
    return GetParam().what + (" name " + text);
  }
};

TEST_P(ParseHeaderName, OffsetMayBe80To4094) {
  EXPECT_OK(ParseWith(80, 1));
  EXPECT_OK(ParseWith(4094, 2));
}

TEST_P(ParseHeaderName, RefusesAnOffsetBelow80) {
  EXPECT_TRUE(FailsSaying(ParseWith(79, 1), What("offset is 79, must be 80 to 4094")));
  EXPECT_TRUE(FailsSaying(ParseWith(1, 1), What("offset is 1, must be 80 to 4094")));
}

TEST_P(ParseHeaderName, RefusesAnOffsetAbove4094) {
  EXPECT_TRUE(FailsSaying(ParseWith(4095, 1), What("offset is 4095, must be 80 to 4094")));
  EXPECT_TRUE(FailsSaying(ParseWith(0xffffffff, 1), What("offset is 4294967295, must be")));
}

TEST_P(ParseHeaderName, RefusesSizeZero) {
  EXPECT_TRUE(FailsSaying(ParseWith(100, 0), What("size is 0, must be 1 to 4015")));
}

TEST_P(ParseHeaderName, RefusesASizeFrom4016On) {
  EXPECT_TRUE(FailsSaying(ParseWith(80, 4016), What("size is 4016, must be 1 to 4015")));
  EXPECT_TRUE(FailsSaying(ParseWith(80, 0xffffffff), What("size is 4294967295, must be")));
}

TEST_P(ParseHeaderName, MayEndWithTheHeader) { EXPECT_OK(ParseWith(3096, 1000)); }

TEST_P(ParseHeaderName, RefusesANameThatGoesPastTheHeader) {
  EXPECT_TRUE(FailsSaying(
      ParseWith(3097, 1000),
      GetParam().what +
          std::string(" name: offset 3097 + size 1000 is 4097, must be at most 4096")));
}

INSTANTIATE_TEST_SUITE_P(
    Names, ParseHeaderName,
    testing::Values(NameFields{"image file", kImageNameOffsetAt, kImageNameSizeAt},
                    NameFields{"backing file", kBackingNameOffsetAt, kBackingNameSizeAt}),
    [](const auto& parameter) {
      return std::string(parameter.index == 0 ? "Image" : "Backing");
    });

TEST(ParseHeader, LongestNameIs4015Bytes) {
  const std::string name(4015, 'n');
  ASSERT_OK_AND_ASSIGN(const Header header,
                       Plain().Put32(kImageNameSizeAt, 4015).Put(80, name).Parse());
  EXPECT_EQ(header.image.name, name);
}

TEST(ParseHeader, RefusesImageNameOffsetZero) {
  EXPECT_TRUE(FailsSaying(Plain().Put32(kImageNameOffsetAt, 0).Parse(),
                          "image file name offset is 0, must be 80 to 4094"));
}

TEST(ParseHeader, RefusesABackingNameSizeWithoutAnOffset) {
  EXPECT_TRUE(FailsSaying(Plain().Put32(kBackingNameSizeAt, 5).Parse(),
                          "backing file name size is 5, must be 0 where the offset is 0"));
}

TEST(ParseHeader, RefusesANulInAName) {
  EXPECT_TRUE(FailsSaying(Plain().Put(84, std::string_view("\0", 1)).Parse(),
                          "image file name holds a NUL byte at position 4"));
  EXPECT_TRUE(FailsSaying(WithBacking().Put(95, std::string_view("\0", 1)).Parse(),
                          "backing file name holds a NUL byte at position 7"));
}

TEST(ParseHeader, NamesNeedNoNulBehindThem) {
  ASSERT_OK_AND_ASSIGN(const Header header, WithBacking().Put(96, "more").Parse());
  EXPECT_EQ(header.image.name, "disk.raw");
  EXPECT_EQ(header.backing->name, "base.img");
}

TEST(ParseHeader, NamesMayComeInAnyOrder) {
  Bytes bytes = WithBacking();
  bytes.Put32(kImageNameOffsetAt, 88).Put32(kBackingNameOffsetAt, 80);
  ASSERT_OK_AND_ASSIGN(const Header header, bytes.Parse());
  EXPECT_EQ(header.backing->name, "disk.raw");
}

TEST(ParseHeader, RefusesNamesThatOverlap) {
  for (const uint32_t offset : {80u, 81u, 87u})
    EXPECT_TRUE(FailsSaying(WithBacking().Put32(kBackingNameOffsetAt, offset).Parse(),
                            "overlap, must not"))
        << offset;
}

TEST(ParseHeader, RefusesNamesThatOverlapTheOtherWayRound) {
  Bytes bytes = WithBacking();
  bytes.Put32(kBackingNameOffsetAt, 80).Put32(kImageNameOffsetAt, 87);
  EXPECT_TRUE(FailsSaying(bytes.Parse(), "overlap"));
  EXPECT_OK(bytes.Put32(kImageNameOffsetAt, 88).Parse());
}

TEST(ParseHeader, IgnoresUnusedBytes) {
  EXPECT_OK(Plain().Put(88, std::string(4008, 'x')).Parse());
}

// Formats.

TEST(ParseHeader, RefusesAnEmptyImageFormat) {
  EXPECT_TRUE(FailsSaying(Plain().Put32(kImageFormatAt, 0).Parse(),
                          "image file format is empty, must be 'raw'"));
}

TEST(ParseHeader, RefusesOtherImageFormats) {
  const auto parsed = Plain().Put(kImageFormatAt, "qcow2").Parse();
  EXPECT_TRUE(FailsWith(parsed, kErrUnsupported));
  EXPECT_TRUE(FailsSaying(parsed, "image file format is 'qcow2', must be 'raw'"));
}

TEST(ParseHeader, KeepsOtherBackingFormats) {
  ASSERT_OK_AND_ASSIGN(const Header header,
                       WithBacking().Put(kBackingFormatAt, "qcow2").Parse());
  EXPECT_EQ(header.backing->format, "qcow2");
}

TEST(ParseHeader, FormatMayFillItsField) {
  ASSERT_OK_AND_ASSIGN(const Header header,
                       WithBacking().Put(kBackingFormatAt, "0123456789abcdef").Parse());
  EXPECT_EQ(header.backing->format, "0123456789abcdef");
}

TEST(ParseHeader, RefusesAnEmptyBackingFormatWithABackingFile) {
  EXPECT_TRUE(FailsSaying(WithBacking().Put32(kBackingFormatAt, 0).Parse(),
                          "backing file format is empty, must name the format"));
}

TEST(ParseHeader, RefusesABackingFormatWithoutABackingFile) {
  EXPECT_TRUE(FailsSaying(Plain().Put(kBackingFormatAt, "raw").Parse(),
                          "backing file format is 'raw', must be empty"));
}

TEST(ParseHeader, RefusesBytesAfterTheFormatsEnd) {
  const std::string allowed = "', must be printable ASCII, padded with zeroes";
  EXPECT_TRUE(FailsSaying(Plain().Put(kImageFormatAt + 15, "x").Parse(),
                          "image file format is '72 61 77 00 00 00 00 00 "
                          "00 00 00 00 00 00 00 78" +
                              allowed));
  EXPECT_TRUE(FailsSaying(Plain().Put(kBackingFormatAt + 1, "x").Parse(),
                          "backing file format is '00 78 00 00 00 00 00 00 "
                          "00 00 00 00 00 00 00 00" +
                              allowed));
}

TEST(ParseHeader, RefusesAFormatThatIsNotPrintable) {
  for (const char* format : {"r\nw", "r w", "r\x7fw", "r\x80w"}) {
    const auto parsed = WithBacking().Put(kBackingFormatAt, format).Parse();
    EXPECT_TRUE(FailsWith(parsed, kErrCorrupt));
    EXPECT_TRUE(FailsSaying(parsed, fmt::format("backing file format is '72 {:02x} 77 00",
                                                static_cast<unsigned char>(format[1]))));
  }
}

// Writing.

Header Example() {
  Header header;
  header.image = {"disk.raw", "raw"};
  header.backing = NamedFile{"../base.img", "qcow2"};
  header.optional_features = 0x123456789abcdef0;
  return header;
}

TEST(SerializeHeader, ParsesBackToTheSame) {
  for (const bool backed : {false, true}) {
    for (const bool all : {false, true}) {
      Header header = Example();
      if (!backed) header.backing.reset();
      header.all_allocated = all;
      header.subclusters = !all;
      header.no_subclusters = all;
      ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
      ASSERT_OK_AND_ASSIGN(const Header parsed, ParseHeader(bytes, "x"));
      EXPECT_EQ(parsed, header);
    }
  }
}

TEST(SerializeHeader, NoSubclustersIsOptionalBit17) {
  Header header = Example();
  header.optional_features = 1;
  header.no_subclusters = true;
  ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
  EXPECT_EQ(bytes[kOptionalFeaturesAt], std::byte{1});
  EXPECT_EQ(bytes[kOptionalFeaturesAt + 2], std::byte{2});
}

TEST(SerializeHeader, WritesTheByteTable) {
  Header header = Example();
  header.image.name = "i";
  header.backing->name = "bb";
  header.optional_features = 0;
  ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
  Bytes expected;
  expected.Put(0, "ADD_COW\xff").Put32(kVersionAt, 1).Put64(kFeaturesAt, 3);
  expected.Put32(kHeaderPagesAt, 1).Put(kImageFormatAt, "raw").Put(kBackingFormatAt, "qcow2");
  expected.Put32(kBackingNameOffsetAt, 80).Put32(kBackingNameSizeAt, 2).Put(80, "bb");
  expected.Put32(kImageNameOffsetAt, 82).Put32(kImageNameSizeAt, 1).Put(82, "i");
  EXPECT_TRUE(std::ranges::equal(bytes, expected.get()));
}

TEST(SerializeHeader, NamesMayHave4015BytesTogether) {
  Header header = Example();
  header.image.name = std::string(4000, 'i');
  header.backing->name = std::string(15, 'b');
  EXPECT_OK(SerializeHeader(header, "x"));
  header.backing->name += 'b';
  const auto serialized = SerializeHeader(header, "x");
  EXPECT_TRUE(FailsWith(serialized, ENAMETOOLONG));
  EXPECT_TRUE(
      FailsSaying(serialized, "have 4016 bytes together, the header has room for 4015"));
}

TEST(SerializeHeader, OneNameMayHave4015Bytes) {
  Header header;
  header.image = {std::string(4015, 'i'), "raw"};
  EXPECT_OK(SerializeHeader(header, "x"));
  header.image.name += 'i';
  EXPECT_TRUE(FailsWith(SerializeHeader(header, "x"), ENAMETOOLONG));
}

TEST(SerializeHeader, RefusesNamesThatTheFormatCannotHold) {
  Header header = Example();
  header.image.name = "";
  EXPECT_TRUE(FailsSaying(SerializeHeader(header, "x"), "image file name is empty"));
  header = Example();
  header.backing->name = "";
  EXPECT_TRUE(FailsSaying(SerializeHeader(header, "x"), "backing file name is empty"));
  header = Example();
  header.backing->name = std::string("a\0b", 3);
  EXPECT_TRUE(FailsSaying(SerializeHeader(header, "x"), "backing file name holds a NUL byte"));
}

TEST(SerializeHeader, RefusesFormatsThatDoNotFit) {
  Header header = Example();
  header.backing->format = "";
  EXPECT_TRUE(FailsWith(SerializeHeader(header, "x"), EINVAL));
  header.backing->format = "0123456789abcdef";
  EXPECT_OK(SerializeHeader(header, "x"));
  header.backing->format += "g";
  EXPECT_TRUE(FailsWith(SerializeHeader(header, "x"), EINVAL));
}

TEST(SerializeHeader, RefusesAnImageFormatThatIsNotRaw) {
  Header header = Example();
  header.image.format = "qcow2";
  EXPECT_TRUE(FailsWith(SerializeHeader(header, "x"), kErrUnsupported));
}

TEST(FlagsOf, AreTheFieldsInPlace) {
  Header header = Example();
  ASSERT_OK_AND_ASSIGN(HeaderBytes bytes, SerializeHeader(header, "x"));
  header.all_allocated = true;
  const HeaderFlags flags = FlagsOf(header);
  EXPECT_EQ(flags.offset, kFeaturesAt);
  std::ranges::copy(flags.bytes(), bytes.begin() + kFeaturesAt);
  ASSERT_OK_AND_ASSIGN(const Header parsed, ParseHeader(bytes, "x"));
  EXPECT_EQ(parsed, header);
}

}  // namespace
}  // namespace addcow
