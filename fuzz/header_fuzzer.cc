// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Fuzzes the header's parser. The input is the beginning of an add-cow file;
// where it is shorter than a header it is tried as it is, and again padded
// with zeroes, so that inputs can be small.
//
// Properties:
//   - A header is accepted if and only if a second, independent reading of
//     docs/format.md accepts it, and with the same fields.
//   - Accepted: writing it out and reading that gives the same header, and
//     what was written obeys the rules by the independent reading too.
//   - Refused: the error is one line, with one of the two codes for headers.
//   - The bytes after the header make no difference.

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/format/header.h"
#include "fuzz/format_rules.h"
#include "fuzz/must.h"

namespace addcow::fuzz {

unsigned long accepted_inputs = 0;

namespace {

// Two names that fill the header to the last byte can be read, but not be
// written by us: the one at the end could be too near to it.
constexpr size_t kNameRoom = 4096 - 80;

void MustAgree(const Header& header, const HeaderFields& fields) {
  FUZZ_MUST(header.image.name == fields.image_name, "the image file's name");
  FUZZ_MUST(header.image.format == "raw", "the image file's format");
  FUZZ_MUST(header.backing.has_value() == fields.has_backing,
            "whether there is a backing file");
  FUZZ_MUST(header.all_allocated == fields.all_allocated, "ALL_ALLOCATED");
  FUZZ_MUST(header.subclusters == fields.subclusters, "SUBCLUSTERS");
  FUZZ_MUST(header.no_subclusters == fields.no_subclusters, "NO_SUBCLUSTERS");
  FUZZ_MUST((header.optional_features & ~kOptionalBackingIdentity) == fields.optional_features,
            "optional features");
  const bool noted = fields.noted_size || fields.noted_seconds;
  FUZZ_MUST(header.backing_identity.has_value() == noted,
            "whether the base's identity is noted");
  if (noted) {
    const BackingIdentity& identity = *header.backing_identity;
    FUZZ_MUST(identity.size == fields.noted_size, "the size that is noted");
    FUZZ_MUST(identity.modified.has_value() == fields.noted_seconds.has_value(),
              "whether a time is noted");
    if (identity.modified)
      FUZZ_MUST(
          *identity.modified == (FileTime{*fields.noted_seconds, fields.noted_nanoseconds}),
          "the time that is noted");
  }
  if (!header.backing) return;
  FUZZ_MUST(header.backing->name == fields.backing_name, "the backing file's name");
  FUZZ_MUST(header.backing->format == fields.backing_format, "the backing file's format");
}

// Changing flags in place is the same as writing the header anew.
void MustFlagInPlace(const Header& header, HeaderBytes bytes, bool all_allocated,
                     bool subclusters) {
  Header wanted = header;
  wanted.all_allocated = all_allocated;
  wanted.subclusters = subclusters;
  const HeaderFlags flags = FlagsOf(wanted);
  std::memcpy(bytes.data() + flags.offset, flags.bytes().data(), flags.bytes().size());
  const auto flagged = ParseHeader(bytes, "x.add-cow");
  FUZZ_MUST_SUCCEED(flagged, "reading it with flags changed in place");
  FUZZ_MUST(*flagged == wanted, "flags changed in place give another header");
}

void MustRoundTrip(const Header& header) {
  const auto written = SerializeHeader(header, "x.add-cow");
  const size_t names =
      header.image.name.size() + (header.backing ? header.backing->name.size() : 0);
  if (!written) {
    MustBeSound(written.error());
    FUZZ_MUST(written.error().code() == ENAMETOOLONG && names >= kNameRoom,
              "a header that was read cannot be written: {}", written.error().Message());
    return;
  }
  const auto again = ParseHeader(*written, "x.add-cow");
  FUZZ_MUST_SUCCEED(again, "reading what was written");
  FUZZ_MUST(*again == header, "the header read back differs");
  const auto fields = ReadByTheRules(*written);
  FUZZ_MUST(fields.has_value(), "what was written breaks a rule");
  MustAgree(header, *fields);

  for (const bool all_allocated : {header.all_allocated, true})
    for (const bool subclusters : {false, true})
      MustFlagInPlace(header, *written, all_allocated, subclusters);
}

void Try(std::span<const std::byte> bytes) {
  const auto header = ParseHeader(bytes, "x.add-cow");
  const auto fields = ReadByTheRules(bytes);
  if (!header) {
    MustBeSound(header.error());
    FUZZ_MUST(!fields, "refused, but by the rules it is sound: {}", header.error().Message());
    FUZZ_MUST(header.error().code() == kErrCorrupt || header.error().code() == kErrUnsupported,
              "the code of: {}", header.error().Message());
    return;
  }
  FUZZ_MUST(fields.has_value(), "accepted, but it breaks a rule");
  accepted_inputs++;
  MustAgree(*header, *fields);
  MustRoundTrip(*header);
}

}  // namespace
}  // namespace addcow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  addcow::fuzz::Try(bytes);
  std::vector<std::byte> padded(bytes.begin(), bytes.end());
  padded.resize(std::max<size_t>(size, 4096));
  if (size < 4096) addcow::fuzz::Try(padded);
  padded.resize(padded.size() + 100, std::byte{0xa5});
  addcow::fuzz::Try(padded);
  return 0;
}
