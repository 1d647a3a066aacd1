// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See backing_identity.h.

#include "common/format/backing_identity.h"

#include <cstddef>
#include <cstring>

#include "common/base/little_endian.h"
#include "common/format/sample.h"

namespace addcow {

namespace {

constexpr uint32_t kIdentityVersion = 1;

// Which of the fields are there.
constexpr uint32_t kIdentityHasSize = 1u << 0;
constexpr uint32_t kIdentityHasTime = 1u << 1;

struct RawIdentity {
  Le32 version;
  Le32 fields;
  Le64 size;
  Le64 seconds;  // two's complement
  Le32 nanoseconds;
  Le32 hash_algorithm;
  std::array<uint8_t, 64> hash;
  Le32 sample_edge;
  std::array<uint8_t, 156> reserved;
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
static_assert(offsetof(RawIdentity, sample_edge) == 96);
static_assert(offsetof(RawIdentity, reserved) == 100);

constexpr uint32_t kNoHash = 0;
constexpr uint32_t kXxh3 = 1;

constexpr uint32_t kNanosecondsLimit = 1'000'000'000;

// Whoever made the header may have the sample be what they like, but not large.
std::optional<BackingSample> SampleIn(const RawIdentity& raw) {
  const uint32_t edge = raw.sample_edge;
  if (raw.hash_algorithm != kXxh3 || edge == 0 || edge > kMostSampleEdge) return std::nullopt;
  BackingSample sample{.edge = edge};
  std::memcpy(sample.hash.data(), raw.hash.data(), sample.hash.size());
  return sample;
}

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
  if (identity.size) identity.sample = SampleIn(raw);
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
  raw.hash_algorithm = identity.sample ? kXxh3 : kNoHash;
  if (identity.sample) {
    raw.sample_edge = identity.sample->edge;
    std::memcpy(raw.hash.data(), identity.sample->hash.data(), identity.sample->hash.size());
  }
  std::array<std::byte, kIdentityBytes> bytes;
  std::memcpy(bytes.data(), &raw, sizeof raw);
  return bytes;
}

}  // namespace addcow
