// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See info.h.

#include "common/ops/info.h"

#include <algorithm>

#include "common/image/base.h"
#include "common/ops/raw_bitmap.h"

namespace addcow {

namespace {

Result<BitCounts> CountAllocated(const ImageFiles& files, const Layout& layout) {
  if (files.header.all_allocated) return BitCounts{.allocated_clusters = layout.clusters()};
  ADDCOW_TRY_ASSIGN(const RawPlaces places, RawPlacesOf(*files.add_cow, files.header, layout));
  return CountRawBits(*files.add_cow, places, layout);
}

// Why the image could not be served for its backing file's sake, or what its
// server would say. That the file is not there, or of another format, is
// nothing to say: what is shown is the header.
std::vector<std::string> NotesOnBacking(FileSystem& file_system, ImageSource source) {
  source.want_backing = true;
  const auto files = OpenImageFiles(file_system, source);
  if (files) return files->notes;
  const int code = files.error().code();
  if (code == ENOENT || code == ENOTDIR || code == EACCES || code == kErrUnsupported) return {};
  return {files.error().Message()};
}

Result<ImageInfo> GetInfoNow(FileSystem& file_system, const ImageSource& source) {
  ADDCOW_TRY_ASSIGN(const ImageFiles files, OpenImageFiles(file_system, source));
  const Layout layout = files.layout();
  ADDCOW_TRY_ASSIGN(const FileInfo add_cow, files.add_cow->Info());
  ADDCOW_TRY_ASSIGN(const FileInfo image, files.image->Info());
  ADDCOW_TRY_ASSIGN(const BitCounts counts, CountAllocated(files, layout));
  return ImageInfo{.header = files.header,
                   .image_path = files.image_path,
                   .backing_path = files.backing_path,
                   .virtual_size = files.virtual_size,
                   .actual_size = add_cow.allocated_bytes + image.allocated_bytes,
                   .total_clusters = layout.clusters(),
                   .allocated_clusters = counts.allocated_clusters,
                   .partial_clusters = counts.partial_clusters,
                   .allocated_subclusters = counts.subclusters,
                   .use = UseByOthers(files),
                   .notes = NotesOnBacking(file_system, source)};
}

}  // namespace

std::optional<FileUse> UseByOthers(const ImageFiles& files) {
  const auto add_cow = files.add_cow->UseByOthers();
  const auto image = files.image->UseByOthers();
  if (!add_cow || !image) return std::nullopt;
  return std::max(*add_cow, *image);
}

Result<ImageInfo> GetInfo(FileSystem& file_system, ImageSource source) {
  source.mode = OpenMode::kReadOnly;
  source.want_backing = false;
  source.access.lock = false;
  auto info = GetInfoNow(file_system, source);
  // A server that stops cuts off a subcluster bitmap that is used no more: what was
  // read of the header before does not go together with what is there now.
  if (!info && (info.error().code() == kErrCorrupt || info.error().code() == EIO))
    return GetInfoNow(file_system, source);
  return info;
}

Result<std::vector<ChainLink>> GetChain(FileSystem& file_system, ImageSource source) {
  if (source.access.confine) {
    // That every file is where it may be.
    ImageSource whole = source;
    whole.mode = OpenMode::kReadOnly;
    whole.access.lock = false;
    ADDCOW_TRY(OpenImageFiles(file_system, whole));
  }
  std::vector<ChainLink> chain;
  Above above;
  std::string path = source.add_cow_path;
  std::string format(kAddCowFormat);
  while (!path.empty()) {
    ADDCOW_TRY_ASSIGN(auto file, file_system.Open(path, OpenMode::kReadOnly));
    ADDCOW_TRY(CheckNotAbove(*file, path, above));
    ADDCOW_TRY_ASSIGN(const FileInfo info, file->Info());
    above.files.push_back({.info = info, .path = path, .add_cow = true});
    ChainLink link{.path = path, .format = format, .actual_size = info.allocated_bytes};
    if (format == kRawFormat) {
      ADDCOW_TRY_ASSIGN(link.virtual_size, file->Size());
    }
    path.clear();
    if (format == kAddCowFormat) {
      ADDCOW_TRY_ASSIGN(link.image, GetInfo(file_system, source));
      link.virtual_size = link.image->virtual_size;
      link.actual_size = link.image->actual_size;
      path = link.image->backing_path;
      if (!path.empty()) format = link.image->header.backing->format;
      source = ImageSource{.add_cow_path = path, .access = source.access};
    }
    chain.push_back(std::move(link));
  }
  return chain;
}

}  // namespace addcow
