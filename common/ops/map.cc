// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See map.h.

#include "common/ops/map.h"

#include <algorithm>

namespace addcow {

namespace {

using Visit = std::function<bool(const MapEntry&)>;

// A part of the disk as `image` has it, on which `depth` others stand. False: the
// visitor wants no more.
Result<bool> MapPart(Image& image, ByteRange range, int depth, const Visit& visit) {
  const ImageFiles& files = image.files();
  bool more = true;
  Status below;
  ADDCOW_TRY(image.Map(range.offset, range.length, [&](const Extent& extent) {
    const bool backing = extent.source == Extent::Source::kBacking;
    MapEntry entry{.start = extent.offset,
                   .length = extent.length,
                   .depth = depth + (backing ? 1 : 0),
                   .present = extent.source != Extent::Source::kNone,
                   .zero = !extent.data,
                   .data = extent.data,
                   .file = backing ? &files.backing_path : &files.image_path};
    if (backing && files.base_image != nullptr) {
      // The last sector is whole here, and may end after the base does.
      const uint64_t size = files.base_image->virtual_size();
      const uint64_t end = std::min(extent.offset + extent.length, size);
      const auto mapped =
          MapPart(*files.base_image, {extent.offset, end - extent.offset}, depth + 1, visit);
      if (!mapped) below = Fail(mapped.error());
      more = mapped && *mapped;
      entry.start = end;
      entry.length = extent.offset + extent.length - end;
      entry.present = false;
      if (entry.length == 0) return more;
    }
    if (!entry.present) {
      entry.depth = 0;
      entry.file = nullptr;
      entry.zero = true;
      entry.data = false;
    }
    more = more && visit(entry);
    return more;
  }));
  ADDCOW_TRY(below);
  return more;
}

}  // namespace

Status MapImage(FileSystem& file_system, ImageSource source, LogSink log, const Visit& visit) {
  source.mode = OpenMode::kReadOnly;
  ADDCOW_TRY_ASSIGN(auto image, Image::Open(file_system, source, std::move(log)));
  ADDCOW_TRY(MapPart(*image, {0, image->virtual_size()}, 0, visit));
  return {};
}

}  // namespace addcow
