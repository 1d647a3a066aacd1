// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The later revision, "ACOW" (18 to 20 of the proposal): the header's bytes, and what
// they say (docs/format.md). Clusters of 4 KiB to 2 MiB, and a header as long as one.

#ifndef ADDCOW_COMMON_FORMAT_ACOW_H
#define ADDCOW_COMMON_FORMAT_ACOW_H

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/base/little_endian.h"
#include "common/format/header.h"

namespace addcow::acow {

inline constexpr std::array<uint8_t, 4> kMagic = {'A', 'C', 'O', 'W'};

// Nothing that anyone has checked.
struct RawHeader {
  std::array<uint8_t, 4> magic;
  Le32 backing_name_offset;
  Le32 backing_name_size;
  Le32 image_name_offset;
  Le32 image_name_size;
  Le32 cluster_bits;
  Le64 features;
  Le64 compatible_features;
  Le32 header_size;
  std::array<char, 16> backing_format;
  std::array<char, 16> image_format;
};

static_assert(sizeof(RawHeader) == 76);
static_assert(alignof(RawHeader) == 1);
static_assert(offsetof(RawHeader, magic) == 0);
static_assert(offsetof(RawHeader, backing_name_offset) == 4);
static_assert(offsetof(RawHeader, backing_name_size) == 8);
static_assert(offsetof(RawHeader, image_name_offset) == 12);
static_assert(offsetof(RawHeader, image_name_size) == 16);
static_assert(offsetof(RawHeader, cluster_bits) == 20);
static_assert(offsetof(RawHeader, features) == 24);
static_assert(offsetof(RawHeader, compatible_features) == 32);
static_assert(offsetof(RawHeader, header_size) == 40);
static_assert(offsetof(RawHeader, backing_format) == 44);
static_assert(offsetof(RawHeader, image_format) == 60);

// How long the header is of which these are the first bytes: no more than the largest
// is, whatever they say.
uint64_t HeaderLength(std::span<const std::byte> bytes);

// As ParseHeader, SerializeHeader and FlagsOf, of a file with this magic.
Result<Header> Parse(std::span<const std::byte> bytes, const std::string& file);
Result<HeaderBytes> Serialize(const Header& header, const std::string& file);
HeaderFlags FlagsOf(const Header& header);

}  // namespace addcow::acow

#endif  // ADDCOW_COMMON_FORMAT_ACOW_H
