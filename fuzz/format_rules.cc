// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See format_rules.h. Follows the tables of docs/format.md row by row.

#include "fuzz/format_rules.h"

#include <algorithm>

namespace addcow::fuzz {

namespace {

constexpr size_t kFormatBytes = 16;
constexpr uint64_t kIdentityBit = 1 << 16;
constexpr uint64_t kNoSubclustersBit = 1 << 17;

// Where a revision has its fields.
struct Table {
  size_t backing_name = 0;  // the offset, and behind it the size
  size_t image_name = 0;    // the same
  size_t features = 0;
  size_t optional_features = 0;
  size_t backing_format = 0;
  size_t image_format = 0;
  size_t first_name_byte = 0;
  bool format_ends_with_nul = false;
};

constexpr Table kVersion1 = {12, 20, 28, 36, 48, 64, 80, false};
constexpr Table kRevision20 = {4, 12, 24, 32, 44, 60, 76, true};

uint64_t Number(std::span<const std::byte> file, size_t offset, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = bytes; i-- > 0;) value = value << 8 | static_cast<uint64_t>(file[offset + i]);
  return value;
}

std::string Text(std::span<const std::byte> file, uint64_t offset, uint64_t size) {
  std::string text;
  text.reserve(size);
  for (uint64_t i = 0; i < size; i++) text += static_cast<char>(file[offset + i]);
  return text;
}

bool IsRevision20(std::span<const std::byte> file) {
  return file.size() >= 4 && Text(file, 0, 4) == "ACOW";
}

// The format name at `offset`; nothing where it breaks a rule.
std::optional<std::string> FormatName(std::span<const std::byte> file, size_t offset,
                                      bool ends_with_nul) {
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
  if (ends_with_nul && !ended) return std::nullopt;
  return name;
}

// A name, from its offset and size in the header, which is all of `file`.
struct Name {
  uint64_t offset;
  uint64_t size;

  Name(std::span<const std::byte> file, size_t field)
      : offset(Number(file, field, 4)), size(Number(file, field + 4, 4)) {}

