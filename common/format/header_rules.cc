// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The rules of the table in docs/format.md, one refusal for each. All arithmetic is in
// uint64_t on 32-bit fields.

#include "common/format/header_rules.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

namespace addcow {

namespace {

constexpr uint64_t kOwnOptionalFeatures = kOptionalBackingIdentity | kOptionalNoSubclusters;

bool Overlap(const NameField& a, const NameField& b) {
  return a.offset < b.offset + b.size && b.offset < a.offset + a.size;
}

Status CheckNamedFile(std::string_view what, const NamedFile& named, const std::string& file,
                      size_t longest_format) {
  if (named.name.empty())
    return Fail(Error::Because(EINVAL, file, fmt::format("{} name is empty", what)));
  if (named.name.find('\0') != std::string::npos)
    return Fail(Error::Because(EINVAL, file, fmt::format("{} name holds a NUL byte", what)));
  if (named.format.empty() || named.format.size() > longest_format)
    return Fail(Error::Because(EINVAL, file,
                               fmt::format("{} format '{}' must have 1 to {} characters", what,
                                           named.format, longest_format)));
  return {};
}

FormatField Padded(const std::string& format) {
  FormatField field = {};
  std::ranges::copy(format, field.begin());
  return field;
}

}  // namespace

Status HeaderRules::Features(uint64_t features, uint64_t known) const {
  const uint64_t unknown = features & ~known;
  if (unknown == 0) return {};
  return Unsupported(
      "features is {:#x}, has unknown bit {}, must be made of {:#x} (a newer program made it?)",
      features, __builtin_ctzll(unknown), known);
}

// `what` is "backing file" or "image file".
Result<std::string> HeaderRules::Name(std::string_view what, const NameField& field) const {
  const uint64_t last = bytes_.size() - 2;
  if (field.offset < names_start_ || field.offset > last)
    return Corrupt("{} name offset is {}, must be {} to {}", what, field.offset, names_start_,
                   last);
  const uint64_t limit = bytes_.size() - names_start_;
  if (field.size == 0 || field.size >= limit)
    return Corrupt("{} name size is {}, must be 1 to {}", what, field.size, limit - 1);
  if (field.offset + field.size > bytes_.size())
    return Corrupt("{} name: offset {} + size {} is {}, must be at most {}", what, field.offset,
                   field.size, field.offset + field.size, bytes_.size());
  const char* start = reinterpret_cast<const char*>(bytes_.data()) + field.offset;
  std::string name(start, field.size);
  if (const size_t nul = name.find('\0'); nul != std::string::npos)
    return Corrupt("{} name holds a NUL byte at position {}, must hold none", what, nul);
  return name;
}

// Empty where all bytes are zero.
Result<std::string> HeaderRules::Format(std::string_view what, const FormatField& field) const {
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
  if (format.size() > longest_format_)
    return Corrupt("{} format is '{}', must have {} characters at most", what, format,
                   longest_format_);
  return format;
}

Result<std::optional<NamedFile>> HeaderRules::Backing(const HeaderFields& fields) const {
  const NameField& field = fields.backing_name;
  ADDCOW_TRY_ASSIGN(std::string format, Format("backing file", fields.backing_format));
  if (field.offset == 0) {
    if (field.size != 0)
      return Corrupt("backing file name size is {}, must be 0 where the offset is 0",
                     field.size);
    if (!format.empty())
      return Corrupt("backing file format is '{}', must be empty without a backing file",
                     format);
    return std::optional<NamedFile>();
  }
  ADDCOW_TRY_ASSIGN(std::string name, Name("backing file", field));
  if (format.empty())
    return Corrupt(
        "backing file format is empty, must name the format of '{}' (it is never guessed)",
        name);
  return std::optional<NamedFile>(NamedFile{std::move(name), std::move(format)});
}

Result<NamedFile> HeaderRules::Image(const HeaderFields& fields) const {
  ADDCOW_TRY_ASSIGN(std::string name, Name("image file", fields.image_name));
  ADDCOW_TRY_ASSIGN(std::string format, Format("image file", fields.image_format));
  if (format.empty()) return Corrupt("image file format is empty, must be '{}'", kRawFormat);
  if (format != kRawFormat)
    return Unsupported("image file format is '{}', must be '{}'", format, kRawFormat);
  return NamedFile{std::move(name), std::move(format)};
}

// Where a name reaches into its place there is no record, whatever the bit
// says: another program has changed the names.
std::optional<BackingIdentity> HeaderRules::Identity(const HeaderFields& fields) const {
  if ((fields.optional_features & kOptionalBackingIdentity) == 0) return std::nullopt;
  const NameField record{bytes_.size() - kIdentityBytes, kIdentityBytes};
  if (fields.backing_name.offset == 0 || Overlap(record, fields.backing_name) ||
      Overlap(record, fields.image_name))
    return std::nullopt;
  return ParseIdentity(bytes_.last<kIdentityBytes>());
}

Status HeaderRules::Read(const HeaderFields& fields, Header& header) const {
  ADDCOW_TRY_ASSIGN(header.backing, Backing(fields));
  ADDCOW_TRY_ASSIGN(header.image, Image(fields));
  if (header.backing && Overlap(fields.backing_name, fields.image_name))
    return Corrupt(
        "backing file name (offset {}, size {}) and image file name (offset {}, size {}) "
        "overlap, must not",
        fields.backing_name.offset, fields.backing_name.size, fields.image_name.offset,
        fields.image_name.size);
  header.no_subclusters = (fields.optional_features & kOptionalNoSubclusters) != 0;
  header.backing_identity = Identity(fields);
  header.optional_features = fields.optional_features & ~kOwnOptionalFeatures;
  // A record that cannot be understood stays one.
  if (!header.backing_identity)
    header.optional_features |= fields.optional_features & kOptionalBackingIdentity;
  return {};
}

uint64_t OptionalFeatures(const Header& header) {
  return header.optional_features | (header.no_subclusters ? kOptionalNoSubclusters : 0u) |
         (header.backing_identity ? kOptionalBackingIdentity : 0u);
}

Result<HeaderFields> WriteFields(const Header& header, const std::string& file,
                                 uint64_t names_start, size_t longest_format,
                                 std::span<std::byte> bytes) {
  ADDCOW_TRY(CheckNamedFile("image file", header.image, file, longest_format));
  if (header.backing)
    ADDCOW_TRY(CheckNamedFile("backing file", *header.backing, file, longest_format));
  const size_t backing_size = header.backing ? header.backing->name.size() : 0;
  const size_t names = backing_size + header.image.name.size();
  // One byte less than there is: a name's size must be less than all the room.
  const uint64_t room = bytes.size() - names_start - 1;
  if (names > room)
    return Fail(Error::Because(
        ENAMETOOLONG, file,
        fmt::format("backing and image file names have {} bytes together, the header has room "
                    "for {}: use shorter or relative names",
                    names, room)));

  HeaderFields fields;
  uint64_t next = names_start;
  const auto put_name = [&](const std::string& name) {
    std::memcpy(bytes.data() + next, name.data(), name.size());
    return NameField{std::exchange(next, next + name.size()), name.size()};
  };
  if (header.backing) {
    fields.backing_name = put_name(header.backing->name);
    fields.backing_format = Padded(header.backing->format);
  }
  fields.image_name = put_name(header.image.name);
  fields.image_format = Padded(header.image.format);
  Header own = header;
  if (!header.backing || !IdentityFits(header)) own.backing_identity.reset();
  if (own.backing_identity)
    std::ranges::copy(SerializeIdentity(*own.backing_identity),
                      bytes.last<kIdentityBytes>().begin());
  fields.optional_features = OptionalFeatures(own);
  return fields;
}

}  // namespace addcow
