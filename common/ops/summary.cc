// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See summary.h. That a cluster is allocated in part need not be asked: its bytes then
// are in the image file and not, and of every other cluster they are one or the other.
// So the pieces of a cluster are kept until all of it is known, and clusters that are
// all one run are counted at once, however many.

#include "common/ops/summary.h"

#include <algorithm>
#include <numeric>

namespace addcow {

namespace {

DiskKind KindOf(const MapEntry& entry) {
  if (!entry.data) return DiskKind::kHole;
  return entry.depth == 0 ? DiskKind::kImage : DiskKind::kBacking;
}

}  // namespace

uint64_t KindBytes::total() const {
  return std::accumulate(bytes.begin(), bytes.end(), uint64_t{0});
}

DiskSummary::DiskSummary(uint64_t size, uint64_t cluster_size, uint64_t part_size)
    : size_(size),
      cluster_size_(cluster_size),
      part_size_(std::max(part_size, DivideUp(size, kMostParts))),
      parts_(DivideUp(size, part_size_)) {}

void DiskSummary::Add(const MapEntry& entry) {
  const uint64_t end = entry.start + entry.length;
  Piece piece{.in_image = entry.present && entry.depth == 0, .kind = KindOf(entry)};
  while (added_ < end) {
    // Up to the end of the cluster that has been begun, then whole ones, then the rest.
    piece.end = end;
    if (added_ % cluster_size_ != 0)
      piece.end = std::min(end, added_ - added_ % cluster_size_ + cluster_size_);
    else if (end < size_ && end - added_ > cluster_size_)
      piece.end = RoundDown(end, cluster_size_);
    AddPiece(piece);
  }
}

void DiskSummary::AddPiece(const Piece& piece) {
  begun_.push_back(piece);
  added_ = piece.end;
  if (added_ % cluster_size_ == 0 || added_ == size_) EndCluster();
}

void DiskSummary::EndCluster() {
  const auto differs = [&](const Piece& piece) {
    return piece.in_image != begun_.front().in_image;
  };
  if (std::ranges::any_of(begun_, differs)) {
    Count(DiskKind::kPartial, counted_, added_);
  } else {
    for (const Piece& piece : begun_) Count(piece.kind, counted_, piece.end);
  }
  begun_.clear();
}

void DiskSummary::Count(DiskKind kind, uint64_t start, uint64_t end) {
  counted_ = end;
  for (uint64_t next = 0; start < end; start = next) {
    const uint64_t part = start / part_size_;
    next = std::min(end, (part + 1) * part_size_);
    parts_[part][kind] += next - start;
  }
}

KindBytes DiskSummary::Total() const {
  KindBytes total;
  for (const KindBytes& part : parts_)
    for (size_t i = 0; i < kDiskKinds; i++) total.bytes[i] += part.bytes[i];
  return total;
}

Result<ImageSummary> SummarizeImage(FileSystem& file_system, ImageSource source, LogSink log,
                                    const PartSize& part_size) {
  source.mode = OpenMode::kReadOnly;
  ADDCOW_TRY_ASSIGN(const auto image, Image::Open(file_system, source, std::move(log)));
  const ImageFiles& files = image->files();
  const uint64_t size = image->virtual_size();
  ImageSummary summary{.image_path = files.image_path,
                       .backing_path = files.backing_path,
                       .disk = {size, files.layout().cluster_size(), part_size(size)}};
  ADDCOW_TRY(MapImage(*image, [&](const MapEntry& entry) {
    summary.disk.Add(entry);
    return true;
  }));
  return summary;
}

}  // namespace addcow
