// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the backing file was when the image was made: a record in the last
// bytes of the header (docs/format.md, "Identity of the backing file").
// It is optional in every part: a record that cannot be understood is none,
// and never a reason to refuse a file.

#ifndef ADDCOW_COMMON_FORMAT_BACKING_IDENTITY_H
#define ADDCOW_COMMON_FORMAT_BACKING_IDENTITY_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/base/file_time.h"
#include "common/base/xxh3.h"
#include "common/format/layout.h"

namespace addcow {

inline constexpr size_t kIdentityBytes = 256;

// The hash of some of its bytes (sample.h).
struct BackingSample {
  uint32_t edge = 0;  // which ones: 1 .. kMostSampleEdge
  Hash128 hash = {};

  bool operator==(const BackingSample&) const = default;
};

struct BackingIdentity {
  std::optional<uint64_t> size;      // bytes
  std::optional<FileTime> modified;  // absent for a block device, whose time says nothing
  // Only where there is a size: which bytes they are follows from that.
  std::optional<BackingSample> sample = std::nullopt;

  bool operator==(const BackingIdentity&) const = default;
};

// The record in these bytes; nothing where its version is not known, or where
// it says nothing that is. Of a time that is none only the time is left out, and of a
// hash that cannot be compared the hash.
std::optional<BackingIdentity> ParseIdentity(std::span<const std::byte, kIdentityBytes> bytes);

std::array<std::byte, kIdentityBytes> SerializeIdentity(const BackingIdentity& identity);

}  // namespace addcow

#endif  // ADDCOW_COMMON_FORMAT_BACKING_IDENTITY_H
