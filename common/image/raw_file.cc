// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See raw_file.h.

#include "common/image/raw_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "common/format/header.h"

namespace addcow {

namespace {

using namespace std::string_view_literals;

// The first bytes of files that are often taken for raw ones.
struct Signature {
  std::string_view bytes;
  const char* format;
};
constexpr std::array kSignatures = {
    Signature{"QFI\xfb"sv, "qcow2"},
    Signature{"KDMV"sv, "vmdk"},
    Signature{"# Disk DescriptorFile"sv, "vmdk"},
    Signature{"vhdxfile"sv, "vhdx"},
    Signature{"LUKS\xba\xbe"sv, "luks"},
};
constexpr size_t kLongestSignature = 21;
static_assert(std::ranges::all_of(kSignatures, [](const Signature& signature) {
  return signature.bytes.size() <= kLongestSignature;
}));

// Empty where it cannot be read.
std::string Beginning(File& file) {
  std::array<char, kLongestSignature> bytes;
  const auto count = file.Read(std::as_writable_bytes(std::span(bytes)), 0);
  return count ? std::string(bytes.data(), *count) : std::string();
}

std::string NoteAbout(const std::string& file, const std::string& text) {
  return Error::Because(0, file, text).Message();  // one line, whatever the name holds
}

}  // namespace

Status CheckReadRaw(File& file, uint64_t size, const std::string& role) {
  if (size == 0)
    return Fail(
        Error::Because(EINVAL, file.name(),
                       fmt::format("the {} is empty, so all of it would read as zeroes "
                                   "(is its device attached, or its file system mounted?)",
                                   role)));
  Status refused = RefuseAddCowFile(file, role);
  if (refused) return refused;
  return Fail(refused.error().WithNote("as one of format add-cow it can (-F add-cow)"));
}

Status RefuseAddCowFile(File& file, const std::string& role) {
  const std::string begins = Beginning(file);
  if (!BeginsAsAddCow(std::as_bytes(std::span(begins)))) return {};
  return Fail(Error::Because(
      EINVAL, file.name(),
      fmt::format("is an add-cow file, so it cannot be used as a raw {}", role)));
}

Note NoteOtherFormat(File& file, const std::string& role) {
  const std::string begins = Beginning(file);
  for (const Signature& signature : kSignatures)
    if (begins.starts_with(signature.bytes))
      return NoteAbout(file.name(),
                       fmt::format("the {} begins as a {} file does, but is read as raw: no "
                                   "other format was said",
                                   role, signature.format));
  return std::nullopt;
}

Note NoteSmallerDisk(const std::string& image, uint64_t virtual_size, uint64_t backing_size) {
  if (virtual_size >= backing_size) return std::nullopt;
  return NoteAbout(image,
                   fmt::format("the disk has {} bytes and its backing file {}: the end is cut "
                               "off, with a partition table's second copy, if there is one",
                               virtual_size, backing_size));
}

}  // namespace addcow
