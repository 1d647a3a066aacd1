// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/format/acow: every rule of revision 20's byte table in docs/format.md, from
// both sides of its limit, in headers that are put together byte by byte here. What
// both revisions have in common is in header_test.cc.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "common/format/header.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"

namespace addcow::acow {
namespace {

// The byte table, by offset.
constexpr uint64_t kBackingNameOffsetAt = 4;
constexpr uint64_t kBackingNameSizeAt = 8;
constexpr uint64_t kImageNameOffsetAt = 12;
constexpr uint64_t kImageNameSizeAt = 16;
constexpr uint64_t kClusterBitsAt = 20;
constexpr uint64_t kFeaturesAt = 24;
constexpr uint64_t kCompatibleFeaturesAt = 32;
constexpr uint64_t kHeaderSizeAt = 40;
constexpr uint64_t kBackingFormatAt = 44;
constexpr uint64_t kImageFormatAt = 60;
constexpr uint64_t kNamesAt = 76;

class Bytes {
 public:
  explicit Bytes(unsigned cluster_bits) : bytes_(uint64_t{1} << cluster_bits) {
    Put(0, "ACOW").Number(kClusterBitsAt, cluster_bits, 4);
    Number(kHeaderSizeAt, bytes_.size(), 4).Put(kImageFormatAt, "raw");
    Number(kImageNameOffsetAt, kNamesAt, 4).Number(kImageNameSizeAt, 8, 4);
    Put(kNamesAt, "disk.raw");
  }

