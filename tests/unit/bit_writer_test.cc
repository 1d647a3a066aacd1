// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The bits of a new bitmap, written and read again, against a plain model: BitWriter,
// and VisitAllocated over both bitmaps of a file.

#include "common/ops/bit_writer.h"

#include <gtest/gtest.h>

#include "common/ops/raw_bitmap.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/operation_log.h"
#include "tests/support/random.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

constexpr uint64_t kPieceBits = 8 * 64 * kKiB;  // of what is written at once

class BitWriterTest : public testing::Test {
 protected:
  // Sets the ranges in a new file, and compares it with a model.
  void Expect(const std::vector<ClusterRange>& ranges, const BitmapPlace& place) {
    const auto inode = fake_.Put("/f", place.padded_end());
    log_.Clear();
    std::vector<std::byte> model(place.padded_end());
    {
      ForwardingFileSystem logged(fake_, log_);
      ASSERT_OK_AND_ASSIGN(const auto file, logged.Open("/f", OpenMode::kReadWrite));
      BitWriter writer(*file, place);
      for (const ClusterRange& range : ranges) {
        ASSERT_OK(writer.Set(range));
        for (uint64_t bit = range.first; bit < range.end(); bit++)
          model[place.offset + bit / 8] |= std::byte{1} << bit % 8;
      }
      ASSERT_OK(writer.Finish());
      ASSERT_OK(writer.Finish());  // nothing is left to write
    }
    ASSERT_EQ(Difference(inode->Bytes(0, place.padded_end()), model), "");
    EXPECT_EQ(inode->size(), place.padded_end()) << "nothing past its end";
    for (uint64_t at = 0; at < model.size(); at += kBlock) {
      const auto block =
          std::span(model).subspan(at, std::min<uint64_t>(kBlock, model.size() - at));
      const bool zero = std::ranges::count(block, std::byte{0}) == std::ssize(block);
      const auto data = inode->SeekData(at);
      EXPECT_EQ(data && *data == at, !zero) << "a block without a one stays a hole: " << at;
    }
    for (const auto& record : log_.Records(
             [](const Operation& operation) { return operation.kind == OpKind::kWrite; })) {
      EXPECT_LE(record.operation.length, 64 * kKiB);
      EXPECT_NE(record.data.front(), std::byte{0});
      EXPECT_NE(record.data.back(), std::byte{0});
    }
  }
  void Expect(const std::vector<ClusterRange>& ranges) {
    Expect(ranges, {.offset = 4096, .bits = 5 * kPieceBits, .padding = 4096});
  }

  static constexpr uint64_t kBlock = FakeInode::kBlockSize;

  FakeFileSystem fake_;
  OperationLog log_;
};

TEST_F(BitWriterTest, NothingIsWrittenWithoutABit) {
  Expect({});
  EXPECT_EQ(log_.Count(OpKind::kWrite), 0u);
}

TEST_F(BitWriterTest, EveryRangeOfAFewBytes) {
  for (uint64_t first = 0; first < 20; first++)
    for (uint64_t end = first + 1; end < 40; end++)
      Expect({{first, end - first}}, {.offset = 4096, .bits = 64, .padding = 4096});
}

TEST_F(BitWriterTest, NeighboursShareAByte) {
  Expect({{0, 1}, {1, 1}, {3, 2}, {7, 1}, {8, 9}, {17, 7}, {30, 2}, {32, 100}});
}

TEST_F(BitWriterTest, RunsOverTheBordersOfPieces) {
  for (const uint64_t start : {uint64_t{0}, uint64_t{3}, uint64_t{8}, uint64_t{77}}) {
    const uint64_t border = start / 8 * 8 + kPieceBits;  // pieces begin with a byte
    for (const uint64_t before : {uint64_t{0}, uint64_t{1}, uint64_t{7}, uint64_t{8}})
      for (const uint64_t after : {uint64_t{0}, uint64_t{1}, uint64_t{8}, uint64_t{9}}) {
        Expect({{start, border - before - start}, {border + after, 11}});
        Expect({{start, 1}, {border - before - 20, 20 + before + after + 5}});
      }
    Expect({{start, 3 * kPieceBits + 5}});
    Expect({{start, kPieceBits}, {start + kPieceBits, kPieceBits}});
  }
}

