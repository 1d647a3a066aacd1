// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A second reading of docs/format.md that shares no code with common/format:
// what the parser makes of a header is compared with what this makes of it.
// Plain and slow; it says only whether a reader must refuse, not why.

#ifndef ADDCOW_FUZZ_FORMAT_RULES_H
#define ADDCOW_FUZZ_FORMAT_RULES_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace addcow::fuzz {

// What comes before the bitmap.
inline constexpr uint64_t kHeaderBytes = 4096;

inline constexpr uint64_t kCluster = 65536;
inline constexpr uint64_t kSubcluster = 4096;
inline constexpr uint64_t kBitmapUnit = 65536;  // what the length of a bitmap is rounded up to

// Where the subcluster bitmap of a disk of so many bytes begins.
constexpr uint64_t SubclusterPlace(uint64_t disk_size) {
  const uint64_t clusters = disk_size / kCluster + (disk_size % kCluster != 0 ? 1 : 0);
  return kHeaderBytes + ((clusters + 7) / 8 + kBitmapUnit - 1) / kBitmapUnit * kBitmapUnit;
}

struct HeaderFields {
  std::string image_name;
  bool has_backing = false;
  std::string backing_name;
  std::string backing_format;
  bool all_allocated = false;
  bool subclusters = false;        // there is a subcluster bitmap
  bool no_subclusters = false;     // and there must not be one in the future
  uint64_t optional_features = 0;  // but for bits 16 and 17, which have members here
  // What the record of that says; absent where there is none that says it.
  std::optional<uint64_t> noted_size;
  std::optional<int64_t> noted_seconds;
  uint32_t noted_nanoseconds = 0;
};

// `file` is the beginning of an add-cow file, all of it where it is shorter
// than a header. Nothing: a reader must refuse it.
std::optional<HeaderFields> ReadByTheRules(std::span<const std::byte> file);

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_FORMAT_RULES_H
