// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Fuzzes the header's parser, of both revisions. The input is the beginning of an
// add-cow file; where it is shorter than the header it is tried as it is, padded with
// zeroes, and with letters and its own last bytes at the header's end, so that inputs
// can be small and names be anywhere in a header of up to 2 MiB.
//
// Properties:
//   - A header is accepted if and only if a second, independent reading of
//     docs/format.md accepts it, and with the same fields.
//   - Accepted: writing it out and reading that gives the same header, and
//     what was written obeys the rules by the independent reading too. Flags that are
//     changed in place are as if the header had been written anew.
//   - Written as the other revision, or with clusters of another size, it says the
//     same, or there is no room for it.
//   - Refused: the error is one line, with one of the two codes for headers.
//   - The bytes after the header make no difference, nor does it if they are in a file.

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/format/header.h"
#include "fuzz/format_rules.h"
#include "fuzz/must.h"
#include "tests/support/fake_file_system.h"

namespace addcow::fuzz {

AcceptedInputs accepted_inputs;

namespace {

constexpr const char* kPath = "/vm/x.add-cow";
constexpr uint64_t kIdentityBytes = 256;

uint64_t FirstNameByte(Revision revision) { return revision == Revision::kVersion1 ? 80 : 76; }

uint64_t NamesBytes(const Header& header) {
  return header.image.name.size() + (header.backing ? header.backing->name.size() : 0);
}

// Two names that fill the header to the last byte can be read, but not be
// written by us: the one at the end could be too near to it.
bool NamesFit(const Header& header) {
  return FirstNameByte(header.revision) + NamesBytes(header) < header.geometry().header_size;
}

void MustAgree(const Header& header, const HeaderFields& fields) {
  FUZZ_MUST(static_cast<uint64_t>(header.revision) == fields.revision, "the revision");
  FUZZ_MUST(header.cluster_size == fields.cluster, "the cluster size");
  FUZZ_MUST(
      header.geometry() == (Geometry{fields.cluster, fields.header_bytes, fields.bitmap_unit}),
      "where things are");
  FUZZ_MUST(header.must_be_padded() == fields.must_be_rounded, "whether a bitmap is padded");
  FUZZ_MUST(header.flag_suffices() == fields.flag_suffices(), "whether the flag suffices");
  FUZZ_MUST(header.image.name == fields.image_name, "the image file's name");
  FUZZ_MUST(header.image.format == "raw", "the image file's format");
  FUZZ_MUST(header.backing.has_value() == fields.has_backing,
            "whether there is a backing file");
  FUZZ_MUST(header.all_allocated == fields.all_allocated, "ALL_ALLOCATED");
  FUZZ_MUST(header.subclusters == fields.subclusters, "SUBCLUSTERS");
  FUZZ_MUST(header.no_subclusters == fields.no_subclusters, "NO_SUBCLUSTERS");
  const uint64_t identity_bit = header.backing_identity ? kOptionalBackingIdentity : 0;
  FUZZ_MUST((header.optional_features | identity_bit) == fields.optional_features,
            "optional features");
  FUZZ_MUST(header.backing_identity.has_value() == fields.noted(),
            "whether the base's identity is noted");
  if (fields.noted()) {
    const BackingIdentity& identity = *header.backing_identity;
    FUZZ_MUST(identity.size == fields.noted_size, "the size that is noted");
    FUZZ_MUST(identity.modified.has_value() == fields.noted_seconds.has_value(),
              "whether a time is noted");
    if (identity.modified)
      FUZZ_MUST(
          *identity.modified == (FileTime{*fields.noted_seconds, fields.noted_nanoseconds}),
          "the time that is noted");
    FUZZ_MUST(identity.sample.has_value() == (fields.noted_edge != 0),
              "whether a hash is noted");
    if (identity.sample) {
      FUZZ_MUST(identity.sample->edge == fields.noted_edge, "the edges of the sample");
      FUZZ_MUST(std::memcmp(identity.sample->hash.data(), fields.noted_hash.data(), 16) == 0,
                "the hash that is noted");
    }
  }
  if (!header.backing) return;
  FUZZ_MUST(header.backing->name == fields.backing_name, "the backing file's name");
  FUZZ_MUST(header.backing->format == fields.backing_format, "the backing file's format");
}

// Changing flags in place is the same as writing the header anew.
void MustFlagInPlace(const Header& header, HeaderBytes& bytes, bool all_allocated,
                     bool subclusters) {
  Header wanted = header;
  wanted.all_allocated = all_allocated;
  wanted.subclusters = subclusters;
  const HeaderFlags flags = FlagsOf(wanted);
  FUZZ_MUST(flags.offset + flags.bytes().size() <= 512, "the flags are in one sector");
  std::memcpy(bytes.data() + flags.offset, flags.bytes().data(), flags.bytes().size());
  const auto flagged = ParseHeader(bytes, kPath);
  FUZZ_MUST_SUCCEED(flagged, "reading it with flags changed in place");
  FUZZ_MUST(*flagged == wanted, "flags changed in place give another header");
}

void MustRoundTrip(const Header& header) {
  auto written = SerializeHeader(header, kPath);
  if (!written) {
    MustBeSound(written.error());
    FUZZ_MUST(written.error().code() == ENAMETOOLONG && !NamesFit(header),
              "a header that was read cannot be written: {}", written.error().Message());
    return;
  }
  const auto again = ParseHeader(*written, kPath);
  FUZZ_MUST_SUCCEED(again, "reading what was written");
  FUZZ_MUST(*again == header, "the header read back differs");
  const auto fields = ReadByTheRules(*written);
  FUZZ_MUST(fields.has_value(), "what was written breaks a rule");
  MustAgree(header, *fields);

  for (const bool all_allocated : {header.all_allocated, true})
    for (const bool subclusters : {false, header.cluster_size > kSubcluster})
      MustFlagInPlace(header, *written, all_allocated, subclusters);
}

// As the other revision, or with other clusters. What is optional and unknown there means
// nothing here.
void MustChange(const Header& header, Revision revision, uint64_t cluster_size) {
  Header wanted = header;
  wanted.revision = revision;
  wanted.cluster_size = cluster_size;
  wanted.optional_features = 0;
  wanted.subclusters = header.subclusters && cluster_size > kSubcluster;
  const bool identity_fits = FirstNameByte(revision) + NamesBytes(header) + kIdentityBytes <=
                             wanted.geometry().header_size;
  FUZZ_MUST(IdentityFits(wanted) == identity_fits, "whether an identity fits");
  if (!identity_fits) wanted.backing_identity.reset();
  const bool format_fits =
      revision == Revision::kVersion1 || !header.backing || header.backing->format.size() < 16;
  const auto written = SerializeHeader(wanted, kPath);
  FUZZ_MUST(written.has_value() == (format_fits && NamesFit(wanted)), "{}",
            written ? "written, but it does not fit" : written.error().Message());
  if (!written) return MustBeSound(written.error());
  const auto again = ParseHeader(*written, kPath);
  FUZZ_MUST_SUCCEED(again, "reading another revision");
  FUZZ_MUST(*again == wanted, "another revision says something else");
}

// The same from a file.
void MustReadFromAFile(std::span<const std::byte> bytes, const Result<Header>& header) {
  FakeFileSystem files;
  files.Put(kPath, bytes);
  const auto file = files.Open(kPath, OpenMode::kReadOnly);
  FUZZ_MUST_SUCCEED(file, "open");
  const auto again = ReadHeader(**file, kPath);
  FUZZ_MUST(again.has_value() == header.has_value(), "from a file: {}",
            again ? "accepted" : again.error().Message());
  if (again) FUZZ_MUST(*again == *header, "a file's header is another");
  if (!again)
    FUZZ_MUST(again.error().Message() == header.error().Message(), "from a file: {}, not {}",
              again.error().Message(), header.error().Message());
}

void Try(std::span<const std::byte> bytes) {
  const auto header = ParseHeader(bytes, kPath);
  const auto fields = ReadByTheRules(bytes);
  if (!header) {
    MustBeSound(header.error());
    FUZZ_MUST(!fields, "refused, but by the rules it is sound: {}", header.error().Message());
    FUZZ_MUST(header.error().code() == kErrCorrupt || header.error().code() == kErrUnsupported,
              "the code of: {}", header.error().Message());
    return;
  }
  FUZZ_MUST(fields.has_value(), "accepted, but it breaks a rule");
  accepted_inputs.Count(fields->revision);
  MustAgree(*header, *fields);
  MustRoundTrip(*header);
  MustChange(*header, Revision::kVersion1, kClusterSize);
  MustChange(*header, Revision::kAcow, kLeastClusterSize);
  MustChange(*header, Revision::kAcow, kClusterSize);
}

void TryAll(std::span<const std::byte> bytes) {
  const uint64_t length = HeaderLengthByTheRules(bytes);
  Try(bytes);
  MustReadFromAFile(bytes, ParseHeader(bytes, kPath));
  std::vector<std::byte> longer(bytes.begin(), bytes.end());
  longer.resize(std::max<size_t>(bytes.size(), length));
  if (bytes.size() < length) Try(longer);
  longer.resize(longer.size() + 100, std::byte{0xa5});
  Try(longer);
  MustReadFromAFile(longer, ParseHeader(longer, kPath));
  if (bytes.size() >= length) return;
  longer.resize(length);
  std::fill(longer.begin() + static_cast<std::ptrdiff_t>(bytes.size()), longer.end(),
            std::byte{'a'});
  std::ranges::copy(bytes.last(std::min<size_t>(bytes.size(), kIdentityBytes)),
                    longer.end() - static_cast<std::ptrdiff_t>(
                                       std::min<size_t>(bytes.size(), kIdentityBytes)));
  Try(longer);
}

}  // namespace
}  // namespace addcow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  addcow::fuzz::TryAll(std::as_bytes(std::span(data, size)));
  return 0;
}
