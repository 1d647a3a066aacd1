// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which bytes of a base are its sample, and its hash, which others compute as well.

#include "common/format/sample.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "common/image/base.h"
#include "common/io/file_system.h"
#include "common/source/file_source.h"
#include "common/source/sample_hash.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/random.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

std::string Hex(const Hash128& hash) {
  std::string text;
  for (const std::byte byte : hash) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

// What "xxhsum -H2" of xxhash 0.8.1 prints.
TEST(Xxh3, IsWhatXxhsumPrints) {
  EXPECT_EQ(Hex(Xxh3({})), "99aa06d3014798d86001c324468d497f");
  std::vector<std::byte> bytes(100000);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = std::byte(i % 251);
  EXPECT_EQ(Hex(Xxh3(bytes)), "54182c58bbb1337c42c23aeead96750d");
}

// By hand from the table in docs/format.md.
TEST(Sample, OfALargeBaseIsTheEdgesThePowersOfTwoAndSixteenBetween) {
  const uint64_t size = 100 * kGiB;
  const auto pieces = SampleOf(size, kMiB);
  std::vector<ByteRange> wanted = {{0, kMiB}};
  for (uint64_t at = kMiB; at <= kGiB; at *= 2) wanted.push_back({at, 4096});
  // A MiB, and n times (100 GiB - 2 MiB) / 17, which is 6316005014.
  for (const uint64_t at :
       {6317051904u, 12633055232u, 18949062656u, 25265065984u, 31581073408u, 37897076736u,
        44213080064u, 50529087488u, 56845090816u, 63161098240u, 69477101568u, 75793104896u,
        82109112320u, 88425115648u, 94741123072u, 101057126400u})
    wanted.push_back({at, 4096});
  wanted.push_back({size - kMiB, kMiB});
  EXPECT_EQ(pieces, wanted);
}

TEST(Sample, OfAShortBaseIsAllOfIt) {
  for (const uint64_t size :
       {uint64_t{1}, uint64_t{4095}, kMiB, 2 * kMiB, 2 * kMiB + uint64_t{17 * 4096}})
    EXPECT_EQ(SampleOf(size, kMiB), (std::vector<ByteRange>{{0, size}})) << size;
  EXPECT_EQ(SampleOf(2 * kMiB + 17 * 4096 + 1, kMiB).size(), 1u + 1 + 16 + 1);
  EXPECT_EQ(SampleOf(1 + 17 * 4096, 1).size(), 1u);
  EXPECT_EQ(SampleOf(1 + 17 * 4096 + 2, 1).size(), 18u);
}

TEST(Sample, LiesWithinTheBaseWhateverItsSizeAndIsNeverLarge) {
  Random random(TestSeed());
  for (int i = 0; i < 20000; i++) {
    const uint64_t size = random.Between(1, kMaxOffset >> random.Below(63));
    const auto edge = static_cast<uint32_t>(random.Between(1, kMiB >> random.Below(21)));
    uint64_t total = 0;
    for (const ByteRange& piece : SampleOf(size, edge)) {
      ASSERT_TRUE(piece.length > 0 && RangeFits(piece.offset, piece.length, size))
          << size << " " << edge << " " << piece.offset;
      total += piece.length;
    }
    ASSERT_LE(total, 2 * uint64_t{edge} + 27 * 4096) << size << " " << edge;
    ASSERT_GE(total, std::min<uint64_t>(size, 2 * uint64_t{edge} + 16 * 4096));
  }
}

// Counts how often it is asked.
class CountingSource final : public Source {
 public:
  explicit CountingSource(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  uint64_t size() const override { return bytes_.size(); }
  Status Read(std::span<std::byte> buffer, uint64_t offset) override {
    EXPECT_TRUE(RangeFits(offset, buffer.size(), size()));
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), buffer.size(),
                buffer.begin());
    return {};
  }
  Result<DataRun> RunAt(uint64_t, uint64_t limit) override { return DataRun{true, limit}; }
  Status Prefetch(uint64_t, uint64_t) override { return {}; }
  Status ReadPieces(std::span<const Piece> pieces, const Arrived& arrived) override {
    calls++;
    return Source::ReadPieces(pieces, arrived);
  }
  int calls = 0;

 private:
  const std::vector<std::byte> bytes_;
};

