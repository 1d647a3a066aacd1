// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Images that stand on other images: what of them is data and what a hole, which layer
// has it, and what it costs to find out.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "common/ops/flatten.h"
#include "common/ops/map.h"
#include "tests/support/chain_fixture.h"
#include "tests/support/forwarding_file.h"

namespace addcow {
namespace {

// Counts what is asked of the files.
class Counter final : public Interceptor {
 public:
  Verdict Before(const Operation&) override {
    count_++;
    return {};
  }
  uint64_t Taken() { return std::exchange(count_, 0); }

 private:
  uint64_t count_ = 0;  // one thread only
};

class ChainExtents : public ChainFixture {
 protected:
  // "0-65536 data" for each extent; it says what is wrong with them.
  static std::vector<std::string> Lines(Image& image, uint64_t offset, uint64_t length) {
    std::vector<std::string> lines;
    uint64_t next = offset;
    EXPECT_OK(image.Map(offset, length, [&](const Extent& extent) {
      EXPECT_EQ(extent.offset, next);
      EXPECT_GT(extent.length, 0u);
      next = extent.offset + extent.length;
      lines.push_back(fmt::format("{}-{}{}", extent.offset, next, extent.data ? " data" : ""));
      return true;
    }));
    EXPECT_EQ(next, offset + length);
    return lines;
  }
  std::vector<std::string> Lines(const std::string& name) {
    auto image = Open(name);
    EXPECT_OK(image);
    return image ? Lines(**image, 0, (*image)->virtual_size()) : std::vector<std::string>();
  }

