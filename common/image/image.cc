// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Opening and reading. Writing is in copy_on_write.cc, extents are in extents.cc.

#include "common/image/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/io/durable_create.h"

namespace addcow {

namespace {

// Reading a range of which pieces are in either file takes so many calls for its pieces
// at most; where there are more, it is read from both.
constexpr int kMostPieces = 8;

// Most bytes of the backing file to be read for such a range at once.
constexpr uint64_t kScratchSize = 64 * kKiB;

}  // namespace

Image::Image(FileSystem& file_system, ImageFiles files, LogSink log, const ImageSource& source)
    : backing_(std::move(files.backing), files.mode == OpenMode::kReadWrite),
      files_(std::move(files)),
      layout_(files_.layout()),
      log_(log ? std::move(log) : [](LogLevel, const std::string&) {}),
      image_store_(files_, source.reflink ? backing_.shared_file() : nullptr),
      allocation_(files_),
      copy_up_(files_, backing_, allocation_, image_store_),
      durability_(file_system, files_, log_, allocation_, image_store_) {}

Result<std::unique_ptr<Image>> Image::Open(FileSystem& file_system, const ImageSource& source,
                                           LogSink log) {
  ImageSource logged = source;
  logged.access.log = log;
  ADDCOW_TRY_ASSIGN(ImageFiles files, OpenImageFiles(file_system, logged));
  return Of(file_system, std::move(files), source, std::move(log));
}

Result<std::unique_ptr<Image>> Image::Of(FileSystem& file_system, ImageFiles files,
                                         const ImageSource& source, LogSink log) {
  for (const std::string& note : files.notes)
    if (log) log(LogLevel::kNote, note);
  // Bits are durable only in a file that has its name after a crash, too.
  if (files.mode == OpenMode::kReadWrite) ADDCOW_TRY(SyncName(file_system, files.add_cow_path));
  std::unique_ptr<Image> image(
      new Image(file_system, std::move(files), std::move(log), source));
  ADDCOW_TRY(image->image_store_.Open());
  ADDCOW_TRY(image->allocation_.Open(source.subclusters));
  if (image->allocation_.place_taken())
    image->log_(LogLevel::kNote,
                Error::Because(0, image->files_.add_cow_path,
                               "holds something past its bitmap, perhaps of a larger disk, so "
                               "it gets no subclusters: small writes copy clusters up")
                    .Message());
  if (const auto& cause = image->files_.not_writable)
    image->log_(LogLevel::kError,
                fmt::format("{}; so the disk is read only", cause->Message()));
  return image;
}

bool Image::writable() const {
  return files_.mode == OpenMode::kReadWrite && !image_store_.stopped();
}

Status Image::Read(std::span<std::byte> buffer, uint64_t offset) {
  if (!RangeFits(offset, buffer.size(), virtual_size()))
    return Fail(
        Error::Io(EINVAL, "read past the end", files_.image_path, offset, buffer.size()));
  while (!buffer.empty()) {
    const ClusterRun run = allocation_.ClustersAt(offset, buffer.size());
    const auto part = buffer.first(static_cast<size_t>(
        std::min<uint64_t>(layout_.End(run.range.end()) - offset, buffer.size())));
    // No lock: what gets into the image file meanwhile does so by a write that
    // is in flight together with this read, so either content will do.
    ADDCOW_TRY(run.allocated ? image_store_.Read(part, offset) : ReadUnallocated(part, offset));
    offset += part.size();
    buffer = buffer.subspan(part.size());
  }
  return {};
}

bool Image::HasManyPieces(uint64_t offset, uint64_t end) const {
  for (int pieces = 0; offset < end; pieces++) {
    if (pieces == kMostPieces) return true;
    offset = allocation_.RunAt(offset, end).end;
  }
  return false;
}

Status Image::ReadUnallocated(std::span<std::byte> buffer, uint64_t offset) {
  const uint64_t end = offset + buffer.size();
  const Backing::Hold hold(backing_);
  if (!hold.there()) return image_store_.Read(buffer, offset);
  if (!allocation_.AnySubcluster(offset, end)) return backing_.Read(buffer, offset);
  if (HasManyPieces(offset, end)) {
    if (Status read = ReadPieces(buffer, offset); read) return read;
    // What cannot be read may lie between the pieces, where nobody asked for it.
  }
  while (!buffer.empty()) {
    const Allocation::Run run = allocation_.RunAt(offset, end);
    const auto part = buffer.first(static_cast<size_t>(run.end - offset));
    ADDCOW_TRY(run.in_image ? image_store_.Read(part, offset) : backing_.Read(part, offset));
    buffer = buffer.subspan(part.size());
    offset = run.end;
  }
  return {};
}

// All of it from the image file, and then over it what the backing file has.
Status Image::ReadPieces(std::span<std::byte> buffer, uint64_t offset) {
  // Looked at once: what is set later was written later than what is read here.
  std::vector<ByteRange> missing;
  const uint64_t end = offset + buffer.size();
  for (uint64_t at = offset; at < end;) {
    const Allocation::Run run = allocation_.RunAt(at, end);
    if (!run.in_image) missing.push_back({at, run.end - at});
    at = run.end;
  }
  ADDCOW_TRY(image_store_.Read(buffer, offset));
  std::vector<std::byte> scratch(
      static_cast<size_t>(std::min<uint64_t>(kScratchSize, buffer.size())));
  auto next = missing.begin();
  for (uint64_t start = offset; start < end && next != missing.end(); start += scratch.size()) {
    const uint64_t stop = std::min<uint64_t>(start + scratch.size(), end);
    if (next->offset >= stop) continue;
    const auto part = std::span(scratch).first(static_cast<size_t>(stop - start));
    ADDCOW_TRY(backing_.Read(part, start));
    for (; next != missing.end() && next->offset < stop; ++next) {
      const uint64_t from = std::max(next->offset, start);
      const uint64_t to = std::min(next->end(), stop);
      std::memcpy(buffer.data() + (from - offset), scratch.data() + (from - start),
                  static_cast<size_t>(to - from));
      if (next->end() > stop) break;
    }
  }
  return {};
}

Status Image::Prefetch(uint64_t offset, uint64_t length) {
  if (!RangeFits(offset, length, virtual_size()))
    return Fail(Error::Io(EINVAL, "cache past the end", files_.image_path, offset, length));
  const uint64_t end = offset + length;
  const Backing::Hold hold(backing_);
  if (HasManyPieces(offset, end)) {
    ADDCOW_TRY(image_store_.Prefetch(offset, length));
    return backing_.Prefetch(offset, length);
  }
  while (offset < end) {
    const Allocation::Run run = allocation_.RunAt(offset, end);
    ADDCOW_TRY(run.in_image ? image_store_.Prefetch(offset, run.end - offset)
                            : backing_.Prefetch(offset, run.end - offset));
    offset = run.end;
  }
  return {};
}

Status Image::Flush(FlushFor whom) {
  return files_.mode == OpenMode::kReadOnly ? Status() : durability_.Flush(whom);
}

bool Image::LetBackingGo() {
  if (!durability_.all_allocated() || !backing_.LetGo()) return false;
  log_(LogLevel::kNote,
       Error::Because(0, files_.add_cow_path,
                      fmt::format("all of the disk is in {} now; the backing file is not "
                                  "needed any more, and was let go",
                                  files_.image_path))
           .Message());
  return true;
}

Status Image::Close() {
  return files_.mode == OpenMode::kReadOnly ? Status() : durability_.Close();
}

ImageCounts Image::Counts() {
  using Of = ImageStore::Count;
  return {.allocation = allocation_.Counts(),
          .read_image = image_store_.Sum(Of::kRead),
          .read_backing = backing_.read_from_source(),
          .read_nowhere = backing_.read_as_zeroes(),
          .written_image = image_store_.Sum(Of::kWritten),
          .written_add_cow = allocation_.written() + durability_.flags_written(),
          .zeroed_image = image_store_.Sum(Of::kZeroed),
          .cloned_image = image_store_.Sum(Of::kCloned),
          .flushes_shared = durability_.flushes_shared(),
          .flush_errors = durability_.flush_errors(),
          .flushes = durability_.flushes(),
          .source = backing_.source_counts()};
}

Status Image::FlushNewBits() {
  return files_.mode == OpenMode::kReadOnly ? Status() : durability_.FlushNewBits();
}

}  // namespace addcow
