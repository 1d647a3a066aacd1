// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A second reading of docs/format.md, of both its revisions, that shares no code with
// common/format: what the parser makes of a header is compared with what this makes of
// it. Plain and slow; it says only whether a reader must refuse, not why.

#ifndef ADDCOW_FUZZ_FORMAT_RULES_H
#define ADDCOW_FUZZ_FORMAT_RULES_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace addcow::fuzz {

inline constexpr uint64_t kSubcluster = 4096;
// Of a file that must be refused as much is looked at.
inline constexpr uint64_t kLeastHeaderBytes = 4096;

constexpr uint64_t PartsOf(uint64_t whole, uint64_t part) {
  return whole / part + (whole % part != 0 ? 1 : 0);
}

struct HeaderFields {
  uint64_t revision = 1;
  uint64_t cluster = 65536;      // bytes
  uint64_t header_bytes = 4096;  // what comes before the bitmap
  uint64_t bitmap_unit = 65536;  // what the length of a bitmap is rounded up to
  bool must_be_rounded = false;  // else writers do that, and readers do not insist
  std::string image_name;
  bool has_backing = false;
  std::string backing_name;
  std::string backing_format;
  bool all_allocated = false;
  bool subclusters = false;        // there is a subcluster bitmap
  bool no_subclusters = false;     // and there must not be one in the future
  uint64_t optional_features = 0;  // but for those bits that have members here
  // What the record of the backing file's identity says; absent where there is none
  // that says it. Its bit is among the optional features.
  std::optional<uint64_t> noted_size;
  std::optional<int64_t> noted_seconds;
  uint32_t noted_nanoseconds = 0;
  // Of a sample, whose edges have so many bytes; 0: none is noted.
  uint32_t noted_edge = 0;
  std::string noted_hash;

  bool noted() const { return noted_size || noted_seconds; }
  // The flag may stand for bits that are 0.
  bool flag_suffices() const { return revision == 20 && !has_backing; }

  // Of a disk of so many bytes: its clusters, and where its subcluster bitmap begins and,
  // rounded up, ends.
  uint64_t Clusters(uint64_t disk_size) const { return PartsOf(disk_size, cluster); }
  uint64_t SubclusterPlace(uint64_t disk_size) const {
    return header_bytes + Rounded(PartsOf(Clusters(disk_size), 8));
  }
  uint64_t SubclusterEnd(uint64_t disk_size) const {
    return SubclusterPlace(disk_size) + Rounded(PartsOf(PartsOf(disk_size, kSubcluster), 8));
  }

 private:
  uint64_t Rounded(uint64_t bytes) const { return PartsOf(bytes, bitmap_unit) * bitmap_unit; }
};

// How long the header is that begins so: as long as one with these first bytes would
// have to be.
uint64_t HeaderLengthByTheRules(std::span<const std::byte> file);

// `file` is the beginning of an add-cow file, all of it where it is shorter
// than a header. Nothing: a reader must refuse it.
std::optional<HeaderFields> ReadByTheRules(std::span<const std::byte> file);

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_FORMAT_RULES_H