  // All that is said of the disk is true of the bytes: holes are zeroes, each entry of
  // the map names a file that has them, in the layer that it says.
  void ExpectTrue(const std::string& name, std::span<const std::byte> disk,
                  const std::vector<std::string>& files) {
    ASSERT_OK_AND_ASSIGN(const auto image, Open(name));
    EXPECT_EQ(Difference(ReadAll(*image), disk), "");
    const auto is_zero = [&](uint64_t offset, uint64_t length) {
      return std::ranges::all_of(disk.subspan(offset, length),
                                 [](std::byte byte) { return byte == std::byte{0}; });
    };
    for (int i = 0; i < 5; i++) {
      const uint64_t offset = i == 0 ? 0 : random_.Below(disk.size());
      const uint64_t length = i == 0 ? disk.size() : random_.Between(1, disk.size() - offset);
      uint64_t next = offset;
      ASSERT_OK(image->Map(offset, length, [&](const Extent& extent) {
        EXPECT_EQ(extent.offset, next);
        next += extent.length;
        EXPECT_TRUE(extent.data || is_zero(extent.offset, extent.length)) << extent.offset;
        return !HasFailure();
      }));
      EXPECT_EQ(next, offset + length);
      std::vector<std::byte> part(length);
      ASSERT_OK(image->Read(part, offset));
      EXPECT_EQ(Difference(part, disk.subspan(offset, length), offset), "");
      ASSERT_OK(image->Prefetch(offset, length));
    }
    uint64_t next = 0;
    std::string last;
    ASSERT_OK(MapImage(fake_, Path(name), {}, [&](const MapEntry& entry) {
      EXPECT_EQ(entry.start, next);
      next += entry.length;
      EXPECT_NE(entry.zero, entry.data);
      EXPECT_TRUE(entry.data || is_zero(entry.start, entry.length));
      const std::string kind = fmt::format("{} {} {}", entry.depth, entry.present, entry.data);
      EXPECT_NE(kind, last) << "neighbours that are alike at " << entry.start;
      last = kind;
      EXPECT_EQ(entry.file != nullptr, entry.present);
      if (entry.file == nullptr) return !HasFailure();
      EXPECT_EQ(*entry.file, files.at(static_cast<size_t>(entry.depth)));
      EXPECT_EQ(Difference(fake_.Find(*entry.file)->Bytes(entry.start, entry.length),
                           disk.subspan(entry.start, entry.length), entry.start),
                "");
      return !HasFailure();
    }));
    EXPECT_EQ(next, disk.size());
  }
};

// Each layer has every second cluster, or none, and the base all: to find out that all is
// data takes a look at each piece of each layer, and not the product of them.
TEST_F(ChainExtents, TheWorkOfLayersAddsUp) {
  constexpr uint64_t kClusters = 16;
  constexpr int kLayers = 10;
  Counter counter;
  ForwardingFileSystem counted(fake_, counter);
  fake_.Put(kBackingPath, random_.Bytes(kClusters * kC));
  for (int i = 0; i < kLayers; i++) {
    const std::string below = i == 0 ? "base.img" : fmt::format("{}.add-cow", i - 1);
    ASSERT_OK(Create(std::to_string(i), below, i == 0 ? "raw" : "add-cow"));
    for (uint64_t cluster = i % 4 == 0 ? 0 : 1; i % 2 == 0 && cluster < kClusters; cluster += 2)
      Write(std::to_string(i), cluster * kC, Repeat(static_cast<uint8_t>(i), kC));
  }
  ASSERT_OK_AND_ASSIGN(const auto image,
                       Image::Open(counted,
                                   {.add_cow_path = Path(std::to_string(kLayers - 1)),
                                    .mode = OpenMode::kReadOnly},
                                   {}));
  counter.Taken();
  EXPECT_EQ(Lines(*image, 0, kClusters * kC),
            std::vector<std::string>{fmt::format("0-{} data", kClusters * kC)});
  // Two for each cluster, from whatever layer.
  EXPECT_LE(counter.Taken(), 2 * kClusters * kLayers);
  // A small request does not look at all of the disk.
  EXPECT_EQ(Lines(*image, 5 * kC, 512).size(), 1u);
  EXPECT_LE(counter.Taken(), 4u);
  uint64_t entries = 0;
  ASSERT_OK(MapImage(counted, Path(std::to_string(kLayers - 1)), {}, [&](const MapEntry&) {
    entries++;
    return true;
  }));
  EXPECT_EQ(entries, kClusters);
  EXPECT_LE(counter.Taken(), 60 * kLayers + 4 * kClusters * kLayers);
}

TEST_F(ChainExtents, TheEndOfALayerThatIsShorterIsRoundedToASector) {
  fake_.Put(kBackingPath, random_.Bytes(kC + 100));
  ASSERT_OK(Create("a", "base.img", "raw", kC, 3 * kC));
  ASSERT_OK(Create("b", "a.add-cow", "add-cow", kC, 2 * kC + 1000));
  ASSERT_OK(Create("c", "b.add-cow", "add-cow", kC, 5 * kC));
  for (const char* const name : {"a", "b", "c"})
    EXPECT_EQ(Lines(name)[0], fmt::format("0-{} data", kC + 512));
}

// The base ends before a, that before b, and that before c.
TEST_F(ChainExtents, WhatNobodyHasIsAtTheDepthWhereItEnds) {
  ASSERT_OK(Create("a", "base.img", "raw", kC, 6 * kC));
  ASSERT_OK(Create("b", "a.add-cow", "add-cow", kC, 7 * kC + 100));
  ASSERT_OK(Create("c", "b.add-cow", "add-cow", kC, 9 * kC));
  std::vector<std::string> lines;
  ASSERT_OK(MapImage(fake_, Path("c"), {}, [&](const MapEntry& entry) {
    lines.push_back(fmt::format("{}+{} depth {} {}", entry.start, entry.length, entry.depth,
                                entry.present));
    return true;
  }));
  const uint64_t end = RoundUp(kSize, kSectorSize);
  EXPECT_EQ(lines, (std::vector<std::string>{
                       fmt::format("0+{} depth 3 true", end),
                       fmt::format("{}+{} depth 2 false", end, 6 * kC - end),
                       fmt::format("{}+{} depth 1 false", 6 * kC, kC + 100),
                       fmt::format("{}+{} depth 0 false", 7 * kC + 100, 2 * kC - 100)}));
}

class RandomChains : public ChainExtents {
 protected:
  // A raw file, or an image that stands alone.
  void MakeBottom() {
    for (const std::string& file : fake_.List()) ASSERT_OK(fake_.Remove(file));
    disk_.assign(random_.Between(1, 5 * kC), std::byte{0});
    if (random_.OneIn(3)) {
      ASSERT_OK(CreateImage(fake_, {.add_cow_path = Path("bottom"),
                                    .image_name = "bottom.raw",
                                    .backing = {},
                                    .size = disk_.size()}));
      files_ = {"/vm/bottom.raw"};
      below_ = {"bottom.add-cow", "add-cow"};
      return;
    }
    const auto base = fake_.Put(kBackingPath, disk_.size());
    const uint64_t data = random_.Below(disk_.size());
    const auto part = std::span(disk_).subspan(data, random_.Below(disk_.size() - data));
    random_.Fill(part);
    ASSERT_TRUE(base->Write(part, data));
    FakeInode::Abilities abilities;
    abilities.seek = !random_.OneIn(3);
    base->SetAbilities(abilities);
    files_ = {kBackingPath};
    below_ = {"base.img", "raw"};
  }

