// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Opening what somebody has made in order to harm: what it costs is bounded
// by the storage that exists, not by what a header or a sparse file's size
// claims.

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

// Of the backing file and the image file, and the bitmap's first byte.
constexpr uint64_t kBeginnings = 3 * 21 + 1;

class HostileOpenTest : public ImageFixture {
 protected:
  // The files of a disk of `size` bytes, all holes but for the header. The
  // add-cow file has `bitmap_bytes` bytes of bitmap.
  void PutSparse(uint64_t size, uint64_t bitmap_bytes) {
    image_.reset();
    log_.Clear();
    fake_.Put(kImagePath, size);
    fake_.Put(kBackingPath, size);
    Header header;
    header.image = {"disk.raw", "raw"};
    header.backing = NamedFile{"base.img", "raw"};
    ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, kAddCowPath));
    ASSERT_OK(FakeFile("x.add-cow", fake_.Put(kAddCowPath, bytes))
                  .Truncate(kBitmapOffset + bitmap_bytes));
  }

  void SetBit(uint64_t cluster) {
    const auto byte = static_cast<std::byte>(1u << (cluster % 8));
    ASSERT_OK(FakeFile("x.add-cow", fake_.Find(kAddCowPath))
                  .Write(std::span(&byte, 1), kBitmapOffset + cluster / 8));
  }

  Result<std::unique_ptr<Image>> TryOpen() { return OpenTestImage(seam_); }

  uint64_t BytesRead() const {
    uint64_t bytes = 0;
    for (const auto& record : log_.Records(
             [](const Operation& operation) { return operation.kind == OpKind::kRead; }))
      bytes += record.operation.length;
    return bytes;
  }

  size_t Calls() const {
    return log_.Records([](const Operation&) { return true; }).size();
  }

  // Memory that the process has now, in bytes.
  static uint64_t ResidentBytes() {
    uint64_t total = 0;
    uint64_t resident = 0;
    std::ifstream("/proc/self/statm") >> total >> resident;
    return resident * 4096;
  }
};

TEST_F(HostileOpenTest, EveryFieldAtItsMaximumIsRefusedAfterTheHeader) {
  struct FieldAt {
    uint64_t offset;
    uint64_t size;
  };
  // All but the optional features, which are ignored.
  for (const FieldAt field : {FieldAt{8, 4}, FieldAt{12, 4}, FieldAt{16, 4}, FieldAt{20, 4},
                              FieldAt{24, 4}, FieldAt{28, 8}, FieldAt{44, 4}, FieldAt{48, 16},
                              FieldAt{64, 16}, FieldAt{8, kHeaderSize - 8}}) {
    PutSparse(4 * kClusterSize, kBitmapPadding);
    ASSERT_OK(FakeFile("x.add-cow", fake_.Find(kAddCowPath))
                  .Write(Repeat(0xff, field.size), field.offset));
    EXPECT_FALSE(TryOpen()) << "bytes " << field.offset << "+" << field.size;
    EXPECT_EQ(BytesRead(), kHeaderSize) << "bytes " << field.offset << "+" << field.size;
  }
}

TEST_F(HostileOpenTest, LargestImageFileWithAShortBitmapIsRefusedAfterTheHeader) {
  PutSparse(kMaxOffset, kBitmapPadding);
  EXPECT_TRUE(FailsSaying(TryOpen(), "but the COW bitmap is that of a disk of 34359738368"));
  EXPECT_LE(BytesRead(), kHeaderSize + kBeginnings);
  EXPECT_LT(Calls(), 40u);
}

// Its map, too: pages of the bitmap in which nothing is set are not looked at.
TEST_F(HostileOpenTest, SparseBitmapCostsWhatStorageItHas) {
  const uint64_t size = 64 * 1024 * kTiB;
  PutSparse(size, Layout(size, Geometry{}).bitmap().padded_end() - kBitmapOffset);  // 128 GiB
  const uint64_t last = Layout(size, Geometry{}).clusters() - 1;
  for (const uint64_t cluster : {uint64_t{0}, last / 2, last}) SetBit(cluster);
  const uint64_t before = ResidentBytes();
  ASSERT_GT(before, 0u);
  ASSERT_OK_AND_ASSIGN(const auto image, TryOpen());
  const uint64_t after = ResidentBytes();
  EXPECT_LT(after, before + 16 * kMiB);
  // The header, and three blocks of the bitmap.
  EXPECT_LE(BytesRead(), kHeaderSize + kBeginnings + 3 * (FakeInode::kBlockSize + 16));
  EXPECT_LT(Calls(), 60u);
  EXPECT_EQ(image->bitmap().allocated(), 3u);
  EXPECT_TRUE(image->bitmap().Test(last));
  std::vector<Extent> extents;
  ASSERT_OK(image->Map(0, size, [&](const Extent& extent) {
    extents.push_back(extent);
    return true;
  }));
  ASSERT_EQ(extents.size(), 5u);
  EXPECT_EQ(extents[2].source, Extent::Source::kImage);
  EXPECT_EQ(extents[2].offset, last / 2 * kClusterSize);
  EXPECT_EQ(extents[3].length, (last - last / 2 - 1) * kClusterSize);
  EXPECT_LT(ResidentBytes(), before + 16 * kMiB);
}

TEST_F(HostileOpenTest, AddCowFileLargerThanAnyBitmapIsNotReadPastTheDisk) {
  PutSparse(kClusterSize, kTiB);
  SetBit(0);
  for (uint64_t cluster = 1000000; cluster < 1000100; cluster++) SetBit(cluster * 64 * 4096);
  ASSERT_OK_AND_ASSIGN(const auto image, TryOpen());
  EXPECT_LE(BytesRead(), kHeaderSize + kBeginnings + 16);
  EXPECT_EQ(image->bitmap().allocated(), 1u);
}

}  // namespace
}  // namespace addcow
