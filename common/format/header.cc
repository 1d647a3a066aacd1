// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See header.h. The magic says which revision a header has: a reader of one never
// takes the other for its own.

#include "common/format/header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/base/little_endian.h"
#include "common/format/acow.h"
#include "common/format/version1.h"

namespace addcow {

namespace {

template <size_t kCount>
bool BeginsWith(std::span<const std::byte> bytes, const std::array<uint8_t, kCount>& magic) {
  return bytes.size() >= kCount && std::memcmp(bytes.data(), magic.data(), kCount) == 0;
}

tl::unexpected<Error> NotAddCow(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.empty())
    return Fail(Error::Because(kErrUnsupported, file, "not an add-cow file: it is empty"));
  std::vector<uint8_t> magic(std::min(bytes.size(), kMagicBytes));
  std::memcpy(magic.data(), bytes.data(), magic.size());
  return Fail(Error::Because(
      kErrUnsupported, file,
      fmt::format("not an add-cow file: magic is '{:02x}', must be '{:02x}' or '{:02x}'",
                  fmt::join(magic, " "), fmt::join(version1::kMagic, " "),
                  fmt::join(acow::kMagic, " "))));
}

Status CheckClusterSize(const Header& header, const std::string& file) {
  const uint64_t size = header.cluster_size;
  const bool fits =
      header.revision == Revision::kVersion1
          ? size == kClusterSize
          : std::has_single_bit(size) && size >= kLeastClusterSize && size <= kMostClusterSize;
  if (fits) return {};
  return Fail(Error::Because(
      EINVAL, file,
      header.revision == Revision::kVersion1
          ? fmt::format("clusters of {} bytes cannot be had in version 1, which has {}", size,
                        kClusterSize)
          : fmt::format("clusters of {} bytes cannot be had, only powers of two from {} to {}",
                        size, kLeastClusterSize, kMostClusterSize)));
}

}  // namespace

Geometry Header::geometry() const {
  if (revision == Revision::kVersion1) return {};
  return {cluster_size, std::max(kHeaderPageSize, cluster_size), cluster_size};
}

bool BeginsAsAddCow(std::span<const std::byte> bytes) {
  return BeginsWith(bytes, version1::kMagic) || BeginsWith(bytes, acow::kMagic);
}

Result<Header> ParseHeader(std::span<const std::byte> bytes, const std::string& file) {
  if (BeginsWith(bytes, version1::kMagic))
    return version1::Parse(bytes.first(std::min<size_t>(bytes.size(), kHeaderSize)), file);
  if (BeginsWith(bytes, acow::kMagic)) return acow::Parse(bytes, file);
  return NotAddCow(bytes, file);
}

Result<Header> ReadHeader(File& file, const std::string& name) {
  HeaderBytes bytes(kHeaderPageSize);
  ADDCOW_TRY_ASSIGN(size_t count, file.Read(bytes, 0));
  const uint64_t length = BeginsWith(std::span(bytes).first(count), acow::kMagic)
                              ? acow::HeaderLength(std::span(bytes).first(count))
                              : count;
  if (count == bytes.size() && length > count) {
    bytes.resize(length);
    ADDCOW_TRY_ASSIGN(const size_t more, file.Read(std::span(bytes).subspan(count), count));
    count += more;
  }
  return ParseHeader(std::span(bytes).first(count), name);
}

Result<HeaderBytes> SerializeHeader(const Header& header, const std::string& file) {
  ADDCOW_TRY(CheckClusterSize(header, file));
  ADDCOW_TRY_ASSIGN(HeaderBytes bytes, header.revision == Revision::kVersion1
                                           ? version1::Serialize(header, file)
                                           : acow::Serialize(header, file));
  // What was written must read back: one reader's rules for both ways.
  ADDCOW_TRY(ParseHeader(bytes, file));
  return bytes;
}

bool IdentityFits(const Header& header) {
  const size_t names =
      header.image.name.size() + (header.backing ? header.backing->name.size() : 0);
  const size_t start = header.revision == Revision::kVersion1 ? sizeof(version1::RawHeader)
                                                              : sizeof(acow::RawHeader);
  return start + names + kIdentityBytes <= header.geometry().header_size;
}

HeaderFlags FlagsOf(const Header& header) {
  return header.revision == Revision::kVersion1 ? version1::FlagsOf(header)
                                                : acow::FlagsOf(header);
}

Status WriteFlags(File& file, const Header& header) {
  const HeaderFlags flags = FlagsOf(header);
  return file.Write(flags.bytes(), flags.offset);
}

std::array<std::byte, 16> HeaderFlags::bytes() const {
  const std::array<Le64, 2> words = {Le64(features), Le64(optional_features)};
  std::array<std::byte, 16> bytes;
  static_assert(sizeof words == sizeof bytes);
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

}  // namespace addcow
