// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See format_rules.h. Follows the table of docs/format.md row by row.

#include "fuzz/format_rules.h"

#include <algorithm>

namespace addcow::fuzz {

namespace {

constexpr size_t kFirstNameByte = 80;
constexpr size_t kFormatBytes = 16;

uint64_t Number(std::span<const std::byte> file, size_t offset, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = bytes; i-- > 0;) value = value << 8 | static_cast<uint64_t>(file[offset + i]);
  return value;
}

std::string Text(std::span<const std::byte> file, uint64_t offset, uint64_t size) {
  std::string text;
  for (uint64_t i = 0; i < size; i++) text += static_cast<char>(file[offset + i]);
  return text;
}

bool NameIsRight(std::span<const std::byte> file, uint64_t offset, uint64_t size) {
  if (offset < kFirstNameByte || offset > kHeaderBytes - 2) return false;
  if (size < 1 || size >= kHeaderBytes - kFirstNameByte) return false;
  if (offset + size > kHeaderBytes) return false;
  return Text(file, offset, size).find('\0') == std::string::npos;
}

// The format name at `offset`; nothing where it breaks a rule.
std::optional<std::string> FormatName(std::span<const std::byte> file, size_t offset) {
  std::string name;
  bool ended = false;
  for (const char c : Text(file, offset, kFormatBytes)) {
    if (c == '\0') {
      ended = true;
    } else {
      if (ended || c < 0x21 || c > 0x7e) return std::nullopt;
      name += c;
    }
  }
  return name;
}

// The record of the backing file's identity, unless the names come so far.
void ReadIdentity(std::span<const std::byte> file, uint64_t names_end, HeaderFields& fields) {
  constexpr size_t kRecord = kHeaderBytes - 256;
  if ((Number(file, 36, 8) >> 16 & 1) == 0 || names_end > kRecord) return;
  if (Number(file, kRecord, 4) != 1) return;  // its version
  const uint64_t present = Number(file, kRecord + 4, 4);
  if ((present & 1) != 0) fields.noted_size = Number(file, kRecord + 8, 8);
  const uint64_t nanoseconds = Number(file, kRecord + 24, 4);
  if ((present & 2) == 0 || nanoseconds > 999999999) return;
  fields.noted_seconds = static_cast<int64_t>(Number(file, kRecord + 16, 8));
  fields.noted_nanoseconds = static_cast<uint32_t>(nanoseconds);
}

}  // namespace

std::optional<HeaderFields> ReadByTheRules(std::span<const std::byte> file) {
  if (file.size() < kHeaderBytes) return std::nullopt;
  if (Text(file, 0, 8) != "ADD_COW\xff") return std::nullopt;
  if (Number(file, 8, 4) != 1) return std::nullopt;   // version
  if (Number(file, 44, 4) != 1) return std::nullopt;  // header pages size

  const uint64_t features = Number(file, 28, 8);
  const bool backing_flag = (features & 1) != 0;
  if ((features & ~uint64_t{0x10007}) != 0) return std::nullopt;  // unknown bits
  if ((features & 2) == 0) return std::nullopt;                   // IMAGE_FILE

  HeaderFields fields;
  fields.all_allocated = (features & 4) != 0;
  fields.subclusters = (features & 0x10000) != 0;
  fields.no_subclusters = (Number(file, 36, 8) >> 17 & 1) != 0;
  fields.optional_features = Number(file, 36, 8) & ~(uint64_t{3} << 16);

  const uint64_t image_offset = Number(file, 20, 4);
  const uint64_t image_size = Number(file, 24, 4);
  if (!NameIsRight(file, image_offset, image_size)) return std::nullopt;
  fields.image_name = Text(file, image_offset, image_size);
  if (FormatName(file, 64) != "raw") return std::nullopt;

  const uint64_t backing_offset = Number(file, 12, 4);
  const uint64_t backing_size = Number(file, 16, 4);
  const auto backing_format = FormatName(file, 48);
  if (!backing_format) return std::nullopt;
  fields.has_backing = backing_offset != 0;
  if (fields.has_backing != (backing_size != 0)) return std::nullopt;
  if (fields.has_backing != backing_flag) return std::nullopt;
  if (fields.has_backing == backing_format->empty()) return std::nullopt;
  if (!fields.has_backing) return fields;
  if (!NameIsRight(file, backing_offset, backing_size)) return std::nullopt;
  fields.backing_name = Text(file, backing_offset, backing_size);
  fields.backing_format = *backing_format;
  for (uint64_t i = 0; i < backing_size; i++)
    if (backing_offset + i >= image_offset && backing_offset + i < image_offset + image_size)
      return std::nullopt;  // the names overlap
  ReadIdentity(file, std::max(image_offset + image_size, backing_offset + backing_size),
               fields);
  return fields;
}

}  // namespace addcow::fuzz