  Bytes& Put(uint64_t offset, std::string_view text) {
    std::memcpy(bytes_.data() + offset, text.data(), text.size());
    return *this;
  }
  Bytes& Number(uint64_t offset, uint64_t value, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
      bytes_[offset + i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
    return *this;
  }
  Bytes& WithBacking() {
    Put(kBackingFormatAt, "raw").Put(kNamesAt + 8, "base.img");
    return Number(kBackingNameOffsetAt, kNamesAt + 8, 4).Number(kBackingNameSizeAt, 8, 4);
  }

  std::vector<std::byte>& get() { return bytes_; }
  Result<Header> Parse() const { return ParseHeader(bytes_, "x.add-cow"); }

 private:
  std::vector<std::byte> bytes_;
};

TEST(AcowHeader, SaysWhatItIs) {
  ASSERT_OK_AND_ASSIGN(const Header header, Bytes(16).WithBacking().Parse());
  EXPECT_EQ(header, (Header{.revision = Revision::kAcow,
                            .cluster_size = 65536,
                            .image = {"disk.raw", "raw"},
                            .backing = NamedFile{"base.img", "raw"}}));
  ASSERT_OK_AND_ASSIGN(const Header alone, Bytes(16).Parse());
  EXPECT_EQ(alone.backing, std::nullopt);
}

TEST(AcowHeader, HasClustersOf4KiBTo2MiBAndAHeaderAsLong) {
  for (unsigned bits = 12; bits <= 21; bits++) {
    ASSERT_OK_AND_ASSIGN(const Header header, Bytes(bits).Parse());
    EXPECT_EQ(header.cluster_size, uint64_t{1} << bits);
    EXPECT_EQ(header.geometry(), (Geometry{.cluster_size = uint64_t{1} << bits,
                                           .header_size = uint64_t{1} << bits,
                                           .padding = uint64_t{1} << bits}));
  }
}

TEST(AcowHeader, RefusesOtherClusterBits) {
  for (const uint64_t bits : {0u, 9u, 11u, 22u, 32u, 64u, 0xffffffffu})
    EXPECT_TRUE(FailsSaying(Bytes(16).Number(kClusterBitsAt, bits, 4).Parse(),
                            fmt::format("cluster bits is {}, must be 12 to 21", bits)));
}

TEST(AcowHeader, RefusesAHeaderSizeThatIsNotTheClusterSize) {
  for (const uint64_t size : {0u, 4096u, 65535u, 65537u, 131072u, 0xffffffffu})
    EXPECT_TRUE(FailsSaying(
        Bytes(16).Number(kHeaderSizeAt, size, 4).Parse(),
        fmt::format("header size is {}, must be 65536 with cluster bits 16", size)));
}

TEST(AcowHeader, RefusesAFileShorterThanTheHeader) {
  for (const unsigned bits : {12u, 16u, 21u}) {
    Bytes bytes(bits);
    const size_t size = bytes.get().size();
    for (const size_t shorter : {size - 1, size_t{4095}, size_t{5}, size_t{4}}) {
      bytes.get().resize(shorter);
      EXPECT_TRUE(FailsSaying(bytes.Parse(), fmt::format("truncated: {} bytes", shorter)));
    }
  }
}

TEST(AcowHeader, IgnoresWhatFollowsTheHeader) {
  Bytes bytes(12);
  bytes.get().resize(70000, std::byte{0xa5});
  EXPECT_OK(bytes.Parse());
}

TEST(AcowHeader, RefusesEveryUnknownFeature) {
  for (unsigned bit = 0; bit < 64; bit++) {
    const auto parsed = Bytes(16).Number(kFeaturesAt, uint64_t{1} << bit, 8).Parse();
    if (bit == 16)
      EXPECT_TRUE(parsed && parsed->subclusters);
    else
      EXPECT_TRUE(FailsSaying(parsed, fmt::format("has unknown bit {},", bit)));
  }
}

TEST(AcowHeader, HasNoSubclustersInClustersOf4KiB) {
  EXPECT_TRUE(FailsSaying(Bytes(12).Number(kFeaturesAt, 1u << 16, 8).Parse(),
                          "must have bit 16 (SUBCLUSTERS) clear with clusters of 4096 bytes"));
  EXPECT_OK(Bytes(13).Number(kFeaturesAt, 1u << 16, 8).Parse());
}

TEST(AcowHeader, AllAllocatedIsACompatibleFeature) {
  ASSERT_OK_AND_ASSIGN(const Header header,
                       Bytes(16).Number(kCompatibleFeaturesAt, 1, 8).Parse());
  EXPECT_TRUE(header.all_allocated);
  EXPECT_EQ(header.optional_features, 0u);
}

TEST(AcowHeader, KeepsOtherCompatibleFeatures) {
  ASSERT_OK_AND_ASSIGN(const Header header,
                       Bytes(16).Number(kCompatibleFeaturesAt, 0x8000000000020006, 8).Parse());
  EXPECT_FALSE(header.all_allocated);
  EXPECT_TRUE(header.no_subclusters);
  EXPECT_EQ(header.optional_features, 0x8000000000000006u);
}

TEST(AcowHeader, NamesMayBeAnywhereBetweenByte76AndTheHeadersEnd) {
  for (const unsigned bits : {12u, 16u, 21u}) {
    const uint64_t size = uint64_t{1} << bits;
    const auto at = [&](uint64_t offset, uint64_t length) {
      Bytes bytes(bits);
      for (uint64_t i = offset; i < std::min(offset + length, size); i++) bytes.Put(i, "n");
      return bytes.Number(kImageNameOffsetAt, offset, 4)
          .Number(kImageNameSizeAt, length, 4)
          .Parse();
    };
    EXPECT_OK(at(76, size - 76 - 1));
    EXPECT_OK(at(size - 2, 2));
    EXPECT_TRUE(FailsSaying(at(75, 4), "image file name offset is 75, must be 76 to"));
    EXPECT_TRUE(FailsSaying(at(size - 1, 1), "image file name offset"));
    EXPECT_TRUE(FailsSaying(at(76, 0), "image file name size is 0, must be 1 to"));
    EXPECT_TRUE(FailsSaying(at(76, size - 76), "image file name size"));
    EXPECT_TRUE(FailsSaying(at(100, size - 99), "must be at most"));
  }
}

TEST(AcowHeader, AFormatNameEndsWithANul) {
  EXPECT_OK(Bytes(16).WithBacking().Put(kBackingFormatAt, "fifteen-letters").Parse());
  EXPECT_TRUE(FailsSaying(
      Bytes(16).WithBacking().Put(kBackingFormatAt, "sixteen-letters!").Parse(),
      "backing file format is 'sixteen-letters!', must have 15 characters at most"));
}

TEST(AcowHeader, RefusesABackingFormatWithoutABackingFile) {
  EXPECT_TRUE(FailsSaying(Bytes(16).Put(kBackingFormatAt, "raw").Parse(),
                          "must be empty without a backing file"));
}

// The magic tells them apart: what else a file has is not looked at.
TEST(AcowHeader, IsNotTakenForTheOtherRevision) {
  Bytes bytes(16);
  bytes.Put(0, "ADD_COW\xff");
  EXPECT_FALSE(bytes.Parse());
  EXPECT_TRUE(FailsWith(Bytes(16).Put(0, "ACO").Put(3, "w").Parse(), kErrUnsupported));
}

TEST(AcowHeader, WritesTheByteTable) {
  const Header header{.revision = Revision::kAcow,
                      .cluster_size = 8192,
                      .image = {"disk.raw", "raw"},
                      .backing = NamedFile{"base.img", "qcow2"},
                      .all_allocated = true,
                      .subclusters = true,
                      .no_subclusters = true,
                      .optional_features = 0x100};
  ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
  Bytes expected(13);
  expected.Put(kNamesAt, "base.imgdisk.raw").Put(kBackingFormatAt, "qcow2");
  expected.Number(kBackingNameOffsetAt, 76, 4).Number(kBackingNameSizeAt, 8, 4);
  expected.Number(kImageNameOffsetAt, 84, 4);
  expected.Number(kFeaturesAt, 1u << 16, 8).Number(kCompatibleFeaturesAt, 0x20101, 8);
  EXPECT_EQ(bytes, expected.get());
  ASSERT_OK_AND_ASSIGN(const Header again, ParseHeader(bytes, "x"));
  EXPECT_EQ(again, header);
}

TEST(AcowHeader, TheIdentityIsInItsLastBytes) {
  Header header{.revision = Revision::kAcow,
                .cluster_size = 2 * kMiB,
                .image = {"disk.raw", "raw"},
                .backing = NamedFile{"base.img", "raw"},
                .backing_identity = BackingIdentity{.size = 77, .modified = {}}};
  ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
  EXPECT_EQ(bytes[2 * kMiB - 256], std::byte{1});
  EXPECT_EQ(bytes[2 * kMiB - 256 + 8], std::byte{77});
  EXPECT_EQ(ParseHeader(bytes, "x")->backing_identity, header.backing_identity);
}

TEST(AcowHeader, FlagsAreTheFieldsInPlace) {
  Header header{
      .revision = Revision::kAcow, .image = {"disk.raw", "raw"}, .optional_features = 0x40};
  ASSERT_OK_AND_ASSIGN(HeaderBytes bytes, SerializeHeader(header, "x"));
  header.all_allocated = header.subclusters = true;
  const HeaderFlags flags = FlagsOf(header);
  EXPECT_EQ(flags.offset, kFeaturesAt);
  EXPECT_EQ(flags.offset / kSectorSize,
            (flags.offset + flags.bytes().size() - 1) / kSectorSize);
  std::ranges::copy(flags.bytes(), bytes.begin() + kFeaturesAt);
  ASSERT_OK_AND_ASSIGN(const Header parsed, ParseHeader(bytes, "x"));
  EXPECT_EQ(parsed, header);
}

// As an unknown feature it may come from a header of version 1.
TEST(AcowHeader, OnlyAllAllocatedSetsItsBit) {
  Header header{
      .revision = Revision::kAcow, .image = {"disk.raw", "raw"}, .optional_features = 0x41};
  ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, "x"));
  header.optional_features = 0x40;
  ASSERT_OK_AND_ASSIGN(const Header parsed, ParseHeader(bytes, "x"));
  EXPECT_EQ(parsed, header);
  header.optional_features = 0x41;
  EXPECT_EQ(FlagsOf(header).optional_features, 0x40u);
}

TEST(AcowHeader, CannotHaveClustersThatTheFormatHasNot) {
  Header header{.revision = Revision::kAcow, .image = {"disk.raw", "raw"}};
  for (const uint64_t size : {uint64_t{0}, uint64_t{2048}, uint64_t{65535}, 4 * kMiB}) {
    header.cluster_size = size;
    EXPECT_TRUE(FailsWith(SerializeHeader(header, "x"), EINVAL)) << size;
  }
  header.revision = Revision::kVersion1;
  header.cluster_size = 4096;
  EXPECT_TRUE(FailsSaying(SerializeHeader(header, "x"), "version 1, which has 65536"));
}

TEST(ReadHeader, ReadsAsMuchAsItIsLong) {
  for (const unsigned bits : {12u, 16u, 21u}) {
    FakeFileSystem files;
    Bytes bytes(bits);
    const uint64_t end = bytes.get().size() - 4;
    bytes.Put(end, "last").Number(kImageNameOffsetAt, end, 4).Number(kImageNameSizeAt, 4, 4);
    ASSERT_OK_AND_ASSIGN(auto file, files.Create("/x"));
    ASSERT_OK(file->Write(bytes.get(), 0));
    ASSERT_OK_AND_ASSIGN(const Header header, ReadHeader(*file, "/x"));
    EXPECT_EQ(header.image.name, "last");
    ASSERT_OK(file->Truncate(bytes.get().size() - 1));
    EXPECT_TRUE(FailsSaying(ReadHeader(*file, "/x"), "truncated"));
  }
}

}  // namespace
}  // namespace addcow::acow