  // Of any size, of either revision.
  void AddLayer(const std::string& name) {
    constexpr uint64_t kSizes[] = {4 * kKiB, 16 * kKiB, kC, 2 * kMiB};
    std::optional<uint64_t> size;
    if (random_.OneIn(2)) size = random_.Between(1, 6 * kC);
    ASSERT_OK(Create(name, below_.name, below_.format, kSizes[random_.Below(4)], size));
    if (size) disk_.resize(*size);
    files_.insert(files_.begin(), "/vm/" + name + ".raw");
    below_ = {name + ".add-cow", "add-cow"};
  }

  void ChangeSome(const std::string& name) {
    ASSERT_OK_AND_ASSIGN(
        const auto image,
        Image::Open(fake_, {.add_cow_path = Path(name), .subclusters = !random_.OneIn(3)}, {}));
    for (uint64_t i = random_.Below(12); i > 0; i--) {
      const uint64_t offset = random_.Below(disk_.size());
      const uint64_t most =
          std::min<uint64_t>(disk_.size() - offset, random_.OneIn(4) ? kC : 9000);
      const auto part = std::span(disk_).subspan(offset, random_.Between(1, most));
      if (random_.OneIn(3)) {
        ASSERT_OK(image->Zero(offset, part.size(), {.may_punch = random_.OneIn(2)}));
        std::ranges::fill(part, std::byte{0});
      } else {
        random_.Fill(part);
        ASSERT_OK(image->Write(part, offset));
      }
    }
    ASSERT_OK(image->Close());
  }

  std::vector<std::byte> disk_;     // what the topmost image reads
  std::vector<std::string> files_;  // that a depth in its map means
  NamedFile below_;                 // what the next layer stands on
};

TEST_F(RandomChains, WhatIsSaidOfThemIsTrue) {
  for (int round = 0; round < 12; round++) {
    MakeBottom();
    for (uint64_t layer = random_.Between(1, 6); layer > 0; layer--) {
      const std::string name = fmt::format("{}-{}", round, layer);
      AddLayer(name);
      ChangeSome(name);
      if (random_.OneIn(6)) {
        ASSERT_OK(FlattenImage(
            fake_, Path(name), [](LogLevel, const std::string&) {}, [](uint64_t, uint64_t) {}));
        files_.resize(1);
      }
      ExpectTrue(name, disk_, files_);
      ASSERT_FALSE(HasFailure()) << "round " << round << ", layer " << layer;
    }
  }
}

}  // namespace
}  // namespace addcow
