// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The header of an add-cow file, checked, whichever revision it has: what goes
// through here need not ask. A Header that came from ParseHeader obeys every rule of
// docs/format.md.

#ifndef ADDCOW_COMMON_FORMAT_HEADER_H
#define ADDCOW_COMMON_FORMAT_HEADER_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/format/backing_identity.h"
#include "common/format/layout.h"
#include "common/io/file.h"

namespace addcow {

// As the proposal counted: the first published form, and the last.
enum class Revision : uint32_t { kVersion1 = 1, kAcow = 20 };

// Of revision 20. Version 1 has one size, kClusterSize.
inline constexpr uint64_t kLeastClusterSize = 4 * kKiB;
inline constexpr uint64_t kMostClusterSize = 2 * kMiB;

// The extensions' bits, in both revisions the same: of the features field,
inline constexpr uint64_t kFeatureSubclusters = 1u << 16;
// and of the optional (in revision 20: compatible) features.
inline constexpr uint64_t kOptionalBackingIdentity = 1u << 16;
inline constexpr uint64_t kOptionalNoSubclusters = 1u << 17;
// Revision 20 has ALL_ALLOCATED among these, where in version 1 a feature may be of
// which nothing is known.
inline constexpr uint64_t kCompatibleAllAllocated = 1u << 0;

// The one image file format of the format, and the one backing file format
// that this program reads.
inline constexpr std::string_view kRawFormat = "raw";

struct NamedFile {
  std::string name;    // as stored; relative names start from the add-cow file's directory
  std::string format;  // never guessed

  bool operator==(const NamedFile&) const = default;
};

struct Header {
  Revision revision = Revision::kVersion1;
  uint64_t cluster_size = kClusterSize;  // in bytes, a power of two
  NamedFile image = {};
  std::optional<NamedFile> backing = std::nullopt;
  bool all_allocated = false;
  bool subclusters = false;  // the subcluster bitmap counts
  // Who serves it must not add SUBCLUSTERS: another reader may not know of them.
  bool no_subclusters = false;
  // All but those that other members stand for. Kept as found.
  uint64_t optional_features = 0;
  // What the backing file was when it was named. Only with a backing file.
  std::optional<BackingIdentity> backing_identity = std::nullopt;

  Geometry geometry() const;
  // ALL_ALLOCATED alone says that every cluster is, whatever the bits are: the published
  // "create" of revision 20 leaves them 0 where there is no backing file.
  bool flag_suffices() const { return revision == Revision::kAcow && !backing; }
  // The length of a bitmap must be padded. In version 1 only writers do that.
  bool must_be_padded() const { return revision == Revision::kAcow; }
  bool operator==(const Header&) const = default;
};

using HeaderBytes = std::vector<std::byte>;

// Whether a file that begins so is an add-cow file, of whatever version, sound or
// not. kMagicBytes of it are enough.
inline constexpr size_t kMagicBytes = 8;
bool BeginsAsAddCow(std::span<const std::byte> bytes);

// Checks the first bytes of an add-cow file: as many as its geometry's header_size,
// where the file is as long. `file` is its name, for the message. Errors:
// kErrUnsupported where a newer or other format is meant, kErrCorrupt where a
// rule is broken; the message says which field, what it holds and what it may.
Result<Header> ParseHeader(std::span<const std::byte> bytes, const std::string& file);

// The same of a file. `name` is for the message.
Result<Header> ReadHeader(File& file, const std::string& name);

// The bytes of a header, or kErrUnsupported / EINVAL / ENAMETOOLONG where its
// names, formats or cluster size do not fit the format. The identity is left out
// where the names take its room (IdentityFits).
Result<HeaderBytes> SerializeHeader(const Header& header, const std::string& file);

// Whether the header's names leave room for an identity of the backing file.
bool IdentityFits(const Header& header);

// The two words of flags alone, for changing them in place: inside one sector, so that
// a crash leaves the old ones or the new.
struct HeaderFlags {
  uint64_t offset = 0;  // of `features`; the others follow it
  uint64_t features = 0;
  uint64_t optional_features = 0;

  std::array<std::byte, 16> bytes() const;
};
HeaderFlags FlagsOf(const Header& header);

// Gives the file, whose header this is, its flags. Not synced.
Status WriteFlags(File& file, const Header& header);

}  // namespace addcow

#endif  // ADDCOW_COMMON_FORMAT_HEADER_H
