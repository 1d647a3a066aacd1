// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The add-cow header, checked. A Header that came from ParseHeader obeys
// every rule of docs/format.md; nothing here does I/O.

#ifndef ADDCOW_COMMON_FORMAT_HEADER_H
#define ADDCOW_COMMON_FORMAT_HEADER_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/base/error.h"
#include "common/format/backing_identity.h"
#include "common/format/layout.h"

namespace addcow {

// Bits of the features field.
inline constexpr uint64_t kFeatureBackingFile = 1u << 0;
inline constexpr uint64_t kFeatureImageFile = 1u << 1;
inline constexpr uint64_t kFeatureAllAllocated = 1u << 2;
inline constexpr uint64_t kFeatureSubclusters = 1u << 16;
inline constexpr uint64_t kKnownFeatures =
    kFeatureBackingFile | kFeatureImageFile | kFeatureAllAllocated | kFeatureSubclusters;

// Bits of the optional features field.
inline constexpr uint64_t kOptionalBackingIdentity = 1u << 16;
inline constexpr uint64_t kOptionalNoSubclusters = 1u << 17;

// The one image file format of version 1, and the one backing file format
// that this program reads.
inline constexpr std::string_view kRawFormat = "raw";

struct NamedFile {
  std::string name;    // as stored; relative names start from the add-cow file's directory
  std::string format;  // never guessed

  bool operator==(const NamedFile&) const = default;
};

struct Header {
  NamedFile image;
  std::optional<NamedFile> backing;
  bool all_allocated = false;
  bool subclusters = false;  // the subcluster bitmap counts
  // Who serves it must not add SUBCLUSTERS: another reader may not know of them.
  bool no_subclusters = false;
  // All but those that other members stand for. Kept as found.
  uint64_t optional_features = 0;
  // What the backing file was when it was named. Only with a backing file.
  std::optional<BackingIdentity> backing_identity = std::nullopt;

  uint64_t cluster_size() const { return kClusterSize; }  // in bytes, a power of two
  uint64_t features() const {
    return kFeatureImageFile | (backing ? kFeatureBackingFile : 0u) |
           (all_allocated ? kFeatureAllAllocated : 0u) |
           (subclusters ? kFeatureSubclusters : 0u);
  }
  bool operator==(const Header&) const = default;
};

using HeaderBytes = std::array<std::byte, kHeaderSize>;

// Checks the first bytes of an add-cow file. `bytes` may be shorter than
// kHeaderSize where the file is; `file` is its name, for the message. Errors:
// kErrUnsupported where a newer or other format is meant, kErrCorrupt where a
// rule is broken; the message says which field, what it holds and what it may.
Result<Header> ParseHeader(std::span<const std::byte> bytes, const std::string& file);

// The bytes of a header, or kErrUnsupported / EINVAL / ENAMETOOLONG where its
// names or formats do not fit the format. The identity is left out where the
// names take its room (IdentityFits).
Result<HeaderBytes> SerializeHeader(const Header& header, const std::string& file);

// Whether the header's names leave room for an identity of the backing file.
bool IdentityFits(const Header& header);

// The `features` field alone, for changing flags in place: 8 bytes at
// kFeaturesOffset, inside one sector, so that a crash leaves the old or new.
inline constexpr uint64_t kFeaturesOffset = 28;
std::array<std::byte, 8> SerializeFeatures(uint64_t features);

}  // namespace addcow

#endif  // ADDCOW_COMMON_FORMAT_HEADER_H
