// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the headers of both revisions have in common, wherever it lies in them: two
// named files, their formats, two words of flags, and the rules for them. The
// revisions' own files (version1.h, acow.h) say where it lies.

#ifndef ADDCOW_COMMON_FORMAT_HEADER_RULES_H
#define ADDCOW_COMMON_FORMAT_HEADER_RULES_H

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "common/format/header.h"

namespace addcow {

// A stretch of the header that holds a name.
struct NameField {
  uint64_t offset = 0;
  uint64_t size = 0;
};

using FormatField = std::array<char, 16>;

// As they lie in a header, and nothing that anyone has checked.
struct HeaderFields {
  NameField backing_name;
  NameField image_name;
  FormatField backing_format = {};
  FormatField image_format = {};
  uint64_t features = 0;
  uint64_t optional_features = 0;
};

// Checks the fields of one header, and says what is wrong in the words of one file.
// Lives no longer than what it is given.
class HeaderRules {
 public:
  // Names begin at `names_start` or later, and end with the bytes. A format name has
  // `longest_format` characters at most.
  HeaderRules(std::span<const std::byte> bytes, const std::string& file, uint64_t names_start,
              size_t longest_format)
      : bytes_(bytes),
        file_(file),
        names_start_(names_start),
        longest_format_(longest_format) {}

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

  // kErrUnsupported where any bit but those of `known` is set.
  Status Features(uint64_t features, uint64_t known) const;

  // The two files, into `header`, with what the optional features' own bits say. The
  // identity record is the last bytes of the header.
  Status Read(const HeaderFields& fields, Header& header) const;

 private:
  Result<std::string> Name(std::string_view what, const NameField& field) const;
  Result<std::string> Format(std::string_view what, const FormatField& field) const;
  Result<std::optional<NamedFile>> Backing(const HeaderFields& fields) const;
  Result<NamedFile> Image(const HeaderFields& fields) const;
  std::optional<BackingIdentity> Identity(const HeaderFields& fields) const;

  const std::span<const std::byte> bytes_;
  const std::string& file_;
  const uint64_t names_start_;
  const size_t longest_format_;
};

// The other way: writes the names and the identity of a header, which has `bytes`, and
// returns the fields that go with them. EINVAL or ENAMETOOLONG where it does not fit.
Result<HeaderFields> WriteFields(const Header& header, const std::string& file,
                                 uint64_t names_start, size_t longest_format,
                                 std::span<std::byte> bytes);

// The optional features' bits that have a member of Header each, as a header has them.
uint64_t OptionalFeatures(const Header& header);

}  // namespace addcow

#endif  // ADDCOW_COMMON_FORMAT_HEADER_RULES_H