  uint64_t end() const { return offset + size; }
  bool IsRight(std::span<const std::byte> file, const Table& table) const {
    if (offset < table.first_name_byte || offset > file.size() - 2) return false;
    if (size < 1 || size >= file.size() - table.first_name_byte) return false;
    if (end() > file.size()) return false;
    return Text(file, offset, size).find('\0') == std::string::npos;
  }
};

// The record of the backing file's identity, unless the names come so far.
void ReadIdentity(std::span<const std::byte> file, uint64_t names_end, HeaderFields& fields) {
  const size_t record = file.size() - 256;
  if ((fields.optional_features & kIdentityBit) == 0 || names_end > record) return;
  if (Number(file, record, 4) != 1) return;  // its version
  const uint64_t present = Number(file, record + 4, 4);
  if ((present & 1) != 0) fields.noted_size = Number(file, record + 8, 8);
  const uint64_t edge = Number(file, record + 96, 4);
  if (fields.noted_size && Number(file, record + 28, 4) == 1 && edge >= 1 && edge <= 1 << 20) {
    fields.noted_edge = static_cast<uint32_t>(edge);
    fields.noted_hash = Text(file, record + 32, 16);
  }
  const uint64_t nanoseconds = Number(file, record + 24, 4);
  if ((present & 2) == 0 || nanoseconds > 999999999) return;
  fields.noted_seconds = static_cast<int64_t>(Number(file, record + 16, 8));
  fields.noted_nanoseconds = static_cast<uint32_t>(nanoseconds);
}

// What both revisions have. False: a rule is broken.
bool ReadFiles(std::span<const std::byte> file, const Table& table, HeaderFields& fields) {
  const Name image(file, table.image_name);
  if (!image.IsRight(file, table)) return false;
  fields.image_name = Text(file, image.offset, image.size);
  if (FormatName(file, table.image_format, table.format_ends_with_nul) != "raw") return false;

  const Name backing(file, table.backing_name);
  const auto format = FormatName(file, table.backing_format, table.format_ends_with_nul);
  if (!format) return false;
  fields.has_backing = backing.offset != 0;
  if (fields.has_backing != (backing.size != 0)) return false;
  if (fields.has_backing == format->empty()) return false;
  if (!fields.has_backing) return true;
  if (!backing.IsRight(file, table)) return false;
  fields.backing_name = Text(file, backing.offset, backing.size);
  fields.backing_format = *format;
  // The names may not overlap.
  if (backing.offset < image.end() && image.offset < backing.end()) return false;
  ReadIdentity(file, std::max(image.end(), backing.end()), fields);
  return true;
}

std::optional<HeaderFields> ReadVersion1(std::span<const std::byte> file) {
  if (Number(file, 8, 4) != 1) return std::nullopt;   // version
  if (Number(file, 44, 4) != 1) return std::nullopt;  // header pages size
  const uint64_t features = Number(file, kVersion1.features, 8);
  if ((features & ~uint64_t{0x10007}) != 0) return std::nullopt;  // unknown bits
  if ((features & 2) == 0) return std::nullopt;                   // IMAGE_FILE

  const uint64_t optional = Number(file, kVersion1.optional_features, 8);
  HeaderFields fields;
  fields.all_allocated = (features & 4) != 0;
  fields.subclusters = (features & 0x10000) != 0;
  fields.no_subclusters = (optional & kNoSubclustersBit) != 0;
  fields.optional_features = optional & ~kNoSubclustersBit;
  if (!ReadFiles(file, kVersion1, fields)) return std::nullopt;
  if (fields.has_backing != ((features & 1) != 0)) return std::nullopt;
  return fields;
}

std::optional<HeaderFields> ReadRevision20(std::span<const std::byte> file) {
  const uint64_t cluster_bits = Number(file, 20, 4);
  if (cluster_bits < 12 || cluster_bits > 21) return std::nullopt;
  HeaderFields fields;
  fields.revision = 20;
  fields.cluster = uint64_t{1} << cluster_bits;
  fields.header_bytes = file.size();
  fields.bitmap_unit = fields.cluster;
  fields.must_be_rounded = true;
  if (Number(file, 40, 4) != file.size()) return std::nullopt;  // header size

  const uint64_t features = Number(file, kRevision20.features, 8);
  const uint64_t compatible = Number(file, kRevision20.optional_features, 8);
  if ((features & ~uint64_t{0x10000}) != 0) return std::nullopt;  // unknown bits
  fields.all_allocated = (compatible & 1) != 0;
  fields.subclusters = features != 0;
  fields.no_subclusters = (compatible & kNoSubclustersBit) != 0;
  fields.optional_features = compatible & ~(kNoSubclustersBit | 1);
  // There a subcluster is a cluster.
  if (fields.subclusters && fields.cluster == kSubcluster) return std::nullopt;
  if (!ReadFiles(file, kRevision20, fields)) return std::nullopt;
  return fields;
}

}  // namespace

uint64_t HeaderLengthByTheRules(std::span<const std::byte> file) {
  if (!IsRevision20(file) || file.size() < 24) return kLeastHeaderBytes;
  const uint64_t cluster_bits = Number(file, 20, 4);
  return cluster_bits > 12 && cluster_bits <= 21 ? uint64_t{1} << cluster_bits
                                                 : kLeastHeaderBytes;
}

std::optional<HeaderFields> ReadByTheRules(std::span<const std::byte> file) {
  const uint64_t length = HeaderLengthByTheRules(file);
  if (file.size() < length) return std::nullopt;
  file = file.first(length);
  if (IsRevision20(file)) return ReadRevision20(file);
  if (Text(file, 0, 8) == "ADD_COW\xff") return ReadVersion1(file);
  return std::nullopt;
}

}  // namespace addcow::fuzz
