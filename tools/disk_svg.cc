// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See disk_svg.h. What is drawn is a path for each kind and row, in which neighbours that
// look alike are one; over it lie cells that cannot be seen, for the tooltips.
//
// The colours are told from each other by their lightness as well, so that it takes no
// sight of colours; what they are in light and dark, tests/shell/test-pictures.sh reads
// from here and measures.

#include "tools/disk_svg.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "common/base/printable.h"
#include "common/source/nbd_uri.h"
#include "tools/output.h"

namespace addcow {

namespace {

// Pixels, at 100 %.
constexpr uint64_t kMargin = 28;
constexpr uint64_t kLabelWidth = 84;
constexpr uint64_t kRowWidth = 768;
constexpr uint64_t kLeft = kMargin + kLabelWidth;
constexpr uint64_t kWidth = kLeft + kRowWidth + kMargin;
constexpr uint64_t kRowsTop = 184;
constexpr uint64_t kRowHeight = 28;
constexpr uint64_t kRowStep = 34;
constexpr uint64_t kFootHeight = 58;
constexpr uint64_t kLeastShown = 3;

constexpr uint64_t kColumns = 64;
constexpr uint64_t kMostCells = 12 * kColumns;
constexpr uint64_t kLeastPart = 4 * kKiB;

// From the bottom of a cell to its top; the last is what is behind the others.
struct KindLook {
  DiskKind kind;
  const char* css;      // its class
  const char* heading;  // in the legend
  const char* word;     // in tooltips
};
constexpr std::array<KindLook, kDiskKinds> kLooks = {{
    {DiskKind::kImage, "i", "Image file", "image"},
    {DiskKind::kPartial, "p", "Partial clusters", "partial"},
    {DiskKind::kBacking, "b", "Backing file", "backing"},
    {DiskKind::kHole, "h", "Hole", "hole"},
}};

constexpr const char* kStyle =
    "<style>\n"
    "text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1c2530}\n"
    ".n{font-size:20px;font-weight:600}\n"
    ".s{font-weight:600}\n"
    ".m{fill:#55606e}\n"
    ".e{text-anchor:end;font-variant-numeric:tabular-nums}\n"
    ".g{fill:#fff}\n"
    ".i{fill:#1769c2}\n"
    ".p{fill:#0a2a4d}\n"
    ".b{fill:#d07c00}\n"
    ".h{fill:#e4e8ed}\n"
    ".t{fill:none;pointer-events:all}\n"
    ".t path:hover{stroke:#1c2530;stroke-width:2}\n"
    "@media(prefers-color-scheme:dark){\n"
    "text{fill:#e8ecf1}\n"
    ".m{fill:#a3adb9}\n"
    ".g{fill:#14181d}\n"
    ".i{fill:#3b8ae6}\n"
    ".p{fill:#e0e7ff}\n"
    ".b{fill:#f7b045}\n"
    ".h{fill:#353c45}\n"
    ".t path:hover{stroke:#e8ecf1}\n"
    "}\n"
    "</style>\n";

// At most `columns` wide, where what is not ASCII may be twice as wide as what is.
// The end is kept, which tells more files apart than the beginning.
std::string Shortened(const std::string& text, size_t columns) {
  const auto begins = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  size_t used = 0;
  size_t start = text.size();
  for (size_t at = text.size(); at > 0;) {
    at--;
    if (!begins(text[at])) continue;
    used += static_cast<unsigned char>(text[at]) < 0x80 ? 1u : 2u;
    if (used > columns) return "…" + text.substr(start);
    start = at;
  }
  return text;
}

std::string ShortName(const std::string& name, size_t columns) {
  return XmlText(Shortened(AsUtf8(Printable(name)), columns));
}

// The last part of a path; all of a URI.
std::string BaseName(const std::string& path) {
  if (IsNbdUri(path)) return path;
  const std::string name = path.substr(path.find_last_of('/') + 1);
  return name.empty() ? path : name;
}

// A multiple of a row, without rounding: 1.125 GiB.
std::string ExactSize(uint64_t bytes) {
  static constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes == 0) return "0";
  const auto unit = static_cast<unsigned>(std::bit_width(bytes) - 1) / 10;
  return fmt::format("{} {}", std::ldexp(static_cast<double>(bytes), -10 * int(unit)),
                     kUnits[unit]);
}

uint64_t Rounded(double pixels) { return static_cast<uint64_t>(std::lround(pixels)); }

// Of the kinds, in pixels; together a row's height.
using Heights = std::array<uint64_t, kDiskKinds>;
Heights HeightsOf(const KindBytes& part) {
  Heights heights = {};
  const auto total = static_cast<double>(part.total());
  uint64_t sum = 0;
  for (size_t i = 0; i < kDiskKinds; i++) {
    const uint64_t bytes = part[kLooks[i].kind];
    const double share = static_cast<double>(bytes) / total;
    if (bytes > 0) heights[i] = std::max<uint64_t>(kLeastShown, Rounded(share * kRowHeight));
    sum += heights[i];
  }
  uint64_t& largest = *std::ranges::max_element(heights);
  largest = largest + kRowHeight - sum;
  return heights;
}

class SvgWriter {
 public:
  SvgWriter(const std::string& name, const ImageSummary& summary)
      : name_(name),
        summary_(summary),
        disk_(summary.disk),
        columns_(std::min<uint64_t>(kColumns, disk_.parts().size())),
        rows_(DivideUp(disk_.parts().size(), columns_)) {}

