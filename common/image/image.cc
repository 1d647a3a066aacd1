// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Opening, reading and flushing. Writing is in copy_on_write.cc, extents are
// in extents.cc.

#include "common/image/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace addcow {

Image::Image(ImageFiles files, std::unique_ptr<AllocationBitmap> bitmap, LogSink log,
             const ImageSource& source)
    : files_(std::move(files)),
      layout_(files_.virtual_size),
      backing_(files_.backing.get(), files_.backing_size),
      log_(log ? std::move(log) : [](LogLevel, const std::string&) {}),
      bitmap_(std::move(bitmap)),
      storage_(*files_.add_cow, layout_),
      store_(*files_.add_cow, *bitmap_, layout_),
      partials_(layout_, *bitmap_,
                source.max_partial_clusters.value_or(PartialClusters::kMost)),
      deferral_room_(*files_.image),
      zeroer_(*files_.image),
      cloner_(source.reflink ? files_.backing.get() : nullptr, *files_.image),
      flag_written_(files_.header.all_allocated) {}

Result<std::unique_ptr<Image>> Image::Open(FileSystem& file_system, const ImageSource& source,
                                           LogSink log) {
  ADDCOW_TRY_ASSIGN(ImageFiles files, OpenImageFiles(file_system, source));
  const Layout layout(files.virtual_size);
  ADDCOW_TRY_ASSIGN(auto bitmap,
                    AllocationBitmap::Create(layout.clusters(), files.add_cow_path));
  const bool all_allocated = files.header.all_allocated;
  for (const std::string& note : files.notes)
    if (log) log(LogLevel::kNote, note);
  std::unique_ptr<Image> image(
      new Image(std::move(files), std::move(bitmap), std::move(log), source));
  if (all_allocated)
    image->bitmap_->SetAll();
  else
    ADDCOW_TRY(image->store_.Load());
  if (image->files_.mode == OpenMode::kReadWrite && !image->bitmap_->all()) {
    ADDCOW_TRY(image->storage_.TakeAll());
    ADDCOW_TRY(image->deferral_room_.Start());
  }
  if (const auto& cause = image->files_.not_writable)
    image->log_(LogLevel::kError,
                fmt::format("{}; so the disk is read only", cause->Message()));
  return image;
}

bool Image::writable() const {
  return files_.mode == OpenMode::kReadWrite && !sync_failed_.load(std::memory_order_acquire);
}

// The run of clusters in one state at `offset`, no further than the request.
ClusterRun Image::RunAt(uint64_t offset, uint64_t length) const {
  return bitmap_->RunAt(Layout::Touched(offset, length));
}

// How many bytes of the request at `offset` lie in `run`.
uint64_t Image::BytesOf(ClusterRun run, uint64_t offset, uint64_t length) const {
  return std::min(layout_.End(run.range.end()) - offset, length);
}

// The run at `offset`, and what of it is in the image file although it is not
// allocated.
Image::View Image::ViewAt(uint64_t offset, uint64_t length) const {
  const bool any_partial = partials_.any();
  ClusterRun run = RunAt(offset, length);
  if (run.allocated || !any_partial) return {run, {}};
  ValidSectors valid = partials_.In(run.range);
  // The bits once more: a cluster that has just left the table has its bit set.
  run = bitmap_->RunAt(run.range);
  return {run, std::move(valid)};
}

// Of unallocated clusters.
Status Image::ReadMerged(std::span<std::byte> buffer, uint64_t offset, ValidSectors valid) {
  while (!buffer.empty()) {
    const auto piece = valid.At(offset, offset + buffer.size());
    const auto part = buffer.first(static_cast<size_t>(piece.end - offset));
    ADDCOW_TRY(piece.valid ? files_.image->ReadExactly(part, offset)
                           : backing_.Read(part, offset));
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
    View view = ViewAt(offset, buffer.size());
    const auto part = buffer.first(BytesOf(view.run, offset, buffer.size()));
    // No lock: what gets into the image file meanwhile does so by a write that
    // is in flight together with this read, so either content will do.
    if (view.run.allocated)
      ADDCOW_TRY(files_.image->ReadExactly(part, offset));
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
    const ClusterRun run = RunAt(offset, length);
    const uint64_t part = BytesOf(run, offset, length);
    ADDCOW_TRY(run.allocated ? files_.image->Prefetch(offset, part)
                             : backing_.Prefetch(offset, part));
    offset += part;
    length -= part;
  }
  return {};
}

void Image::SetCrowdedHandler(std::function<void()> handler) {
  MutexLock lock(crowded_mutex_);
  crowded_handler_ = std::move(handler);
}

void Image::CallIfCrowded() {
  if (partials_.crowded()) CallForFlush();
}

