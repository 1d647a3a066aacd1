// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Opening, reading and flushing. Writing is in copy_on_write.cc, extents are
// in extents.cc.

#include "common/image/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace addcow {

Image::Image(FileSystem& file_system, ImageFiles files,
             std::unique_ptr<AllocationBitmap> bitmap, LogSink log, const ImageSource& source)
    : file_system_(file_system),
      files_(std::move(files)),
      layout_(files_.virtual_size),
      backing_(files_.backing.get(), files_.backing_size),
      log_(log ? std::move(log) : [](LogLevel, const std::string&) {}),
      bitmap_(std::move(bitmap)),
      storage_(*files_.add_cow, layout_),
      store_(*files_.add_cow, *bitmap_, layout_),
      partials_(layout_, *bitmap_,
                source.max_partial_clusters.value_or(PartialClusters::kMost)),
      deferral_room_(*files_.image),
      image_store_(files_, source.reflink),
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
      new Image(file_system, std::move(files), std::move(bitmap), std::move(log), source));
  ADDCOW_TRY(image->image_store_.Open());
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
  return files_.mode == OpenMode::kReadWrite && !image_store_.stopped();
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
    View view = ViewAt(offset, buffer.size());
    const auto part = buffer.first(BytesOf(view.run, offset, buffer.size()));
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
    const ClusterRun run = RunAt(offset, length);
    const uint64_t part = BytesOf(run, offset, length);
    ADDCOW_TRY(run.allocated ? image_store_.Prefetch(offset, part)
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

// Its writes are repeated until a sync has covered them, so it does not matter
// if one of them is told what a sync before it should have been.
Status Image::SyncAddCow() {
  return image_store_.OrStop([&] { return files_.add_cow->SyncData(); });
}

Status Image::StopIfFilesAreLost() {
  ADDCOW_TRY(StopIfLost(*files_.image, layout_.virtual_size(), image_moved_));
  return StopIfLost(*files_.add_cow, kBitmapOffset + layout_.bitmap_bytes(), add_cow_moved_);
}

// A file that somebody truncated has lost what was flushed before. Writing on
// would make it longer again and hide that: lost data would read as zeroes, and
// bits written behind a lost header would make a file that nobody can open. One
// that was removed, or replaced by another under its name, goes with this
// process. One that has another name by now can still be found.
Status Image::StopIfLost(File& file, uint64_t size, Moved& moved) {
  const auto stop = [&](const std::string& why) {
    return Fail(image_store_.Stop(Error::Because(EIO, file.name(), why)));
  };
  ADDCOW_TRY_ASSIGN(const uint64_t now, file.Size());
  if (now < size)
    return stop(
        fmt::format("was truncated while in use: {} bytes, must be at least {}", now, size));
  ADDCOW_TRY_ASSIGN(const FileInfo info, file.Info());
  if (info.is_block_device) return {};
  const auto there = file_system_.Identify(file.name());
  if (there && there->SameFile(info)) return {};
  if (info.names == 0 || info.hidden)
    return stop(
        fmt::format("was {} while in use: the file in use has no name any more, so nobody can "
                    "open it again (a server goes on reading it: copy the disk from there)",
                    there ? "replaced" : "removed"));
  const bool can_tell = there || there.error().code() == ENOENT ||
                        there.error().code() == ENOTDIR || there.error().code() == ELOOP;
  if (can_tell) moved.to = there ? "another file" : "nothing";
  return {};
}

// Once for each file. Not with a lock held: a log can make its writer wait.
void Image::LogIfMoved() {
  const auto log_if = [&](const std::string& name, Moved& moved) {
    const char* const to = moved.to;
    if (to == nullptr || moved.said.exchange(true)) return;
    const auto message = fmt::format(
        "leads to {} by now: the file that was opened has another name, and goes on "
        "being used",
        to);
    log_(LogLevel::kNote, Error::Because(0, name, message).Message());
  };
  log_if(files_.image->name(), image_moved_);
  log_if(files_.add_cow->name(), add_cow_moved_);
}

// Steps (a) to (d) of bitmap_store.h, and the flag.
Status Image::PublishBits(FlushFor whom) {
  // Looked at before (a): if every bit was set by then, all of them are
  // durable after (d).
  const bool all_set = bitmap_->all();
  BitmapStore::PageMap taken = store_.Take();
  if (Status synced = image_store_.Sync(); !synced) return synced;
  if (!taken.empty()) {
    if (Status written = store_.Write(taken); !written) {
      // Not a sync: it can be tried again, for example when space is freed.
      store_.PutBack(std::move(taken));
      return written;
    }
  }
  if (!taken.empty() || !store_.OldBitsDurable()) ADDCOW_TRY(SyncAddCow());
  store_.Published();
  if (all_set && !flag_written_ && whom == FlushFor::kWriter) {
    Header header = files_.header;
    header.all_allocated = true;
    ADDCOW_TRY(files_.add_cow->Write(SerializeFeatures(header.features()), kFeaturesOffset));
    ADDCOW_TRY(SyncAddCow());
    flag_written_ = true;
  }
  return {};
}

Status Image::Flush(FlushFor whom) {
  if (files_.mode == OpenMode::kReadOnly) return {};
  // What this flush has to cover had returned before. So did its writes to the
  // files, and any flush that begins from here on syncs them.
  const uint64_t begun = flushes_begun_.load();
  Status flushed;
  {
    MutexLock lock(flush_mutex_);
    if (last_flushed_ > begun) return {};
    flushed = FlushLocked(whom);
  }
  LogIfMoved();
  return flushed;
}

Status Image::FlushNewBits() {
  if (files_.mode == OpenMode::kReadOnly) return {};
  Status flushed;
  {
    MutexLock lock(flush_mutex_);
    if (HasNewBits()) flushed = FlushLocked(FlushFor::kWriter);
  }
  LogIfMoved();
  return flushed;
}

// The flag alone, for bits that were found in the file, waits for a write:
// without one the server may be meant to be read only.
bool Image::HasNewBits() {
  return partials_.any() || store_.HasPending() ||
         (bitmap_->all() && !flag_written_ && unflushed_.load(std::memory_order_relaxed));
}

Status Image::FlushLocked(FlushFor whom) {
  ADDCOW_TRY(CheckWritable("flush", 0, 0));
  const uint64_t number = flushes_begun_.fetch_add(1) + 1;
  ADDCOW_TRY(StopIfFilesAreLost());
  const auto begun = std::chrono::steady_clock::now();
  const uint64_t partial = partials_.count();
  // Where a cluster cannot be filled, the others become durable all the same.
  const Status filled = FillPartialClusters();
  if (!filled && image_store_.stopped()) return filled;  // the cause
  // Not where some stay: each write would call for another flush.
  if (filled) crowded_called_.store(false);
  const bool written = unflushed_.exchange(false, std::memory_order_relaxed);
  try {
    Status published = PublishBits(whom);
    if (published) published = filled;
    // What is left to do is the next one's.
    if (written && bitmap_->all() && !flag_written_)
      unflushed_.store(true, std::memory_order_relaxed);
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
    image_store_.StopSilently();
    throw;
  }
}

Status Image::Close() {
  if (image_store_.stopped()) return Fail(image_store_.Stopped("flush"));
  // Bits may wait without a write that succeeded: one that failed half way has
  // allocated clusters before.
  if (unflushed_.load(std::memory_order_relaxed) || partials_.any() || store_.HasPending())
    return Flush();
  // What was flushed may have gone since.
  if (flushes_begun_.load() == 0) return {};
  ADDCOW_TRY(StopIfFilesAreLost());
  LogIfMoved();
  return {};
}

}  // namespace addcow
