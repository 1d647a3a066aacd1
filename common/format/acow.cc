// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See acow.h.

#include "common/format/acow.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/format/header_rules.h"

namespace addcow::acow {

namespace {

constexpr uint32_t kLeastClusterBits = std::countr_zero(kLeastClusterSize);
constexpr uint32_t kMostClusterBits = std::countr_zero(kMostClusterSize);

// A format name ends with a NUL.
constexpr size_t kLongestFormat = sizeof(FormatField) - 1;

// Not yet checked; the header of a file that is shorter is not whole.
RawHeader RawOf(std::span<const std::byte> bytes) {
  RawHeader raw = {};
  std::memcpy(&raw, bytes.data(), std::min(bytes.size(), sizeof raw));
  return raw;
}

bool MayBe(uint32_t cluster_bits) {
  return cluster_bits >= kLeastClusterBits && cluster_bits <= kMostClusterBits;
}

// Who ignores ALL_ALLOCATED reads another disk; so does who takes for it what it is not.
uint64_t CompatibleFeatures(uint64_t optional_features, bool all_allocated) {
  return (optional_features & ~kCompatibleAllAllocated) |
         (all_allocated ? kCompatibleAllAllocated : 0u);
}

uint64_t FeaturesOf(const Header& header) {
  return header.subclusters ? kFeatureSubclusters : 0u;
}

}  // namespace

uint64_t HeaderLength(std::span<const std::byte> bytes) {
  const uint32_t cluster_bits = RawOf(bytes).cluster_bits;
  return std::max(kHeaderPageSize, MayBe(cluster_bits) ? uint64_t{1} << cluster_bits : 0);
}

Result<Header> Parse(std::span<const std::byte> bytes, const std::string& file) {
  const uint64_t length = HeaderLength(bytes);
  const HeaderRules rules(bytes.first(std::min<size_t>(bytes.size(), length)), file,
                          sizeof(RawHeader), kLongestFormat);
  if (bytes.size() < kHeaderPageSize)
    return rules.Corrupt("truncated: {} bytes, the header alone must be {} or more",
                         bytes.size(), kHeaderPageSize);
  const RawHeader raw = RawOf(bytes);
  if (!MayBe(raw.cluster_bits))
    return rules.Corrupt("cluster bits is {}, must be {} to {}", uint32_t{raw.cluster_bits},
                         kLeastClusterBits, kMostClusterBits);
  ADDCOW_TRY(rules.Features(raw.features, kFeatureSubclusters));
  if (raw.header_size != length)
    return rules.Corrupt("header size is {}, must be {} with cluster bits {}",
                         uint32_t{raw.header_size}, length, uint32_t{raw.cluster_bits});
  if (bytes.size() < length)
    return rules.Corrupt("truncated: {} bytes, the header alone must be {}", bytes.size(),
                         length);

  Header header{.revision = Revision::kAcow,
                .cluster_size = uint64_t{1} << uint32_t{raw.cluster_bits}};
  header.subclusters = (raw.features & kFeatureSubclusters) != 0;
  if (header.subclusters && header.cluster_size == kSubclusterSize)
    return rules.Corrupt(
        "features is {:#x}, must have bit 16 (SUBCLUSTERS) clear with clusters of {} bytes",
        uint64_t{raw.features}, kSubclusterSize);
  ADDCOW_TRY(
      rules.Read({.backing_name = {raw.backing_name_offset, raw.backing_name_size},
                  .image_name = {raw.image_name_offset, raw.image_name_size},
                  .backing_format = raw.backing_format,
                  .image_format = raw.image_format,
                  .features = raw.features,
                  .optional_features = raw.compatible_features & ~kCompatibleAllAllocated},
                 header));
  header.all_allocated = (raw.compatible_features & kCompatibleAllAllocated) != 0;
  return header;
}

Result<HeaderBytes> Serialize(const Header& header, const std::string& file) {
  HeaderBytes bytes(header.geometry().header_size);
  ADDCOW_TRY_ASSIGN(const HeaderFields fields,
                    WriteFields(header, file, sizeof(RawHeader), kLongestFormat, bytes));
  RawHeader raw = {};
  raw.magic = kMagic;
  raw.backing_name_offset = static_cast<uint32_t>(fields.backing_name.offset);
  raw.backing_name_size = static_cast<uint32_t>(fields.backing_name.size);
  raw.image_name_offset = static_cast<uint32_t>(fields.image_name.offset);
  raw.image_name_size = static_cast<uint32_t>(fields.image_name.size);
  raw.cluster_bits = static_cast<uint32_t>(std::countr_zero(header.cluster_size));
  raw.features = FeaturesOf(header);
  raw.compatible_features = CompatibleFeatures(fields.optional_features, header.all_allocated);
  raw.header_size = static_cast<uint32_t>(bytes.size());
  raw.backing_format = fields.backing_format;
  raw.image_format = fields.image_format;
  std::memcpy(bytes.data(), &raw, sizeof raw);
  return bytes;
}

HeaderFlags FlagsOf(const Header& header) {
  static_assert(offsetof(RawHeader, compatible_features) ==
                offsetof(RawHeader, features) + sizeof(Le64));
  return {offsetof(RawHeader, features), FeaturesOf(header),
          CompatibleFeatures(OptionalFeatures(header), header.all_allocated)};
}

}  // namespace addcow::acow
