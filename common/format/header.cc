// SPDX-License-Identifier: LGPL-2.1-or-later
//
// ParseHeader goes through the rules of the table in docs/format.md, one refusal
// for each, what tells versions apart first. All arithmetic is in uint64_t on 32-bit fields.

#include "common/format/header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/format/raw_header.h"

namespace addcow {

namespace {

constexpr uint64_t kNamesStart = sizeof(RawHeader);
constexpr uint64_t kLastNameStart = kHeaderSize - 2;
constexpr uint64_t kNameSizeLimit = kHeaderSize - kNamesStart;  // a name is shorter

// Those that have a member of Header each.
constexpr uint64_t kOwnOptionalFeatures = kOptionalBackingIdentity | kOptionalNoSubclusters;

// A stretch of the header that holds a name.
struct Field {
  uint64_t offset;
  uint64_t size;
};

// Says what is wrong with one header, in the words of one file.
class Checker {
 public:
  Checker(std::span<const std::byte> bytes, const std::string& file)
      : bytes_(bytes), file_(file) {}

  template <typename... Args>
  tl::unexpected<Error> Corrupt(fmt::format_string<Args...> text, Args&&... args) const {
    return Fail(
        Error::Because(kErrCorrupt, file_, fmt::format(text, std::forward<Args>(args)...)));
  }

  template <typename... Args>
  tl::unexpected<Error> Unsupported(fmt::format_string<Args...> text, Args&&... args) const {
    return Fail(
        Error::Because(kErrUnsupported, file_, fmt::format(text, std::forward<Args>(args)...)));
  }

  // The name in `field`; `what` is "backing file" or "image file".
  Result<std::string> Name(std::string_view what, Field field) const {
    if (field.offset < kNamesStart || field.offset > kLastNameStart)
      return Corrupt("{} name offset is {}, must be {} to {}", what, field.offset, kNamesStart,
                     kLastNameStart);
    if (field.size == 0 || field.size >= kNameSizeLimit)
      return Corrupt("{} name size is {}, must be 1 to {}", what, field.size,
                     kNameSizeLimit - 1);
    if (field.offset + field.size > kHeaderSize)
      return Corrupt("{} name: offset {} + size {} is {}, must be at most {}", what,
                     field.offset, field.size, field.offset + field.size, kHeaderSize);
    const char* start = reinterpret_cast<const char*>(bytes_.data()) + field.offset;
    std::string name(start, field.size);
    if (const size_t nul = name.find('\0'); nul != std::string::npos)
      return Corrupt("{} name holds a NUL byte at position {}, must hold none", what, nul);
    return name;
  }

