// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Opening and reading. Writing is in copy_on_write.cc, extents are in extents.cc.

#include "common/image/image.h"

#include <fmt/format.h>

#include <algorithm>

namespace addcow {

Image::Image(FileSystem& file_system, ImageFiles files,
             std::unique_ptr<AllocationBitmap> bitmap, LogSink log, const ImageSource& source)
    : files_(std::move(files)),
      layout_(files_.layout()),
      backing_(files_.backing.get(), files_.backing_size),
      log_(log ? std::move(log) : [](LogLevel, const std::string&) {}),
      image_store_(files_, source.reflink),
      allocation_(files_, std::move(bitmap), layout_,
                  source.max_partial_clusters.value_or(PartialClusters::kMost)),
      copy_up_(files_, layout_, backing_, allocation_, image_store_),
      durability_(file_system, files_, layout_, log_, allocation_, copy_up_, image_store_) {}

Result<std::unique_ptr<Image>> Image::Open(FileSystem& file_system, const ImageSource& source,
                                           LogSink log) {
  ADDCOW_TRY_ASSIGN(ImageFiles files, OpenImageFiles(file_system, source));
  ADDCOW_TRY_ASSIGN(auto bitmap,
                    AllocationBitmap::Create(files.layout().clusters(), files.add_cow_path));
  for (const std::string& note : files.notes)
    if (log) log(LogLevel::kNote, note);
  std::unique_ptr<Image> image(
      new Image(file_system, std::move(files), std::move(bitmap), std::move(log), source));
  ADDCOW_TRY(image->image_store_.Open());
  ADDCOW_TRY(image->allocation_.Load());
  if (const auto& cause = image->files_.not_writable)
    image->log_(LogLevel::kError,
                fmt::format("{}; so the disk is read only", cause->Message()));
  return image;
}

bool Image::writable() const {
  return files_.mode == OpenMode::kReadWrite && !image_store_.stopped();
}

// Of unallocated clusters.
Status Image::ReadMerged(std::span<std::byte> buffer, uint64_t offset, ValidSectors valid) {
  while (!buffer.empty()) {
    const auto piece = valid.At(offset, offset + buffer.size());
    const auto part = buffer.first(static_cast<size_t>(piece.end - offset));
    ADDCOW_TRY(piece.valid ? image_store_.Read(part, offset) : backing_.Read(part, offset));
    buffer = buffer.subspan(part.size());
    offset = piece.end;
  }
  return {};
}

Status Image::Read(std::span<std::byte> buffer, uint64_t offset) {
  if (!RangeFits(offset, buffer.size(), virtual_size()))
    return Fail(
        Error::Io(EINVAL, "read past the end", files_.image_path, offset, buffer.size()));
  while (!buffer.empty()) {
    Allocation::View view = allocation_.ViewAt(offset, buffer.size());
    const auto part = buffer.first(allocation_.BytesOf(view.run, offset, buffer.size()));
    // No lock: what gets into the image file meanwhile does so by a write that
    // is in flight together with this read, so either content will do.
    if (view.run.allocated)
      ADDCOW_TRY(image_store_.Read(part, offset));
    else if (view.valid.none())
      ADDCOW_TRY(backing_.Read(part, offset));
    else
      ADDCOW_TRY(ReadMerged(part, offset, std::move(view.valid)));
    offset += part.size();
    buffer = buffer.subspan(part.size());
  }
  return {};
}

// Of a partial cluster the backing file is asked for: the rest was written a
// moment ago.
Status Image::Prefetch(uint64_t offset, uint64_t length) {
  if (!RangeFits(offset, length, virtual_size()))
    return Fail(Error::Io(EINVAL, "cache past the end", files_.image_path, offset, length));
  while (length > 0) {
    const ClusterRun run = allocation_.RunAt(offset, length);
    const uint64_t part = allocation_.BytesOf(run, offset, length);
    ADDCOW_TRY(run.allocated ? image_store_.Prefetch(offset, part)
                             : backing_.Prefetch(offset, part));
    offset += part;
    length -= part;
  }
  return {};
}

Status Image::Flush(FlushFor whom) {
  return files_.mode == OpenMode::kReadOnly ? Status() : durability_.Flush(whom);
}

Status Image::FlushNewBits() {
  return files_.mode == OpenMode::kReadOnly ? Status() : durability_.FlushNewBits();
}

}  // namespace addcow
