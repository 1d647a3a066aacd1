// SPDX-License-Identifier: LGPL-2.1-or-later
//
// tools/disk_strip: the characters of a picture, its width, and what the environment says.

#include "tools/disk_strip.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

namespace addcow {
namespace {

// Image in the first half, then as much backing as hole.
ImageSummary SummaryOfHalves(uint64_t size, const StripStyle& style) {
  ImageSummary summary{"/vm/disk.raw", "/vm/base.img",
                       DiskSummary(size, 65536, StripPartSize(size, style))};
  const uint64_t half = RoundDown(size / 2, 65536);
  const uint64_t rest = RoundDown((size - half) / 2, 65536);
  const auto add = [&](uint64_t start, uint64_t end, int depth, bool data) {
    if (end > start)
      summary.disk.Add({.start = start,
                        .length = end - start,
                        .depth = depth,
                        .present = data,
                        .zero = !data,
                        .data = data});
  };
  add(0, half, 0, true);
  add(half, half + rest, 1, true);
  add(half + rest, size, 0, false);
  return summary;
}

std::vector<std::string> StripLines(const ImageSummary& summary, const StripStyle& style) {
  std::istringstream text(DiskStrip(summary, style));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

// Of UTF-8, each character of which is one column here; escape sequences have none.
size_t ColumnsOf(const std::string& line) {
  size_t columns = 0;
  for (size_t at = 0; at < line.size(); at++) {
    if (line[at] == '\033') at = line.find('m', at) + 1;
    if (at < line.size() && (static_cast<unsigned char>(line[at]) & 0xc0) != 0x80) columns++;
  }
  return columns;
}

TEST(DiskStrip, ShowsAKindInALine) {
  const StripStyle style{.columns = 50};
  EXPECT_EQ(DiskStrip(SummaryOfHalves(20 * kMiB, style), style),
            "picture: 1 MiB a column\n"
            "  image file |##########          |    10 MiB  50%\n"
            "  partial    |                    |       0 B   0%\n"
            "  backing    |          #####     |     5 MiB  25%\n"
            "  hole       |               #####|     5 MiB  25%\n"
            "              0             20 MiB\n");
}

TEST(DiskStrip, OfAFewBytesHasBothEndsUnderIt) {
  for (const uint64_t columns : {uint64_t{1}, uint64_t{20}, uint64_t{80}}) {
    const StripStyle style{.columns = columns};
    EXPECT_EQ(DiskStrip(SummaryOfHalves(1, style), style),
              "picture: 1 B a column\n"
              "  image file | |       0 B   0%\n"
              "  partial    | |       0 B   0%\n"
              "  backing    | |       0 B   0%\n"
              "  hole       |#|       1 B 100%\n"
              "              0 1 B\n");
    EXPECT_EQ(StripLines(SummaryOfHalves(7, style), style).back(), "              0   7 B");
  }
}

TEST(DiskStrip, OnlyAllIsFullAndOnlyNoneIsEmpty) {
  StripStyle style{.columns = 48};
  for (const bool unicode : {false, true}) {
    style.unicode = unicode;
    ImageSummary summary{"", "", DiskSummary(18 * kGiB, 65536, kGiB)};
    const auto add = [&](uint64_t start, uint64_t end, bool data) {
      summary.disk.Add({.start = start,
                        .length = end - start,
                        .depth = 0,
                        .present = true,
                        .zero = !data,
                        .data = data});
    };
    add(0, kGiB - 65536, true);
    add(kGiB - 65536, 2 * kGiB - 65536, false);
    add(2 * kGiB - 65536, 3 * kGiB, true);
    add(3 * kGiB, 4 * kGiB - kGiB / 2, false);
    add(4 * kGiB - kGiB / 2, 4 * kGiB, true);
    add(4 * kGiB, 18 * kGiB, false);
    const std::string want = unicode ? "│▇▁█▄ " : "|%.#= ";
    const auto lines = StripLines(summary, style);
    EXPECT_NE(lines[1].find(want), std::string::npos) << lines[1];
  }
}

TEST(DiskStrip, FitsTheTerminalWhateverTheSize) {
  for (const uint64_t columns : {1u, 47u, 48u, 80u, 81u, 200u, 5000u, 1000000u}) {
    for (const uint64_t size : {uint64_t{1}, uint64_t{512}, uint64_t{4097}, kMiB, 20 * kGiB,
                                64 * kTiB, 64 * 1024 * kTiB, kMaxOffset}) {
      for (const bool fancy : {false, true}) {
        const StripStyle style{.columns = columns, .unicode = fancy, .colour = fancy};
        const auto lines = StripLines(SummaryOfHalves(size, style), style);
        ASSERT_EQ(lines.size(), 6u);
        for (const std::string& line : lines)
          EXPECT_LE(ColumnsOf(line), std::max<uint64_t>(columns, 48)) << line;
        // Nearly all of it, where it is not cut into bytes.
        if (size > kMiB && columns < 1000) {
          EXPECT_GE(ColumnsOf(lines[1]) + 1, columns) << size;
        }
      }
    }
  }
}

TEST(DiskStrip, ColoursEndWhereTheStripDoes) {
  const StripStyle style{.columns = 60, .colour = true};
  for (const std::string& line : StripLines(SummaryOfHalves(kGiB, style), style)) {
    const size_t begin = line.find('\033');
    if (begin == std::string::npos) continue;
    EXPECT_EQ(line[begin - 1], '|');
    EXPECT_NE(line.find("\033[0m|"), std::string::npos);
  }
  const StripStyle plain{.columns = 60};
  EXPECT_EQ(DiskStrip(SummaryOfHalves(kGiB, plain), plain).find('\033'), std::string::npos);
}

// The tests' standard output may be a terminal or not.
TEST(StripStyleOfOutput, TakesColumnsAndTheLocaleFromTheEnvironment) {
  const auto set = [](const char* name, const char* value) {
    if (value != nullptr)
      ::setenv(name, value, 1);
    else
      ::unsetenv(name);
  };
  const char* const old_columns = std::getenv("COLUMNS");
  const std::string columns = old_columns != nullptr ? old_columns : "";
  const char* const old_locale = std::getenv("LC_ALL");
  const std::string locale = old_locale != nullptr ? old_locale : "";
  set("COLUMNS", "123");
  set("LC_ALL", "C");
  EXPECT_EQ(StyleOfOutput().columns, 123u);
  EXPECT_FALSE(StyleOfOutput().unicode);
  set("LC_ALL", "C.UTF-8");
  EXPECT_TRUE(StyleOfOutput().unicode);
  set("LC_ALL", "nowhere.UTF-8");
  EXPECT_FALSE(StyleOfOutput().unicode);
  for (const char* odd : {"", "0", "-3", "12x", "99999999999999999999999",
                          "18446744073709551615", "1000000000", "80 ", " 80", "+80", "1e3"}) {
    set("COLUMNS", odd);
    EXPECT_GT(StyleOfOutput().columns, 0u) << odd;
    EXPECT_LE(StyleOfOutput().columns, 10000u) << odd;
  }
  set("NO_COLOR", "1");
  EXPECT_FALSE(StyleOfOutput().colour);
  set("NO_COLOR", nullptr);
  set("COLUMNS", old_columns != nullptr ? columns.c_str() : nullptr);
  set("LC_ALL", old_locale != nullptr ? locale.c_str() : nullptr);
}

}  // namespace
}  // namespace addcow
