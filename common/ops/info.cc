// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See info.h.

#include "common/ops/info.h"

#include <algorithm>

#include "common/image/base.h"
#include "common/image/confine.h"
#include "common/ops/raw_bitmap.h"
#include "common/source/nbd_uri.h"
#include "common/source/program.h"
#include "common/source/qemu_chain.h"
#include "common/source/qemu_server.h"

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
  source.mode = OpenMode::kReadOnly;
  source.access.lock = false;
  // Servers may be far, and slow to answer, or not there at all.
  source.access.no_servers = true;
  const auto files = OpenImageFiles(file_system, source);
  if (files) return files->notes;
  const int code = files.error().code();
  if (code == ENOENT || code == ENOTDIR || code == EACCES || code == kErrUnsupported) return {};
  return {files.error().Message()};
}

// Without notes.
Result<ImageInfo> InfoOf(const ImageFiles& files) {
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
                   .use = UseByOthers(files)};
}

Result<ImageInfo> GetInfoNow(FileSystem& file_system, const ImageSource& source) {
  ADDCOW_TRY_ASSIGN(const ImageFiles files, OpenImageFiles(file_system, source));
  return InfoOf(files);
}

Result<ChainLink> LinkOfFile(File& file, const std::string& path, const std::string& format) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, file.Info());
  ChainLink link{.path = path, .format = format, .actual_size = info.allocated_bytes};
  if (format == kRawFormat) {
    ADDCOW_TRY_ASSIGN(link.virtual_size, file.Size());
  }
  return link;
}

// The image of QEMU's at `path`, which is open as `file`, and all that it stands on.
Status AddQemuLinks(FileSystem& file_system, File& file, const std::string& path,
                    const std::string& format, const ImageSource& source,
                    std::vector<ChainLink>& chain) {
  if (!HasProgram("qemu-img")) {
    ADDCOW_TRY_ASSIGN(ChainLink link, LinkOfFile(file, path, format));
    chain.push_back(std::move(link));
    return {};
  }
  ADDCOW_TRY_ASSIGN(const std::string by, QemuPathOf(file_system, file, path));
  ADDCOW_TRY_ASSIGN(const std::string real, RealPathOf(file_system, file, path));
  ADDCOW_TRY_ASSIGN(
      const auto files,
      FilesOfQemuImage(by, format, DirectoryOf(real), source.access.program_limits(),
                       [&](const QemuFile& named) {
                         return source.access.confine
                                    ? CheckConfined(file_system, source.access, named.named_by,
                                                    named.name)
                                    : Status();
                       }));
  for (const QemuFile& found : files) {
    if (found.format.empty()) continue;
    chain.push_back(
        {.path = found.named_by.empty() ? path : found.name, .format = found.format});
    if (found.format == kRawFormat) {
      // It may be no file.
      if (const auto raw = file_system.Open(found.name, OpenMode::kReadOnly)) {
        ADDCOW_TRY_ASSIGN(chain.back(), LinkOfFile(**raw, found.name, found.format));
      }
    } else {
      chain.back().virtual_size = found.virtual_size;
      chain.back().actual_size = found.actual_size;
    }
  }
  return {};
}

Result<std::vector<ChainLink>> GetChainNow(FileSystem& file_system, ImageSource source) {
  std::vector<ChainLink> chain;
  Above above;
  std::string path = source.add_cow_path;
  std::unique_ptr<File> opened;
  for (;;) {
    ADDCOW_TRY_ASSIGN(const ImageFiles files,
                      OpenImageFiles(file_system, source, std::move(opened), above));
    above.images++;
    above.files.insert(above.files.end(), files.chain.begin(), files.chain.end());
    ADDCOW_TRY_ASSIGN(ImageInfo info, InfoOf(files));
    chain.push_back({.path = path,
                     .format = std::string(kAddCowFormat),
                     .virtual_size = info.virtual_size,
                     .actual_size = info.actual_size});
    chain.back().image = std::move(info);
    if (!files.header.backing || files.header.all_allocated) return chain;
    path = files.backing_path;
    if (IsNbdUri(path)) {
      chain.push_back({.path = path, .format = std::string(kRawFormat)});
      return chain;
    }
    ADDCOW_TRY_ASSIGN(opened, OpenBackingFile(file_system, source, files));
    ADDCOW_TRY_ASSIGN(const FileInfo opened_info, opened->Info());
    ADDCOW_TRY(CheckNotAbove(opened_info, path, above));
    const std::string& format = files.header.backing->format;
    if (IsQemuFormat(format)) {
      ADDCOW_TRY(AddQemuLinks(file_system, *opened, path, format, source, chain));
      return chain;
    }
    if (format != kAddCowFormat) {
      ADDCOW_TRY_ASSIGN(ChainLink end, LinkOfFile(*opened, path, format));
      chain.push_back(std::move(end));
      return chain;
    }
    ADDCOW_TRY_ASSIGN(source.add_cow_path, RealPathOf(file_system, *opened, path));
    source.image_path.reset();
    source.backing_path.reset();
    source.remedy_is_rebase = true;
  }
}

// The headers only, of files that a server may have open. One that stops cuts off a
// subcluster bitmap that is used no more: what was read of the header before does not go
// together with what is there now.
template <typename Get>
auto GetUnlocked(ImageSource source, Get get) {
  source.mode = OpenMode::kReadOnly;
  source.want_backing = false;
  source.access.lock = false;
  auto got = get(source);
  if (!got && (got.error().code() == kErrCorrupt || got.error().code() == EIO))
    return get(source);
  return got;
}

}  // namespace

std::optional<FileUse> UseByOthers(const ImageFiles& files) {
  const auto add_cow = files.add_cow->UseByOthers();
  const auto image = files.image->UseByOthers();
  if (!add_cow || !image) return std::nullopt;
  return std::max(*add_cow, *image);
}

Result<ImageInfo> GetOwnInfo(FileSystem& file_system, const ImageSource& source) {
  return GetUnlocked(
      source, [&](const ImageSource& headers) { return GetInfoNow(file_system, headers); });
}

Result<ImageInfo> GetInfo(FileSystem& file_system, ImageSource source) {
  auto info = GetOwnInfo(file_system, source);
  if (info) info->notes = NotesOnBacking(file_system, source);
  return info;
}

Result<std::vector<ChainLink>> GetChain(FileSystem& file_system, ImageSource source) {
  auto chain = GetUnlocked(
      source, [&](const ImageSource& headers) { return GetChainNow(file_system, headers); });
  if (chain) chain->front().image->notes = NotesOnBacking(file_system, source);
  return chain;
}

}  // namespace addcow
