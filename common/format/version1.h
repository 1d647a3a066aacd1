// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Version 1, "ADD_COW": the header's bytes, and what they say (docs/format.md). Clusters
// of 64 KiB.

#ifndef ADDCOW_COMMON_FORMAT_VERSION1_H
#define ADDCOW_COMMON_FORMAT_VERSION1_H

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/base/little_endian.h"
#include "common/format/header.h"

namespace addcow::version1 {

inline constexpr std::array<uint8_t, 8> kMagic = {'A', 'D', 'D', '_', 'C', 'O', 'W', 0xff};

// Nothing that anyone has checked.
struct RawHeader {
  std::array<uint8_t, 8> magic;
  Le32 version;
  Le32 backing_name_offset;
  Le32 backing_name_size;
  Le32 image_name_offset;
  Le32 image_name_size;
  Le64 features;
  Le64 optional_features;
  Le32 header_pages;
  std::array<char, 16> backing_format;
  std::array<char, 16> image_format;
};

static_assert(sizeof(RawHeader) == 80);
static_assert(alignof(RawHeader) == 1);
static_assert(offsetof(RawHeader, magic) == 0);
static_assert(offsetof(RawHeader, version) == 8);
static_assert(offsetof(RawHeader, backing_name_offset) == 12);
static_assert(offsetof(RawHeader, backing_name_size) == 16);
static_assert(offsetof(RawHeader, image_name_offset) == 20);
static_assert(offsetof(RawHeader, image_name_size) == 24);
static_assert(offsetof(RawHeader, features) == 28);
static_assert(offsetof(RawHeader, optional_features) == 36);
static_assert(offsetof(RawHeader, header_pages) == 44);
static_assert(offsetof(RawHeader, backing_format) == 48);
static_assert(offsetof(RawHeader, image_format) == 64);

// As ParseHeader, SerializeHeader and FlagsOf, of a file with this magic.
Result<Header> Parse(std::span<const std::byte> bytes, const std::string& file);
Result<HeaderBytes> Serialize(const Header& header, const std::string& file);
HeaderFlags FlagsOf(const Header& header);

}  // namespace addcow::version1

#endif  // ADDCOW_COMMON_FORMAT_VERSION1_H
