// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See map.h. Each stretch is looked for from the top down, image by image, and the file
// that has it is asked whether it is data.

#include "common/ops/map.h"

#include <algorithm>

namespace addcow {

namespace {

using Visit = std::function<bool(const MapEntry&)>;

// What has the bytes of `top` at `offset`, up to `limit` at most.
Result<MapEntry> EntryAt(Image& top, uint64_t offset, uint64_t limit) {
  MapEntry entry{.start = offset, .zero = true};
  Image* image = &top;
  int depth = 0;
  Image::Place place = image->PlaceAt(offset, limit);
  // An image's last sector is whole for what stands on it, and may end after it does.
  while (place.source == Extent::Source::kBacking && image->files().base_image != nullptr &&
         offset < image->files().base_image->virtual_size()) {
    image = image->files().base_image;
    depth++;
    place = image->PlaceAt(offset, std::min(place.end, image->virtual_size()));
  }
  const ImageFiles& files = image->files();
  const bool in_image = place.source == Extent::Source::kImage;
  // And not in a base that has ended.
  const bool in_backing =
      place.source == Extent::Source::kBacking && files.base_image == nullptr;
  entry.length = place.end - offset;
  entry.depth = depth + (in_backing ? 1 : 0);
  if (!in_image && !in_backing) return entry;
  ADDCOW_TRY_ASSIGN(const DataRun run, image->RunAt(offset, place.end));
  entry.length = run.end - offset;
  entry.present = true;
  entry.zero = !run.data;
  entry.data = run.data;
  entry.file = in_image ? &files.image_path : &files.backing_path;
  return entry;
}

bool Alike(const MapEntry& a, const MapEntry& b) {
  return a.depth == b.depth && a.present == b.present && a.data == b.data;
}

}  // namespace

Status MapImage(FileSystem& file_system, ImageSource source, LogSink log, const Visit& visit) {
  source.mode = OpenMode::kReadOnly;
  ADDCOW_TRY_ASSIGN(const auto image, Image::Open(file_system, source, std::move(log)));
  return MapImage(*image, visit);
}

Status MapImage(Image& image, const Visit& visit) {
  const uint64_t size = image.virtual_size();
  ADDCOW_TRY_ASSIGN(MapEntry last, EntryAt(image, 0, size));
  for (uint64_t offset = last.length; offset < size;) {
    ADDCOW_TRY_ASSIGN(const MapEntry entry, EntryAt(image, offset, size));
    offset += entry.length;
    if (Alike(last, entry)) {
      last.length += entry.length;
    } else {
      if (!visit(last)) return {};
      last = entry;
    }
  }
  (void)visit(last);
  return {};
}

}  // namespace addcow
