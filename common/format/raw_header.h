// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The header's bytes, and nothing that anyone has checked: see header.h for
// what may be believed. The byte table is in docs/format.md.

#ifndef ADDCOW_COMMON_FORMAT_RAW_HEADER_H
#define ADDCOW_COMMON_FORMAT_RAW_HEADER_H

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/base/little_endian.h"

namespace addcow {

inline constexpr std::array<uint8_t, 8> kMagic = {'A', 'D', 'D', '_', 'C', 'O', 'W', 0xff};
inline constexpr uint32_t kVersion = 1;

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

// The identity of the backing file: the last bytes of the header page, where
// the optional feature BACKING_IDENTITY says so.
inline constexpr uint32_t kIdentityVersion = 1;

// Which of the fields are there.
inline constexpr uint32_t kIdentityHasSize = 1u << 0;
inline constexpr uint32_t kIdentityHasTime = 1u << 1;

struct RawIdentity {
  Le32 version;
  Le32 fields;
  Le64 size;
  Le64 seconds;  // two's complement
  Le32 nanoseconds;
  Le32 hash_algorithm;  // 0: none
  std::array<uint8_t, 64> hash;
  std::array<uint8_t, 160> reserved;
};

static_assert(sizeof(RawIdentity) == 256);
static_assert(alignof(RawIdentity) == 1);
static_assert(offsetof(RawIdentity, version) == 0);
static_assert(offsetof(RawIdentity, fields) == 4);
static_assert(offsetof(RawIdentity, size) == 8);
static_assert(offsetof(RawIdentity, seconds) == 16);
static_assert(offsetof(RawIdentity, nanoseconds) == 24);
static_assert(offsetof(RawIdentity, hash_algorithm) == 28);
static_assert(offsetof(RawIdentity, hash) == 32);
static_assert(offsetof(RawIdentity, reserved) == 96);

}  // namespace addcow

#endif  // ADDCOW_COMMON_FORMAT_RAW_HEADER_H