// What an image has itself, and what not, whose end lies in the middle of a sector.
TEST(Sample, OfAnImageIsThatOfItsDiskAndAsksItsBaseOnce) {
  Random random(TestSeed());
  const auto bytes = random.Bytes(3 * kMiB + 5001);
  for (const uint64_t disk_size :
       {uint64_t{bytes.size()}, 3 * kMiB + 5100, 3 * kMiB, 4 * kMiB}) {
    FakeFileSystem fake;
    fake.MakeDirectory(kDirectory);
    const auto disk = MakeTestImage(
        fake, kDirectory,
        {.size = disk_size, .backing_size = bytes.size(), .allocated = {0, 7, 30}});
    ASSERT_OK(disk);
    ASSERT_OK_AND_ASSIGN(ImageFiles files, OpenImageFiles(fake, {.add_cow_path = kAddCowPath,
                                                                 .mode = OpenMode::kReadOnly}));
    std::vector<std::byte> base(bytes.size());
    ASSERT_OK(files.backing->Read(base, 0));
    auto counting = std::make_unique<CountingSource>(base);
    CountingSource& counts = *counting;
    files.backing = std::move(counting);
    ASSERT_OK_AND_ASSIGN(const Base image, BaseOfImage(fake, std::move(files)));
    CountingSource whole(*disk);
    for (const uint32_t edge : {kMostSampleEdge, kSmallSampleEdge, uint32_t{77}}) {
      counts.calls = 0;
      EXPECT_EQ(*HashSample(*image.source, edge), *HashSample(whole, edge)) << disk_size;
      EXPECT_EQ(counts.calls, 1);
    }
  }
}

TEST(Sample, IsReadByOneCallAndHashedInOrder) {
  Random random(TestSeed());
  const auto bytes = random.Bytes(5 * kMiB + 77);
  for (const uint32_t edge : {kMostSampleEdge, kSmallSampleEdge, uint32_t{3}}) {
    CountingSource source(bytes);
    std::vector<std::byte> sample;
    for (const ByteRange& piece : SampleOf(bytes.size(), edge)) {
      const auto part = std::span(bytes).subspan(piece.offset, piece.length);
      sample.insert(sample.end(), part.begin(), part.end());
    }
    ASSERT_OK_AND_ASSIGN(const Hash128 hash, HashSample(source, edge));
    EXPECT_EQ(source.calls, 1);
    EXPECT_EQ(Hex(hash), Hex(Xxh3(sample)));
  }
}

TEST(Sample, OfAFileIsThatOfItsBytes) {
  Random random(TestSeed());
  const auto bytes = random.Bytes(3 * kMiB + 5);
  FakeFileSystem fake;
  fake.Put("/b", bytes);
  ASSERT_OK_AND_ASSIGN(auto file, fake.Open("/b", OpenMode::kReadOnly));
  FileSource source(std::move(file), bytes.size());
  CountingSource same(bytes);
  EXPECT_EQ(*HashSample(source, kMostSampleEdge), *HashSample(same, kMostSampleEdge));
}

TEST(Sample, OnePieceThatCannotBeReadFailsIt) {
  FakeFileSystem fake;
  fake.Put("/b", kMiB);
  ASSERT_OK_AND_ASSIGN(auto file, fake.Open("/b", OpenMode::kReadOnly));
  FileSource source(std::move(file), kMiB);
  ASSERT_TRUE(fake.Find("/b")->Truncate(kMiB - 1));
  EXPECT_TRUE(FailsWith(HashSample(source, kSmallSampleEdge), EIO));
}

}  // namespace
}  // namespace addcow
