// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a picture of a disk shows: the disk in parts of one size, and of each part how many
// bytes come from where. It is made of the runs of `map`, so what it costs goes by them
// and by the number of parts, not by the size of the disk.

#ifndef ADDCOW_COMMON_OPS_SUMMARY_H
#define ADDCOW_COMMON_OPS_SUMMARY_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/ops/map.h"

namespace addcow {

// Each byte of the disk is of one kind.
enum class DiskKind : uint8_t {
  kImage,    // data of the image file
  kPartial,  // in a cluster of which the image file has some subclusters and not others
  kBacking,  // data of the backing file, or of what that stands on
  kHole,     // has no storage and reads as zeroes, whoever has it
};
inline constexpr size_t kDiskKinds = 4;

// Bytes of each kind.
struct KindBytes {
  std::array<uint64_t, kDiskKinds> bytes = {};

  uint64_t& operator[](DiskKind kind) { return bytes[static_cast<size_t>(kind)]; }
  uint64_t operator[](DiskKind kind) const { return bytes[static_cast<size_t>(kind)]; }
  uint64_t total() const;
  bool operator==(const KindBytes&) const = default;
};

class DiskSummary {
 public:
  // More parts than this are never made; a larger part takes their place.
  static constexpr uint64_t kMostParts = 4096;

  // In bytes. `size`: 1 .. 2^63 - 1. `part_size` is not 0.
  DiskSummary(uint64_t size, uint64_t cluster_size, uint64_t part_size);

  // The entries of a map of the disk, in order, without gaps, to its end.
  void Add(const MapEntry& entry);

  uint64_t size() const { return size_; }
  uint64_t cluster_size() const { return cluster_size_; }
  // All parts have this size but the last, which may be shorter.
  uint64_t part_size() const { return part_size_; }
  const std::vector<KindBytes>& parts() const { return parts_; }
  KindBytes Total() const;

 private:
  // A stretch of the cluster that has been begun.
  struct Piece {
    bool in_image = false;
    DiskKind kind = DiskKind::kHole;
    uint64_t end = 0;
  };

  void AddPiece(const Piece& piece);
  void EndCluster();
  void Count(DiskKind kind, uint64_t start, uint64_t end);

  // Constant after construction.
  const uint64_t size_;
  const uint64_t cluster_size_;
  const uint64_t part_size_;

  std::vector<KindBytes> parts_;
  uint64_t counted_ = 0;  // all before is in parts_
  uint64_t added_ = 0;    // and all before in begun_, which is of one cluster
  std::vector<Piece> begun_;
};

// What is drawn of an image.
struct ImageSummary {
  std::string image_path;
  std::string backing_path;  // or a URI; empty without a backing file
  DiskSummary disk;
};

// Says from the size of the disk in bytes how large a part shall be.
using PartSize = std::function<uint64_t(uint64_t size)>;

// Of the whole disk. Writes nothing. All files must be there.
Result<ImageSummary> SummarizeImage(FileSystem& file_system, ImageSource source, LogSink log,
                                    const PartSize& part_size);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_SUMMARY_H