  // The zero-padded format name in `bytes`; empty where all are zero.
  Result<std::string> Format(std::string_view what, const std::array<char, 16>& field) const {
    const auto end = std::find(field.begin(), field.end(), '\0');
    const std::string format(field.begin(), end);
    const bool printable =
        std::all_of(format.begin(), format.end(), [](char c) { return c > ' ' && c <= '~'; });
    const bool padded = std::all_of(end, field.end(), [](char c) { return c == '\0'; });
    if (!printable || !padded) {
      std::array<uint8_t, 16> bytes;
      std::memcpy(bytes.data(), field.data(), bytes.size());
      return Corrupt("{} format is '{:02x}', must be printable ASCII, padded with zeroes", what,
                     fmt::join(bytes, " "));
    }
    return format;
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
};

bool Overlap(Field a, Field b) {
  return a.offset < b.offset + b.size && b.offset < a.offset + a.size;
}

Status CheckFeatures(const Checker& check, uint64_t features) {
  if (const uint64_t unknown = features & ~kKnownFeatures; unknown != 0)
    return check.Unsupported(
        "features is {:#x}, has unknown bit {}, must be made of {:#x} (a newer program made "
        "it?)",
        features, __builtin_ctzll(unknown), kKnownFeatures);
  if ((features & kFeatureImageFile) == 0)
    return check.Corrupt("features is {:#x}, must have bit 1 (IMAGE_FILE) set", features);
  return {};
}

Result<std::optional<NamedFile>> ParseBacking(const Checker& check, const RawHeader& raw) {
  const Field field{raw.backing_name_offset, raw.backing_name_size};
  ADDCOW_TRY_ASSIGN(std::string format, check.Format("backing file", raw.backing_format));
  const bool flagged = (raw.features & kFeatureBackingFile) != 0;
  if (field.offset == 0) {
    if (field.size != 0)
      return check.Corrupt("backing file name size is {}, must be 0 where the offset is 0",
                           field.size);
    if (flagged)
      return check.Corrupt(
          "features is {:#x}, must have bit 0 (BACKING_FILE) clear where no backing file is "
          "named",
          uint64_t{raw.features});
    if (!format.empty())
      return check.Corrupt("backing file format is '{}', must be empty without a backing file",
                           format);
    return std::optional<NamedFile>();
  }
  ADDCOW_TRY_ASSIGN(std::string name, check.Name("backing file", field));
  if (!flagged)
    return check.Corrupt(
        "features is {:#x}, must have bit 0 (BACKING_FILE) set where a backing file is named",
        uint64_t{raw.features});
  if (format.empty())
    return check.Corrupt(
        "backing file format is empty, must name the format of '{}' (it is never guessed)",
        name);
  return std::optional<NamedFile>(NamedFile{std::move(name), std::move(format)});
}

Result<NamedFile> ParseImage(const Checker& check, const RawHeader& raw) {
  ADDCOW_TRY_ASSIGN(std::string name, check.Name("image file", Field{raw.image_name_offset,
                                                                     raw.image_name_size}));
  ADDCOW_TRY_ASSIGN(std::string format, check.Format("image file", raw.image_format));
  if (format.empty())
    return check.Corrupt("image file format is empty, must be '{}'", kRawFormat);
  if (format != kRawFormat)
    return check.Unsupported("image file format is '{}', must be '{}'", format, kRawFormat);
  return NamedFile{std::move(name), std::move(format)};
}

// Where a name reaches into its place there is no record, whatever the bit
// says: another program has changed the names.
std::optional<BackingIdentity> FindIdentity(std::span<const std::byte> bytes,
                                            const RawHeader& raw) {
  if ((raw.optional_features & kOptionalBackingIdentity) == 0) return std::nullopt;
  const Field record{kIdentityOffset, kIdentityBytes};
  if (raw.backing_name_offset == 0 ||
      Overlap(record, {raw.backing_name_offset, raw.backing_name_size}) ||
      Overlap(record, {raw.image_name_offset, raw.image_name_size}))
    return std::nullopt;
  return ParseIdentity(bytes.subspan<kIdentityOffset, kIdentityBytes>());
}

}  // namespace

Result<Header> ParseHeader(std::span<const std::byte> bytes, const std::string& file) {
  const Checker check(bytes, file);
  std::vector<uint8_t> magic(std::min(bytes.size(), kMagic.size()));
  if (!magic.empty()) std::memcpy(magic.data(), bytes.data(), magic.size());
  if (magic.empty()) return check.Unsupported("not an add-cow file: it is empty");
  if (!std::ranges::equal(magic, kMagic))
    return check.Unsupported("not an add-cow file: magic is '{:02x}', must be '{:02x}'",
                             fmt::join(magic, " "), fmt::join(kMagic, " "));
  if (bytes.size() < kHeaderSize)
    return check.Corrupt("truncated: {} bytes, the header alone must be {}", bytes.size(),
                         kHeaderSize);
  RawHeader raw;
  std::memcpy(&raw, bytes.data(), sizeof raw);

  if (raw.version != kVersion)
    return check.Unsupported("version is {}, must be {}", uint32_t{raw.version}, kVersion);
  ADDCOW_TRY(CheckFeatures(check, raw.features));
  if (raw.header_pages != kHeaderSize / kHeaderPageSize)
    return check.Corrupt("header pages size is {}, must be {}", uint32_t{raw.header_pages},
                         kHeaderSize / kHeaderPageSize);

  Header header;
  ADDCOW_TRY_ASSIGN(header.backing, ParseBacking(check, raw));
  ADDCOW_TRY_ASSIGN(header.image, ParseImage(check, raw));
  if (header.backing && Overlap({raw.backing_name_offset, raw.backing_name_size},
                                {raw.image_name_offset, raw.image_name_size}))
    return check.Corrupt(
        "backing file name (offset {}, size {}) and image file name (offset {}, size {}) "
        "overlap, "
        "must not",
        uint32_t{raw.backing_name_offset}, uint32_t{raw.backing_name_size},
        uint32_t{raw.image_name_offset}, uint32_t{raw.image_name_size});
  header.all_allocated = (raw.features & kFeatureAllAllocated) != 0;
  header.subclusters = (raw.features & kFeatureSubclusters) != 0;
  header.no_subclusters = (raw.optional_features & kOptionalNoSubclusters) != 0;
  header.optional_features = raw.optional_features & ~kOwnOptionalFeatures;
  header.backing_identity = FindIdentity(bytes, raw);
  return header;
}

namespace {

Status CheckNamedFile(std::string_view what, const NamedFile& named, const std::string& file) {
  if (named.name.empty())
    return Fail(Error::Because(EINVAL, file, fmt::format("{} name is empty", what)));
  if (named.name.find('\0') != std::string::npos)
    return Fail(Error::Because(EINVAL, file, fmt::format("{} name holds a NUL byte", what)));
  const size_t limit = sizeof(RawHeader::image_format);
  if (named.format.empty() || named.format.size() > limit)
    return Fail(Error::Because(
        EINVAL, file,
        fmt::format("{} format '{}' must have 1 to {} characters", what, named.format, limit)));
  return {};
}

}  // namespace

bool IdentityFits(const Header& header) {
  const size_t names =
      header.image.name.size() + (header.backing ? header.backing->name.size() : 0);
  return names <= kIdentityOffset - kNamesStart;
}

Result<HeaderBytes> SerializeHeader(const Header& header, const std::string& file) {
  ADDCOW_TRY(CheckNamedFile("image file", header.image, file));
  if (header.backing) ADDCOW_TRY(CheckNamedFile("backing file", *header.backing, file));
  const size_t backing_size = header.backing ? header.backing->name.size() : 0;
  // One byte less than there is: a name's size must be less than all the room.
  if (backing_size + header.image.name.size() >= kNameSizeLimit)
    return Fail(Error::Because(
        ENAMETOOLONG, file,
        fmt::format("backing and image file names have {} bytes together, the header has room "
                    "for {}: use shorter or relative names",
                    backing_size + header.image.name.size(), kNameSizeLimit - 1)));

  HeaderBytes bytes = {};
  uint64_t next = kNamesStart;
  auto put_name = [&](const std::string& name) {
    std::memcpy(bytes.data() + next, name.data(), name.size());
    return static_cast<uint32_t>(std::exchange(next, next + name.size()));
  };
  RawHeader raw = {};
  raw.magic = kMagic;
  raw.version = kVersion;
  if (header.backing) {
    raw.backing_name_offset = put_name(header.backing->name);
    raw.backing_name_size = static_cast<uint32_t>(backing_size);
    std::copy(header.backing->format.begin(), header.backing->format.end(),
              raw.backing_format.begin());
  }
  raw.image_name_offset = put_name(header.image.name);
  raw.image_name_size = static_cast<uint32_t>(header.image.name.size());
  std::copy(header.image.format.begin(), header.image.format.end(), raw.image_format.begin());
  raw.features = header.features();
  raw.optional_features = (header.optional_features & ~kOwnOptionalFeatures) |
                          (header.no_subclusters ? kOptionalNoSubclusters : 0u);
  if (header.backing && header.backing_identity && IdentityFits(header)) {
    raw.optional_features = raw.optional_features | kOptionalBackingIdentity;
    std::ranges::copy(SerializeIdentity(*header.backing_identity),
                      bytes.begin() + kIdentityOffset);
  }
  raw.header_pages = static_cast<uint32_t>(kHeaderSize / kHeaderPageSize);
  std::memcpy(bytes.data(), &raw, sizeof raw);
  // What was written must read back: one reader's rules for both ways.
  ADDCOW_TRY(ParseHeader(bytes, file));
  return bytes;
}

std::array<std::byte, 8> SerializeFeatures(uint64_t features) {
  const Le64 field = features;
  std::array<std::byte, 8> bytes;
  static_assert(sizeof bytes == sizeof field);
  static_assert(kFeaturesOffset == offsetof(RawHeader, features));
  static_assert(kFeaturesOffset / kSectorSize ==
                (kFeaturesOffset + sizeof field - 1) / kSectorSize);
  std::memcpy(bytes.data(), &field, sizeof field);
  return bytes;
}

}  // namespace addcow
