// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See disk_strip.h.

#include "tools/disk_strip.h"

#include <langinfo.h>
#include <locale.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "tools/output.h"

namespace addcow {

namespace {

constexpr uint64_t kUsualColumns = 80;
constexpr uint64_t kMostColumns = 10'000;  // nobody has so many: a mistake, and a lot of text

// "  image file |" before a strip, "| 0.977 GiB >99%" after it.
constexpr uint64_t kBeforeStrip = 14;
constexpr uint64_t kAfterStrip = 16;
constexpr uint64_t kLeastStrip = 18;

// From little to all of a part.
constexpr std::array<std::string_view, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array<std::string_view, 8> kDense = {".", ":", "-", "=", "+", "*", "%", "#"};

struct StripLine {
  DiskKind kind;
  const char* label;
  const char* colour;  // of the terminal
};
constexpr std::array<StripLine, kDiskKinds> kLines = {{
    {DiskKind::kImage, "image file", "\033[94m"},
    {DiskKind::kPartial, "partial", "\033[1m"},
    {DiskKind::kBacking, "backing", "\033[33m"},
    {DiskKind::kHole, "hole", "\033[90m"},
}};

// Only what is all of that kind is full, and only what is none of it is empty.
std::string_view CharacterFor(uint64_t bytes, uint64_t total, bool unicode) {
  const auto& levels = unicode ? kBlocks : kDense;
  if (bytes == 0) return " ";
  if (bytes == total) return levels.back();
  const long level = std::lround(8 * static_cast<double>(bytes) / static_cast<double>(total));
  return levels[static_cast<size_t>(std::clamp(level, 1L, 7L)) - 1];
}

// What the environment says, or the terminal; 0: neither does.
uint64_t ColumnsOfOutput() {
  if (const char* const text = std::getenv("COLUMNS"); text != nullptr) {
    const std::string_view view(text);
    uint64_t columns = 0;
    const auto parsed = std::from_chars(view.data(), view.data() + view.size(), columns);
    if (parsed.ec == std::errc() && parsed.ptr == view.data() + view.size()) return columns;
  }
  winsize size = {};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return 0;
  return size.ws_col;
}

bool LocaleIsUtf8() {
  const locale_t locale = ::newlocale(LC_CTYPE_MASK, "", nullptr);
  if (locale == nullptr) return false;
  const bool is_utf8 = std::string_view(::nl_langinfo_l(CODESET, locale)) == "UTF-8";
  ::freelocale(locale);
  return is_utf8;
}

bool IsSet(const char* variable) {
  const char* const text = std::getenv(variable);
  return text != nullptr && *text != '\0';
}

}  // namespace

StripStyle StyleOfOutput() {
  StripStyle style;
  const uint64_t columns = ColumnsOfOutput();
  style.columns = columns > 0 ? std::min(columns, kMostColumns) : kUsualColumns;
  style.unicode = LocaleIsUtf8();
  style.colour = ::isatty(STDOUT_FILENO) == 1 && !IsSet("NO_COLOR");
  return style;
}

uint64_t StripPartSize(uint64_t size, const StripStyle& style) {
  const uint64_t around = kBeforeStrip + kAfterStrip;
  const uint64_t strip = style.columns > around ? style.columns - around : 0;
  return DivideUp(size, std::max(strip, kLeastStrip));
}

std::string DiskStrip(const ImageSummary& summary, const StripStyle& style) {
  const DiskSummary& disk = summary.disk;
  const KindBytes total = disk.Total();
  const std::string_view edge = style.unicode ? "│" : "|";
  std::string text = fmt::format("picture: {} a column\n", HumanSize(disk.part_size()));
  for (const StripLine& line : kLines) {
    text += fmt::format("  {:<11}{}", line.label, edge);
    if (style.colour) text += line.colour;
    for (const KindBytes& part : disk.parts())
      text += CharacterFor(part[line.kind], part.total(), style.unicode);
    if (style.colour) text += "\033[0m";
    text += fmt::format("{}{:>10}{:>5}\n", edge, HumanSize(total[line.kind]),
                        PercentOf(total[line.kind], disk.size()));
  }
  // Under the strip, from where it begins to where it ends, or further where it is short.
  const std::string end = " " + HumanSize(disk.size());
  text += fmt::format("{:{}}0{:>{}}\n", "", kBeforeStrip, end,
                      std::max(disk.parts().size(), end.size() + 1) - 1);
  return text;
}

}  // namespace addcow
