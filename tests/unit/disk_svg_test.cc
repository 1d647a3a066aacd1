// SPDX-License-Identifier: LGPL-2.1-or-later
//
// tools/disk_svg: the size of a picture, its form, and what names may do to it. How it looks
// is tested with a browser, in tests/shell/test-pictures.sh.

#include "tools/disk_svg.h"

#include <gtest/gtest.h>

#include <bit>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/random.h"

namespace addcow {
namespace {

constexpr uint64_t kSvgSizes[] = {1,          512,       4096,      4097,
                                  65536,      kMiB,      kGiB + 1,  20 * kGiB,
                                  kTiB - 512, 64 * kTiB, 49 * kTiB, 64 * 1024 * kTiB,
                                  kMaxOffset};

// One whose parts are as `fill` says.
ImageSummary SvgSummary(uint64_t size, const std::function<void(DiskSummary&)>& fill) {
  ImageSummary summary{"/vm/disk.raw", "/vm/base.img",
                       DiskSummary(size, 65536, SvgPartSize(size))};
  fill(summary.disk);
  return summary;
}

void AddRun(DiskSummary& disk, uint64_t start, uint64_t end, DiskKind kind) {
  if (end <= start) return;
  const bool data = kind != DiskKind::kHole;
  disk.Add({.start = start,
            .length = end - start,
            .depth = kind == DiskKind::kBacking ? 1 : 0,
            .present = data,
            .zero = !data,
            .data = data});
}

// All elements are closed in their order, and no character stands for itself that must not.
void ExpectWellFormed(const std::string& svg) {
  std::vector<std::string> open;
  for (size_t at = 0; at < svg.size();) {
    if (svg[at] != '<') {
      if (svg[at] == '&') {
        const std::string entity = svg.substr(at, svg.find(';', at) - at);
        ASSERT_TRUE(entity == "&lt" || entity == "&gt" || entity == "&amp" ||
                    entity == "&quot" || entity == "&apos")
            << entity;
      }
      at++;
      continue;
    }
    const size_t end = svg.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = svg.substr(at + 1, end - at - 1);
    at = end + 1;
    const std::string name = tag.substr(0, tag.find(' '));
    if (name.starts_with('/')) {
      ASSERT_FALSE(open.empty());
      ASSERT_EQ(name.substr(1), open.back());
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(name);
    }
  }
  EXPECT_TRUE(open.empty());
}

TEST(DiskSvgPartSize, IsAPowerOfTwoOfWhichThereAreNotTooMany) {
  for (const uint64_t size : kSvgSizes) {
    const uint64_t part = SvgPartSize(size);
    EXPECT_TRUE(std::has_single_bit(part));
    EXPECT_GE(part, 4096u);
    EXPECT_LE(DivideUp(size, part), 768u);
    if (part > 4096) {
      EXPECT_GT(DivideUp(size, part / 2), 768u);
    }
  }
}

TEST(DiskSvg, IsWellFormedAndSmallForAnySize) {
  for (const uint64_t size : kSvgSizes) {
    for (const DiskKind kind : {DiskKind::kImage, DiskKind::kBacking, DiskKind::kHole}) {
      const std::string svg =
          DiskSvg("x.add-cow",
                  SvgSummary(size, [&](DiskSummary& disk) { AddRun(disk, 0, size, kind); }));
      ExpectWellFormed(svg);
      // Neighbours that are alike are one.
      EXPECT_LT(svg.size(), 10000u) << size;
    }
  }
}

// Each cell has all kinds, none like its neighbour, in numbers that take much room.
TEST(DiskSvg, IsNeverLargerThanItMayBe) {
  const std::string name(4096, '"');
  for (const uint64_t size : {768 * (kMaxOffset / 768 / kGiB) * kGiB, 48 * kTiB,
                              48 * 1024 * kTiB, 768 * kMiB, kMaxOffset, 6000 * kTiB * 1024}) {
    Random random(TestSeed());
    ImageSummary summary = SvgSummary(size, [&](DiskSummary& disk) {
      const uint64_t part = disk.part_size();
      for (uint64_t start = 0; start < size; start += part) {
        const uint64_t end = std::min(size, start + part);
        const uint64_t half = RoundDown(random.Below((end - start) / 3), 65536) + 65536;
        // A partial cluster, so few bytes that they are "<1%".
        AddRun(disk, start, start + 4096, DiskKind::kImage);
        AddRun(disk, start + 4096, start + 65536 + half, DiskKind::kBacking);
        AddRun(disk, start + 65536 + half, start + 65536 + 2 * half, DiskKind::kImage);
        AddRun(disk, start + 65536 + 2 * half, end, DiskKind::kHole);
      }
    });
    summary.image_path = summary.backing_path = name;
    const std::string svg = DiskSvg(name, summary);
    EXPECT_LE(svg.size(), kMostSvgBytes) << size;
    EXPECT_GT(svg.size(), kMostSvgBytes / 4) << "was not the worst case: " << size;
    ExpectWellFormed(svg);
  }
}

TEST(DiskSvg, EachCellSaysWhereItIsAndWhatItHas) {
  const std::string svg = DiskSvg("x.add-cow", SvgSummary(kGiB, [](DiskSummary& disk) {
                                    AddRun(disk, 0, 5 * kMiB, DiskKind::kImage);
                                    AddRun(disk, 5 * kMiB, 6 * kMiB, DiskKind::kBacking);
                                    AddRun(disk, 6 * kMiB, kGiB, DiskKind::kHole);
                                  }));
  EXPECT_NE(svg.find("<title>0x0, 4 MiB: image</title>"), std::string::npos);
  EXPECT_NE(svg.find("<title>0x400000, 2 MiB: image 50%, backing 50%</title>"),
            std::string::npos);
  EXPECT_NE(svg.find("<title>0x600000, 122 MiB: hole</title>"), std::string::npos);
  EXPECT_NE(svg.find("<title>0x38000000, 128 MiB: hole</title>"), std::string::npos);
  EXPECT_NE(svg.find("5 MiB · &lt;1%"), std::string::npos);
  EXPECT_NE(svg.find("0.994 GiB · 99%"), std::string::npos) << svg;
}

// A row says where it begins, exactly.
TEST(DiskSvg, RowsBeginAtRoundOffsets) {
  const std::string svg = DiskSvg("x", SvgSummary(9 * kGiB / 8, [](DiskSummary& disk) {
                                    AddRun(disk, 0, 9 * kGiB / 8, DiskKind::kHole);
                                  }));
  for (const char* label : {">0</text>", ">128 MiB</text>", ">896 MiB</text>", ">1 GiB</text>"})
    EXPECT_NE(svg.find(label), std::string::npos) << label;
  EXPECT_EQ(svg.find(">1.12 GiB</text>"), std::string::npos);
  const std::string more = DiskSvg("x", SvgSummary(11 * kGiB / 8, [](DiskSummary& disk) {
                                     AddRun(disk, 0, 11 * kGiB / 8, DiskKind::kHole);
                                   }));
  EXPECT_NE(more.find(">1.25 GiB</text>"), std::string::npos);
  EXPECT_NE(more.find(">1.125 GiB</text>"), std::string::npos);
}

TEST(DiskSvg, HasNoScriptAndFetchesNothing) {
  const std::string svg = DiskSvg("x", SvgSummary(kGiB, [](DiskSummary& disk) {
                                    AddRun(disk, 0, kGiB, DiskKind::kImage);
                                  }));
  for (const char* word : {"script", "href", "url(", "@import", "onload", "foreignObject"})
    EXPECT_EQ(svg.find(word), std::string::npos) << word;
  // The name of the format is the only address.
  EXPECT_EQ(svg.find("http"), svg.find("http://www.w3.org/2000/svg"));
  EXPECT_EQ(svg.rfind("http"), svg.find("http"));
}

TEST(DiskSvg, NamesCannotLeaveTheirPlace) {
  for (const std::string& name :
       {std::string("</title><script>alert(1)</script>"), std::string("a\"b'c&d<e>f"),
        std::string("new\nline\x1b[31m\x7f"), std::string("\xff\xfe\xed\xa0\x80 broken"),
        std::string("\xef\xbf\xbf\xef\xbf\xbe"), std::string("abc\xe2\x80\xaegpj.raw"),
        std::string("日本語日本語日本語日本語日本語日本語日本語日本語"), std::string(),
        std::string("/"), std::string("nbd+unix:///disk?socket=/run/a&b")}) {
    ImageSummary summary =
        SvgSummary(kMiB, [](DiskSummary& disk) { AddRun(disk, 0, kMiB, DiskKind::kImage); });
    summary.image_path = "/vm/" + name;
    summary.backing_path = name;
    const std::string svg = DiskSvg(name, summary);
    ExpectWellFormed(svg);
    EXPECT_EQ(svg.find("<script"), std::string::npos);
    for (const char c : svg) ASSERT_TRUE(!(static_cast<unsigned char>(c) < 0x20) || c == '\n');
    for (const char* bad : {"\xe2\x80\xae", "\xff", "\xef\xbf\xbf", "\xef\xbf\xbe"})
      EXPECT_EQ(svg.find(bad), std::string::npos) << name;
  }
}

TEST(DiskSvg, TextForXmlKeepsWhatMayStay) {
  EXPECT_EQ(XmlText("plain ä 日"), "plain ä 日");
  EXPECT_EQ(XmlText("<&>\"'"), "&lt;&amp;&gt;&quot;&apos;");
  EXPECT_EQ(XmlText("a\nb"), "a\\x0ab");
  EXPECT_EQ(XmlText("x\xff"), "x\xef\xbf\xbd");
  EXPECT_EQ(XmlText("\xe2\x81\xa6y"), "\xef\xbf\xbdy");
}

}  // namespace
}  // namespace addcow
