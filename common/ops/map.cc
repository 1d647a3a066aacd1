// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See map.h.

#include "common/ops/map.h"

namespace addcow {

Status MapImage(FileSystem& file_system, ImageSource source, LogSink log,
                const std::function<bool(const MapEntry&)>& visit) {
  source.mode = OpenMode::kReadOnly;
  ADDCOW_TRY_ASSIGN(auto image, Image::Open(file_system, source, std::move(log)));
  const ImageFiles& files = image->files();
  return image->Map(0, image->virtual_size(), [&](const Extent& extent) {
    MapEntry entry{.start = extent.offset,
                   .length = extent.length,
                   .depth = 0,
                   .present = extent.source != Extent::Source::kNone,
                   .zero = !extent.data,
                   .data = extent.data,
                   .file = nullptr};
    if (extent.source == Extent::Source::kBacking) entry.depth = 1;
    if (entry.present) entry.file = entry.depth == 1 ? &files.backing_path : &files.image_path;
    return visit(entry);
  });
}

}  // namespace addcow