TEST_F(BitWriterTest, TheLastBitOfTheBitmap) {
  for (const uint64_t bits : {uint64_t{1}, uint64_t{63}, uint64_t{64}, 2 * kPieceBits + 1}) {
    Expect({{bits - 1, 1}}, {.offset = 8192, .bits = bits, .padding = 65536});
    Expect({{0, bits}}, {.offset = 8192, .bits = bits, .padding = 65536});
  }
}

TEST_F(BitWriterTest, WhatHasNoneStaysAHole) {
  constexpr uint64_t kBlockBits = 8 * kBlock;
  for (const uint64_t gap : {kBlockBits - 8, kBlockBits - 1, kBlockBits, kBlockBits + 1,
                             kBlockBits + 8, 2 * kBlockBits - 8, 2 * kBlockBits + 7})
    for (const uint64_t first : {uint64_t{0}, kBlockBits - 1, kBlockBits, kBlockBits + 9})
      Expect({{0, 1}, {first + 1, 3}, {first + 4 + gap, 2}});
}

TEST_F(BitWriterTest, RandomSets) {
  Random random(TestSeed());
  for (int round = 0; round < 60; round++) {
    const uint64_t bits = random.Between(1, 4 * kPieceBits);
    const uint64_t longest = uint64_t{1} << random.Between(1, 20);
    const uint64_t farthest = uint64_t{1} << random.Between(6, 20);
    std::vector<ClusterRange> ranges;
    for (uint64_t at = random.Below(farthest); at < bits;) {
      const uint64_t count = std::min(random.Between(1, longest), bits - at);
      ranges.push_back({at, count});
      at += count + random.Below(farthest);
    }
    Expect(ranges, {.offset = 4096 * random.Between(1, 3), .bits = bits, .padding = 64 * kKiB});
    if (HasFailure()) FAIL() << "in round " << round;
  }
}

TEST_F(BitWriterTest, AWriteThatFailsIsTold) {
  const auto inode = fake_.Put("/f", 1 * kMiB);
  inode->SetAbilities({.most_blocks = 1});
  ASSERT_OK_AND_ASSIGN(const auto file, fake_.Open("/f", OpenMode::kReadWrite));
  BitWriter writer(*file, {.offset = 4096, .bits = 4 * kMiB, .padding = 4096});
  EXPECT_OK(writer.Set({0, 1}));
  EXPECT_OK(writer.Set({kPieceBits, 1}));
  EXPECT_TRUE(FailsWith(writer.Finish(), ENOSPC));
}

// A disk of `geometry` with these bits, by the subcluster.
class VisitAllocatedTest : public testing::Test {
 protected:
  struct Disk {
    Layout layout;
    RawPlaces places;
    std::vector<bool> allocated;  // subclusters
    std::unique_ptr<File> file;
  };

  Disk MakeRandom(uint64_t size, const Geometry& geometry, bool subclusters, Random& random) {
    Disk disk{.layout = Layout(size, geometry), .places = {}, .allocated = {}, .file = {}};
    const BitmapPlace first = disk.layout.bitmap();
    const BitmapPlace second = disk.layout.subcluster_bitmap();
    disk.places.clusters = first;
    // To the end of the padding, where there may be strays.
    disk.places.clusters.bits = 8 * (first.padded_end() - first.offset);
    if (subclusters) {
      disk.places.subclusters = second;
      disk.places.subclusters.bits = 8 * (second.padded_end() - second.offset);
    }
    fake_.Put("/f", second.padded_end());
    auto file = fake_.Open("/f", OpenMode::kReadWrite);
    EXPECT_OK(file);
    disk.file = std::move(*file);
    disk.allocated.resize(second.bits);
    const uint64_t ratio = geometry.cluster_size / kSubclusterSize;
    // Bits past the end of the disk count for nothing.
    RandomBits(*disk.file, first, first.bits + 9, random, [&](uint64_t cluster) {
      for (uint64_t i = cluster * ratio; i < std::min((cluster + 1) * ratio, second.bits); i++)
        disk.allocated[i] = true;
    });
    RandomBits(*disk.file, second, second.bits + 9, random, [&](uint64_t subcluster) {
      if (subclusters && subcluster < second.bits) disk.allocated[subcluster] = true;
    });
    return disk;
  }

