// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Images that stand on other images: what of them is data and what a hole, which layer
// has it, and what it costs to find out.

#include <fmt/format.h>
#include <gtest/gtest.h>

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
}

TEST_F(ChainExtents, TheEndOfALayerThatIsShorterIsRoundedToASector) {
  fake_.Put(kBackingPath, random_.Bytes(kC + 100));
  ASSERT_OK(Create("a", "base.img", "raw", kC, 3 * kC));
  ASSERT_OK(Create("b", "a.add-cow", "add-cow", kC, 2 * kC + 1000));
  ASSERT_OK(Create("c", "b.add-cow", "add-cow", kC, 5 * kC));
  for (const char* const name : {"a", "b", "c"})
    EXPECT_EQ(Lines(name)[0], fmt::format("0-{} data", kC + 512));
}

}  // namespace
}  // namespace addcow
