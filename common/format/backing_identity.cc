// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See backing_identity.h.

#include "common/format/backing_identity.h"

#include <cstring>

#include "common/format/raw_header.h"

namespace addcow {

namespace {

constexpr uint32_t kNanosecondsLimit = 1'000'000'000;

}  // namespace

std::optional<BackingIdentity> ParseIdentity(std::span<const std::byte, kIdentityBytes> bytes) {
  RawIdentity raw;
  static_assert(sizeof raw == kIdentityBytes);
  std::memcpy(&raw, bytes.data(), sizeof raw);
  if (raw.version != kIdentityVersion) return std::nullopt;
  BackingIdentity identity;
  if ((raw.fields & kIdentityHasSize) != 0) identity.size = raw.size;
  if ((raw.fields & kIdentityHasTime) != 0 && raw.nanoseconds < kNanosecondsLimit)
    identity.modified = {static_cast<int64_t>(uint64_t{raw.seconds}), raw.nanoseconds};
  if (!identity.size && !identity.modified) return std::nullopt;
  return identity;
}

std::array<std::byte, kIdentityBytes> SerializeIdentity(const BackingIdentity& identity) {
  RawIdentity raw = {};
  raw.version = kIdentityVersion;
  raw.fields =
      (identity.size ? kIdentityHasSize : 0u) | (identity.modified ? kIdentityHasTime : 0u);
  raw.size = identity.size.value_or(0);
  if (identity.modified) {
    raw.seconds = static_cast<uint64_t>(identity.modified->seconds);
    raw.nanoseconds = identity.modified->nanoseconds;
  }
  std::array<std::byte, kIdentityBytes> bytes;
  std::memcpy(bytes.data(), &raw, sizeof raw);
  return bytes;
}

}  // namespace addcow