  template <typename Set>
  static void RandomBits(File& file, const BitmapPlace& place, uint64_t bits, Random& random,
                         Set set) {
    BitWriter writer(file, place);
    const uint64_t longest = uint64_t{1} << random.Between(1, 9);
    const uint64_t farthest = uint64_t{1} << random.Between(1, 15);
    for (uint64_t at = random.Below(farthest); at < bits;) {
      const uint64_t count = std::min(random.Between(1, longest), bits - at);
      ASSERT_OK(writer.Set({at, count}));
      for (uint64_t i = at; i < at + count; i++)
        if (i < place.bits) set(i);
      at += count + random.Below(farthest);
    }
    ASSERT_OK(writer.Finish());
  }

  static std::vector<ByteRange> Expected(const Disk& disk) {
    std::vector<ByteRange> ranges;
    for (uint64_t i = 0; i < disk.allocated.size(); i++) {
      if (!disk.allocated[i]) continue;
      const uint64_t start = i * kSubclusterSize;
      const uint64_t end = std::min(start + kSubclusterSize, disk.layout.virtual_size());
      if (ranges.empty() || ranges.back().end() != start) ranges.push_back({start, 0});
      ranges.back().length = end - ranges.back().offset;
    }
    return ranges;
  }

  FakeFileSystem fake_;
};

TEST_F(VisitAllocatedTest, GivesTheStretchesOfBothBitmapsNeighboursApart) {
  Random random(TestSeed());
  for (const uint64_t cluster_size : {4 * kKiB, 8 * kKiB, 64 * kKiB, 2 * kMiB}) {
    for (int round = 0; round < 20; round++) {
      const bool subclusters = cluster_size > kSubclusterSize && !random.OneIn(4);
      const uint64_t size = random.Between(1, 600) * cluster_size - random.Below(cluster_size);
      const Disk disk = MakeRandom(
          size, {cluster_size, std::max(kHeaderPageSize, cluster_size), cluster_size},
          subclusters, random);
      std::vector<ByteRange> visited;
      ASSERT_OK(VisitAllocated(*disk.file, disk.places, disk.layout, [&](ByteRange range) {
        visited.push_back(range);
        return Status();
      }));
      ASSERT_EQ(visited, Expected(disk)) << cluster_size << " in round " << round;
    }
  }
}

TEST_F(VisitAllocatedTest, StopsAtTheFirstError) {
  Random random(TestSeed());
  const Disk disk = MakeRandom(300 * kClusterSize - 5, {}, true, random);
  const uint64_t count = Expected(disk).size();
  for (uint64_t stop = 1; stop <= count; stop++) {
    uint64_t visits = 0;
    EXPECT_TRUE(FailsWith(VisitAllocated(*disk.file, disk.places, disk.layout,
                                         [&](ByteRange) -> Status {
                                           if (++visits == stop)
                                             return Fail(Error::Because(EDOM, "x", "y"));
                                           return {};
                                         }),
                          EDOM));
    EXPECT_EQ(visits, stop);
  }
}

// Of a bitmap of many gigabytes what is a hole is not read.
TEST_F(VisitAllocatedTest, AHugeDiskOfHolesIsVisitedAtOnce) {
  const Layout layout(64 * kTiB * 1024, {2 * kMiB, 2 * kMiB, 2 * kMiB});
  OperationLog log;
  ForwardingFileSystem logged(fake_, log);
  fake_.Put("/f", layout.subcluster_bitmap().padded_end());
  ASSERT_OK_AND_ASSIGN(const auto file, logged.Open("/f", OpenMode::kReadWrite));
  BitWriter clusters(*file, layout.bitmap());
  BitWriter subclusters(*file, layout.subcluster_bitmap());
  ASSERT_OK(clusters.Set({layout.clusters() / 2, 2}));
  ASSERT_OK(clusters.Finish());
  ASSERT_OK(subclusters.Set({layout.subcluster_bitmap().bits - 1, 1}));
  ASSERT_OK(subclusters.Finish());
  log.Clear();
  std::vector<ByteRange> visited;
  ASSERT_OK(VisitAllocated(*file, {layout.bitmap(), layout.subcluster_bitmap()}, layout,
                           [&](ByteRange range) {
                             visited.push_back(range);
                             return Status();
                           }));
  EXPECT_EQ(visited, (std::vector<ByteRange>{
                         {layout.Start(layout.clusters() / 2), 4 * kMiB},
                         {layout.virtual_size() - kSubclusterSize, kSubclusterSize}}));
  EXPECT_LT(log.Count(OpKind::kRead), 20u);
}

}  // namespace
}  // namespace addcow
