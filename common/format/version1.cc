// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See version1.h.

#include "common/format/version1.h"

#include <cstring>

#include "common/format/header_rules.h"

namespace addcow::version1 {

namespace {

constexpr uint32_t kVersion = 1;

constexpr uint64_t kBackingFile = 1u << 0;
constexpr uint64_t kImageFile = 1u << 1;
constexpr uint64_t kAllAllocated = 1u << 2;
constexpr uint64_t kKnownFeatures =
    kBackingFile | kImageFile | kAllAllocated | kFeatureSubclusters;

HeaderFields FieldsOf(const RawHeader& raw) {
  return {.backing_name = {raw.backing_name_offset, raw.backing_name_size},
          .image_name = {raw.image_name_offset, raw.image_name_size},
          .backing_format = raw.backing_format,
          .image_format = raw.image_format,
          .features = raw.features,
          .optional_features = raw.optional_features};
}

uint64_t FeaturesOf(const Header& header) {
  return kImageFile | (header.backing ? kBackingFile : 0u) |
         (header.all_allocated ? kAllAllocated : 0u) |
         (header.subclusters ? kFeatureSubclusters : 0u);
}

}  // namespace

Result<Header> Parse(std::span<const std::byte> bytes, const std::string& file) {
  const HeaderRules rules(bytes, file, sizeof(RawHeader), sizeof(FormatField));
  if (bytes.size() < kHeaderSize)
    return rules.Corrupt("truncated: {} bytes, the header alone must be {}", bytes.size(),
                         kHeaderSize);
  RawHeader raw;
  std::memcpy(&raw, bytes.data(), sizeof raw);
  const HeaderFields fields = FieldsOf(raw);

  // What tells versions apart first.
  if (raw.version != kVersion)
    return rules.Unsupported("version is {}, must be {}", uint32_t{raw.version}, kVersion);
  ADDCOW_TRY(rules.Features(fields.features, kKnownFeatures));
  if ((fields.features & kImageFile) == 0)
    return rules.Corrupt("features is {:#x}, must have bit 1 (IMAGE_FILE) set",
                         fields.features);
  if (raw.header_pages != kHeaderSize / kHeaderPageSize)
    return rules.Corrupt("header pages size is {}, must be {}", uint32_t{raw.header_pages},
                         kHeaderSize / kHeaderPageSize);

  Header header;
  ADDCOW_TRY(rules.Read(fields, header));
  const bool flagged = (fields.features & kBackingFile) != 0;
  if (flagged != header.backing.has_value())
    return rules.Corrupt(
        "features is {:#x}, must have bit 0 (BACKING_FILE) {} backing file is "
        "named",
        fields.features, flagged ? "clear where no" : "set where a");
  header.all_allocated = (fields.features & kAllAllocated) != 0;
  header.subclusters = (fields.features & kFeatureSubclusters) != 0;
  return header;
}

Result<HeaderBytes> Serialize(const Header& header, const std::string& file) {
  HeaderBytes bytes(kHeaderSize);
  ADDCOW_TRY_ASSIGN(const HeaderFields fields,
                    WriteFields(header, file, sizeof(RawHeader), sizeof(FormatField), bytes));
  RawHeader raw = {};
  raw.magic = kMagic;
  raw.version = kVersion;
  raw.backing_name_offset = static_cast<uint32_t>(fields.backing_name.offset);
  raw.backing_name_size = static_cast<uint32_t>(fields.backing_name.size);
  raw.image_name_offset = static_cast<uint32_t>(fields.image_name.offset);
  raw.image_name_size = static_cast<uint32_t>(fields.image_name.size);
  raw.features = FeaturesOf(header);
  raw.optional_features = fields.optional_features;
  raw.header_pages = static_cast<uint32_t>(kHeaderSize / kHeaderPageSize);
  raw.backing_format = fields.backing_format;
  raw.image_format = fields.image_format;
  std::memcpy(bytes.data(), &raw, sizeof raw);
  return bytes;
}

HeaderFlags FlagsOf(const Header& header) {
  static_assert(offsetof(RawHeader, optional_features) ==
                offsetof(RawHeader, features) + sizeof(Le64));
  return {offsetof(RawHeader, features), FeaturesOf(header), OptionalFeatures(header)};
}

}  // namespace addcow::version1