  std::string Write() {
    const uint64_t height = kRowsTop + (rows_ - 1) * kRowStep + kRowHeight + kFootHeight;
    const std::string title = ShortName(name_, 200);
    Add(R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}")",
        kWidth, height);
    Add(R"( role="img" aria-labelledby="title"><title id="title">{}: )", title);
    AddTotals();
    svg_ += "</title>\n";
    svg_ += kStyle;
    Add("<rect class=\"g\" width=\"{}\" height=\"{}\"/>\n", kWidth, height);
    AddHead();
    AddLegend();
    for (uint64_t row = 0; row < rows_; row++) AddRow(row);
    AddFoot(height);
    svg_ += "</svg>\n";
    return std::move(svg_);
  }

 private:
  template <typename... Args>
  void Add(fmt::format_string<Args...> text, Args&&... args) {
    fmt::format_to(std::back_inserter(svg_), text, std::forward<Args>(args)...);
  }

  // For who cannot see it.
  void AddTotals() {
    const KindBytes total = disk_.Total();
    const char* separator = "";
    for (const KindLook& look : kLooks) {
      Add("{}{} {}", separator, look.word, HumanSize(total[look.kind]));
      separator = ", ";
    }
  }

  void AddHead() {
    Add("<text class=\"n\" x=\"{}\" y=\"44\">{}</text>\n", kMargin, ShortName(name_, 60));
    Add("<text class=\"m\" x=\"{}\" y=\"67\">{} · clusters of {}</text>\n", kMargin,
        HumanSize(disk_.size()), HumanSize(disk_.cluster_size()));
  }

  // In the order of the kinds in `kLooks`.
  std::array<std::string, kDiskKinds> Explanations() const {
    const std::string& backing = summary_.backing_path;
    return {ShortName(BaseName(summary_.image_path), kLegendColumns),
            "in image and backing file",
            backing.empty() ? "there is none" : ShortName(BaseName(backing), kLegendColumns),
            "no storage, reads as zeroes"};
  }

  void AddLegend() {
    const KindBytes total = disk_.Total();
    const auto explanations = Explanations();
    for (size_t i = 0; i < kDiskKinds; i++) {
      const KindLook& look = kLooks[i];
      const uint64_t x = kMargin + i * (kWidth - 2 * kMargin) / kDiskKinds;
      const uint64_t bytes = total[look.kind];
      Add("<rect class=\"{}\" x=\"{}\" y=\"92\" width=\"14\" height=\"56\" rx=\"3\"/>\n",
          look.css, x);
      Add("<text class=\"s\" x=\"{}\" y=\"104\">{}</text>\n", x + 24, look.heading);
      Add("<text x=\"{}\" y=\"125\">{} · {}</text>\n", x + 24, HumanSize(bytes),
          XmlText(PercentOf(bytes, disk_.size())));
      Add("<text class=\"m\" x=\"{}\" y=\"146\">{}</text>\n", x + 24, explanations[i]);
    }
  }

  // The left edge of a cell in its row, of which the last ends where the row does.
  uint64_t X(uint64_t column) const { return column * kRowWidth / columns_; }
  // One that the disk does not fill is as much narrower.
  uint64_t CellWidth(uint64_t part, uint64_t column) const {
    const uint64_t width = X(column + 1) - X(column);
    const double share = static_cast<double>(disk_.parts()[part].total()) /
                         static_cast<double>(disk_.part_size());
    if (rows_ == 1 && columns_ == 1) return width;
    return std::max<uint64_t>(1, Rounded(share * static_cast<double>(width)));
  }

  void AddRow(uint64_t row) {
    const uint64_t first = row * columns_;
    const uint64_t end = std::min<uint64_t>(first + columns_, disk_.parts().size());
    const uint64_t y = kRowsTop + row * kRowStep;
    Add("<text class=\"m e\" x=\"{}\" y=\"{}\">{}</text>\n", kLeft - 12, y + 19,
        ExactSize(first * disk_.part_size()));
    Add("<g transform=\"translate({} {})\">\n", kLeft, y);
    const uint64_t last = end - 1;
    const uint64_t width = X(last - first) + CellWidth(last, last - first);
    Add("<path class=\"h\" d=\"M0 0h{}v{}H0z\"/>\n", width, kRowHeight);
    for (size_t i = 0; i + 1 < kDiskKinds; i++) AddKind(i, first, end);
    svg_ += "<g class=\"t\">\n";
    for (uint64_t part = first; part < end;) part = AddTooltip(part, first, end);
    svg_ += "</g></g>\n";
  }

