// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See durability.h.

#include "common/image/durability.h"

#include <fmt/format.h>

namespace addcow {

namespace {

// What writing the flags writes: both, in revision 20 with what is between them.
constexpr uint64_t kFlagsBytes = 16;

// A call that is counted while it is under way.
class InFlight {
 public:
  explicit InFlight(std::atomic<uint64_t>& calls)
      : calls_(calls), alone_(calls.fetch_add(1, std::memory_order_relaxed) == 0) {}
  ~InFlight() { calls_.fetch_sub(1, std::memory_order_relaxed); }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

  // There was no other when this one began. Of two at once one at most is alone.
  bool alone() const { return alone_; }

 private:
  std::atomic<uint64_t>& calls_;
  const bool alone_;
};

}  // namespace

Durability::Durability(FileSystem& file_system, const ImageFiles& files, const LogSink& log,
                       Allocation& allocation, ImageStore& image_store)
    : file_system_(file_system),
      files_(files),
      layout_(files.layout()),
      log_(log),
      allocation_(allocation),
      image_store_(image_store),
      all_allocated_(files.header.all_allocated),
      flags_(files.header) {}

Status Durability::WriteDurably(std::span<const std::byte> data, uint64_t offset,
                                const std::function<Status()>& write) {
  const InFlight fua_write(fua_writes_);
  const bool own_bytes_suffice = !data.empty() && image_store_.can_write_durably() &&
                                 allocation_.IsDurable(offset, offset + data.size());
  if (own_bytes_suffice && fua_write.alone()) {
    ADDCOW_TRY(StopIfFilesAreLost());
    Status written = image_store_.WriteDurably(data, offset);
    if (written) return written;
    Unflushed();  // a part of it may be there
    if (written.error().code() != EOPNOTSUPP) return written;
    // It has just turned out that this file cannot.
  }
  ADDCOW_TRY(write());
  Unflushed();
  Status flushed = Flush(FlushFor::kWriter);
  if (flushed || !own_bytes_suffice || image_store_.stopped()) return flushed;
  // What keeps other writes from the disk is not this one's failure.
  return image_store_.Sync();
}

// Its writes are repeated until a sync has covered them, so it does not matter
// if one of them is told what a sync before it should have been.
Status Durability::SyncAddCow() {
  return image_store_.OrStop([&] { return files_.add_cow->SyncData(); });
}

Status Durability::StopIfFilesAreLost() {
  ADDCOW_TRY(StopIfLost(*files_.image, [&] { return layout_.virtual_size(); }, image_moved_));
  return StopIfLost(*files_.add_cow, [&] { return allocation_.end_of_bits(); }, add_cow_moved_);
}

// A file that somebody truncated has lost what was flushed before. Writing on
// would make it longer again and hide that: lost data would read as zeroes, and
// bits written behind a lost header would make a file that nobody can open. One
// that was removed, or replaced by another under its name, goes with this
// process. One that has another name by now can still be found.
Status Durability::StopIfLost(File& file, const std::function<uint64_t()>& needed,
                              Moved& moved) {
  const auto stop = [&](const std::string& why) {
    return Fail(image_store_.Stop(Error::Because(EIO, file.name(), why)));
  };
  // It may need less by now: a flush beside this has dropped subclusters.
  const uint64_t needed_before = needed();
  ADDCOW_TRY_ASSIGN(const uint64_t now, file.Size());
  if (now < needed_before && now < needed())
    return stop(fmt::format("was truncated while in use: {} bytes, must be at least {}", now,
                            needed()));
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
void Durability::LogIfMoved() {
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

// In one sector, so that a crash leaves the old ones or the new.
Status Durability::WriteFlags(bool all_allocated, bool subclusters) {
  Header header = files_.header;
  header.all_allocated = all_allocated;
  header.subclusters = subclusters;
  ADDCOW_TRY(addcow::WriteFlags(*files_.add_cow, header));
  ADDCOW_TRY(SyncAddCow());
  if (all_allocated) all_allocated_.store(true, std::memory_order_release);
  flags_written_.fetch_add(kFlagsBytes, std::memory_order_relaxed);
  flags_ = std::move(header);
  return {};
}

// Steps (a) to (d) of bitmap_store.h, and the flags. SUBCLUSTERS, and the file's growth
// before it, are durable before the first of these bits is written.
Status Durability::PublishBits(FlushFor whom) {
  // Looked at before (a): if every bit was set by then, all of them are
  // durable after (d).
  const bool all_set = allocation_.clusters().all();
  Allocation::Taken taken = allocation_.Take();
  if (Status synced = image_store_.Sync(); !synced) return synced;
  const auto write = [&]() ADDCOW_REQUIRES(flush_mutex_) -> Status {
    // One that was found may be from a process that was killed before it synced it.
    if (!taken.subclusters.empty() && !(flags_.subclusters && allocation_.OldBitsDurable()))
      ADDCOW_TRY(SyncAddCow());
    if (!taken.subclusters.empty() && !flags_.subclusters)
      ADDCOW_TRY(WriteFlags(flags_.all_allocated, true));
    return taken.empty() ? Status() : allocation_.Write(taken);
  };
  if (Status written = write(); !written) {
    // Where it was no sync, it can be tried again, for example when space is freed.
    allocation_.PutBack(std::move(taken));
    return written;
  }
  if (!taken.empty() || !allocation_.OldBitsDurable()) ADDCOW_TRY(SyncAddCow());
  allocation_.Published();
  if (all_set && (!flags_.all_allocated || flags_.subclusters) && whom == FlushFor::kWriter)
    return DropSubclusters(true);
  return {};
}

// Makes the file one of version 1, with or without ALL_ALLOCATED. No subcluster bit
// counts any more: every cluster that has one is allocated, durably. Without
// ALL_ALLOCATED they are cleared before SUBCLUSTERS is, so that none comes back with
// the next one.
Status Durability::DropSubclusters(bool all_allocated) {
  const bool had = flags_.subclusters;
  if (had && !all_allocated) {
    ADDCOW_TRY(allocation_.ClearSubclusters());
    ADDCOW_TRY(SyncAddCow());
  }
  ADDCOW_TRY(WriteFlags(all_allocated, false));
  const bool grown = allocation_.DropSubclusters();
  // Only its length is wrong where that fails, which nobody minds.
  if (had || grown) (void)files_.add_cow->Truncate(layout_.subcluster_bitmap().offset);
  return {};
}

Status Durability::Flush(FlushFor whom) {
  // What this flush has to cover had returned before. So did its writes to the
  // files, and any flush that begins from here on syncs them.
  const uint64_t begun = flushes_begun_.load();
  Status flushed;
  {
    MutexLock lock(flush_mutex_);
    // Where that was a reader's it has not set the flag, which may wait for this one.
    if (last_flushed_ > begun && !(whom == FlushFor::kWriter && FlagWaits())) {
      flushes_shared_.fetch_add(1, std::memory_order_relaxed);
      return {};
    }
    flushed = FlushLocked(whom);
  }
  LogIfMoved();
  return flushed;
}

Status Durability::FlushNewBits() {
  Status flushed;
  {
    MutexLock lock(flush_mutex_);
    if (HasNewBits()) flushed = FlushLocked(FlushFor::kWriter);
  }
  LogIfMoved();
  return flushed;
}

bool Durability::HasNewBits() { return allocation_.HasPending() || FlagWaits(); }

// The flag alone, for bits that were found in the file, waits for a write:
// without one the server may be meant to be read only.
bool Durability::FlagWaits() const {
  return allocation_.clusters().all() && !flags_.all_allocated &&
         unflushed_.load(std::memory_order_relaxed);
}

Status Durability::FlushLocked(FlushFor whom) {
  const auto start = std::chrono::steady_clock::now();
  Status flushed = FlushOnce(whom);
  flush_times_.Add(std::chrono::steady_clock::now() - start);
  if (!flushed) flush_errors_.fetch_add(1, std::memory_order_relaxed);
  return flushed;
}

Status Durability::FlushOnce(FlushFor whom) {
  if (image_store_.stopped()) return Fail(image_store_.Stopped("flush"));
  const uint64_t number = flushes_begun_.fetch_add(1) + 1;
  ADDCOW_TRY(StopIfFilesAreLost());
  const bool written = unflushed_.exchange(false, std::memory_order_relaxed);
  try {
    Status published = PublishBits(whom);
    // What is left to do is the next one's.
    if (written && allocation_.clusters().all() && !flags_.all_allocated)
      unflushed_.store(true, std::memory_order_relaxed);
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

bool Durability::CanDropSubclusters() {
  MutexLock lock(flush_mutex_);
  return flags_.subclusters && !allocation_.AnyPartial();
}

Status Durability::Close() {
  if (image_store_.stopped()) return Fail(image_store_.Stopped("flush"));
  // Bits may wait without a write that succeeded: one that failed half way has
  // allocated clusters before.
  const bool wrote = unflushed_.load(std::memory_order_relaxed) || allocation_.HasPending();
  if (wrote || (CanDropSubclusters() && !allocation_.OldBitsDurable())) {
    ADDCOW_TRY(Flush(wrote ? FlushFor::kWriter : FlushFor::kReader));
  } else {
    // What was flushed may have gone since.
    if (flushes_begun_.load() == 0) return {};
    ADDCOW_TRY(StopIfFilesAreLost());
    LogIfMoved();
  }
  // In this order: bits that are set, but not on the disk, have just been found to wait.
  if (!CanDropSubclusters() || allocation_.HasPending()) return {};
  const Status dropped = [&] {
    MutexLock lock(flush_mutex_);
    return DropSubclusters(flags_.all_allocated);
  }();
  if (dropped || image_store_.stopped()) return dropped;
  // Nothing is lost.
  log_(LogLevel::kNote,
       dropped.error().WithNote("so the add-cow file keeps its subclusters").Message());
  return {};
}

}  // namespace addcow