void Image::CallForFlush() {
  if (crowded_called_.exchange(true)) return;
  MutexLock lock(crowded_mutex_);
  if (crowded_handler_) crowded_handler_();
}

Error Image::StopWriting(const Error& cause) {
  if (!sync_failed_.exchange(true, std::memory_order_acq_rel))
    log_(LogLevel::kError,
         fmt::format("{}; read only from here on: writes that were not flushed may be lost",
                     cause.Message()));
  return Error::Because(EIO, "", cause.Message());  // which names the file
}

// After a failed sync the kernel may have dropped the pages that it could not
// write, and a later sync would succeed without them: nothing that was
// written since the last good sync can be vouched for any more.
Status Image::SyncOrStop(File& file) {
  return OrStop("flush", [&] { return file.SyncData(); });
}

// A file that somebody truncated has lost what was flushed before. Writing on
// would make it longer again and hide that: lost data would read as zeroes, and
// bits written behind a lost header would make a file that nobody can open.
Status Image::StopIfShorter(File& file, uint64_t size) {
  ADDCOW_TRY_ASSIGN(const uint64_t now, file.Size());
  if (now >= size) return {};
  return Fail(StopWriting(Error::Because(
      EIO, file.name(),
      fmt::format("was truncated while in use: {} bytes, must be at least {}", now, size))));
}

// Steps (a) to (d) of bitmap_store.h, and the flag.
Status Image::PublishBits() {
  // Looked at before (a): if every bit was set by then, all of them are
  // durable after (d).
  const bool all_set = bitmap_->all();
  BitmapStore::PageMap taken = store_.Take();
  if (Status synced = SyncOrStop(*files_.image); !synced) return synced;
  if (!taken.empty()) {
    if (Status written = store_.Write(taken); !written) {
      // Not a sync: it can be tried again, for example when space is freed.
      store_.PutBack(std::move(taken));
      return written;
    }
  }
  if (!taken.empty() || !store_.OldBitsDurable()) ADDCOW_TRY(SyncOrStop(*files_.add_cow));
  store_.Published();
  if (all_set && !flag_written_) {
    Header header = files_.header;
    header.all_allocated = true;
    ADDCOW_TRY(files_.add_cow->Write(SerializeFeatures(header.features()), kFeaturesOffset));
    ADDCOW_TRY(SyncOrStop(*files_.add_cow));
    flag_written_ = true;
  }
  return {};
}

Status Image::Flush() {
  if (files_.mode == OpenMode::kReadOnly) return {};
  // What this flush has to cover had returned before. So did its writes to the
  // files, and any flush that begins from here on syncs them.
  const uint64_t begun = flushes_begun_.load();
  MutexLock lock(flush_mutex_);
  if (last_flushed_ > begun) return {};
  return FlushLocked();
}

Status Image::FlushNewBits() {
  if (files_.mode == OpenMode::kReadOnly) return {};
  MutexLock lock(flush_mutex_);
  return HasNewBits() ? FlushLocked() : Status();
}

// The flag alone, for bits that were found in the file, waits for a write:
// without one the server may be meant to be read only.
bool Image::HasNewBits() {
  return partials_.any() || store_.HasPending() ||
         (bitmap_->all() && !flag_written_ && unflushed_.load(std::memory_order_relaxed));
}

Status Image::FlushLocked() {
  ADDCOW_TRY(CheckWritable("flush", 0, 0));
  const uint64_t number = flushes_begun_.fetch_add(1) + 1;
  ADDCOW_TRY(StopIfShorter(*files_.image, layout_.virtual_size()));
  ADDCOW_TRY(StopIfShorter(*files_.add_cow, kBitmapOffset + layout_.bitmap_bytes()));
  const auto begun = std::chrono::steady_clock::now();
  const uint64_t partial = partials_.count();
  // Where a cluster cannot be filled, the others become durable all the same.
  const Status filled = FillPartialClusters();
  // Not where some stay: each write would call for another flush.
  if (filled) crowded_called_.store(false);
  unflushed_.store(false, std::memory_order_relaxed);
  try {
    Status published = PublishBits();
    if (published) published = filled;
    // What is written out counts: that is most of it.
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    if (published) partials_.Filled(partial, took.count());
    if (published)
      last_flushed_ = number;
    else
      unflushed_.store(true, std::memory_order_relaxed);
    return published;
  } catch (...) {
    // Out of memory on the way: bits that were taken may be forgotten, or a
    // sync's failure. Nothing can be vouched for any more.
    sync_failed_.store(true, std::memory_order_release);
    throw;
  }
}

Status Image::Close() {
  // Bits may wait without a write that succeeded: one that failed half way has
  // allocated clusters before.
  if (!unflushed_.load(std::memory_order_relaxed) && !partials_.any() && !store_.HasPending())
    return {};
  return Flush();
}

}  // namespace addcow