  // Kind `i` of kLooks in the cells of a row.
  void AddKind(size_t i, uint64_t first, uint64_t end) {
    struct Box {
      uint64_t x = 0;
      uint64_t right = 0;
      uint64_t y = 0;
      uint64_t height = 0;
    };
    std::string path;
    Box box;
    const auto flush = [&] {
      if (box.height > 0)
        fmt::format_to(std::back_inserter(path), "M{} {}h{}v{}h-{}z", box.x, box.y,
                       box.right - box.x, box.height, box.right - box.x);
    };
    for (uint64_t part = first; part < end; part++) {
      const Heights heights = HeightsOf(disk_.parts()[part]);
      uint64_t y = kRowHeight;
      for (size_t below = 0; below <= i; below++) y -= heights[below];
      const uint64_t x = X(part - first);
      const uint64_t right = x + CellWidth(part, part - first);
      if (box.height == heights[i] && box.y == y && box.right == x) {
        box.right = right;
        continue;
      }
      flush();
      box = {x, right, y, heights[i]};
    }
    flush();
    if (!path.empty()) Add("<path class=\"{}\" d=\"{}\"/>\n", kLooks[i].css, path);
  }

  // One for `part` and those after it that are all of the same kind; says which is next.
  uint64_t AddTooltip(uint64_t part, uint64_t first, uint64_t end) {
    const auto& parts = disk_.parts();
    const auto only = [&](uint64_t at) -> const KindLook* {
      for (const KindLook& look : kLooks)
        if (parts[at][look.kind] == parts[at].total()) return &look;
      return nullptr;
    };
    const KindLook* const alone = only(part);
    uint64_t next = part + 1;
    while (alone != nullptr && next < end && only(next) == alone) next++;
    const uint64_t x = X(part - first);
    const uint64_t width = X(next - 1 - first) + CellWidth(next - 1, next - 1 - first) - x;
    const uint64_t start = part * disk_.part_size();
    const uint64_t length = std::min(disk_.size(), next * disk_.part_size()) - start;
    Add("<path d=\"M{} 0h{}v{}h-{}z\"><title>{:#x}, {}: ", x, width, kRowHeight, width, start,
        HumanSize(length));
    const char* separator = "";
    for (const KindLook& look : kLooks) {
      const uint64_t bytes = parts[part][look.kind];
      if (bytes == 0) continue;
      if (alone != nullptr)
        svg_ += look.word;
      else
        Add("{}{} {}", separator, look.word, XmlText(PercentOf(bytes, parts[part].total())));
      separator = ", ";
    }
    svg_ += "</title></path>\n";
    return next;
  }

  void AddFoot(uint64_t height) {
    const bool one = disk_.parts().size() == 1;
    Add("<text class=\"m\" x=\"{}\" y=\"{}\">{} is {}; what it holds is stacked by its share, "
        "and never too small to be seen.</text>\n",
        kLeft, height - 24, one ? "The cell" : "Each cell",
        HumanSize(one ? disk_.size() : disk_.part_size()));
  }

  // As many as fit beside each other.
  static constexpr size_t kLegendColumns = 24;

  const std::string& name_;
  const ImageSummary& summary_;
  const DiskSummary& disk_;
  const uint64_t columns_;
  const uint64_t rows_;
  std::string svg_;
};

}  // namespace

uint64_t SvgPartSize(uint64_t size) {
  return std::max(kLeastPart, std::bit_ceil(DivideUp(size, kMostCells)));
}

std::string DiskSvg(const std::string& name, const ImageSummary& summary) {
  return SvgWriter(name, summary).Write();
}

std::string XmlText(std::string_view text) {
  static constexpr std::string_view kReplacement = "\xef\xbf\xbd";
  const std::string utf8 = AsUtf8(Printable(text));
  std::string xml;
  for (size_t at = 0; at < utf8.size(); at++) {
    const std::string_view three = std::string_view(utf8).substr(at, 3);
    // U+202A to U+202E and U+2066 to U+2069 turn the writing around; U+FFFE and U+FFFF are
    // no characters in XML.
    const bool turns = (three >= "\xe2\x80\xaa" && three <= "\xe2\x80\xae") ||
                       (three >= "\xe2\x81\xa6" && three <= "\xe2\x81\xa9");
    if (turns || three == "\xef\xbf\xbe" || three == "\xef\xbf\xbf") {
      xml += kReplacement;
      at += 2;
    } else if (utf8[at] == '&') {
      xml += "&amp;";
    } else if (utf8[at] == '<') {
      xml += "&lt;";
    } else if (utf8[at] == '>') {
      xml += "&gt;";
    } else if (utf8[at] == '"') {
      xml += "&quot;";
    } else if (utf8[at] == '\'') {
      xml += "&apos;";
    } else {
      xml += utf8[at];
    }
  }
  return xml;
}

}  // namespace addcow
