// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Writing. A request is cut into runs of clusters in one state.
//
//   allocated     written to the image file, no lock: a set bit stays set.
//   unallocated   under the cluster lock, shared: written to the image file.
//                 Then the bits of clusters that are covered are set, and the
//                 sectors of the others noted (partial_clusters.h).
//                 Where there is no room to note more, or a write ends inside
//                 a sector, under the lock held alone: look at the bits again
//                 (another thread may have been here first), put every byte of
//                 each cluster into the image file, then set the bits.
//
// Two races that this order excludes; both have lost acknowledged writes in
// other copy-on-write servers:
//
// - Two writes to different parts of one unallocated cluster. Were the copy-up
//   not under the lock, the second one's copy could put the backing file's
//   bytes over what the first one wrote.
// - A write of a whole cluster needs no copy-up, but takes the lock too: a
//   copy-up that has begun would otherwise put old bytes over it.
//
// Whatever the image file holds under a 0 bit is meaningless, old data
// perhaps. So every byte of a cluster is written or zeroed before its bit is
// set; a hole that is there already is as good as zeroes.

#include <algorithm>

#include "common/image/image.h"

namespace addcow {

namespace {

// As much of a request as is done under one lock, of so many clusters. Cut
// between two clusters: a cut inside one would copy up what the next part
// overwrites.
uint64_t LockablePart(uint64_t offset, uint64_t length, uint64_t clusters) {
  const uint64_t limit = Layout::Start(Layout::ClusterOf(offset) + clusters);
  return std::min(length, limit - offset);
}

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

Status Image::CheckWritable(const char* operation, uint64_t offset, uint64_t length) const {
  if (files_.mode == OpenMode::kReadOnly)
    return Fail(Error::Io(EROFS, operation, files_.image_path, offset, length));
  if (image_store_.stopped()) return Fail(image_store_.Stopped(operation));
  if (!RangeFits(offset, length, virtual_size()))
    return Fail(Error::Io(ENOSPC, operation, files_.image_path, offset, length));
  return {};
}

// Inlined for what it costs: a tenth of a write to an allocated cluster.
[[gnu::always_inline]] inline Status Image::WriteRuns(std::span<const std::byte> data,
                                                      uint64_t offset) {
  while (!data.empty()) {
    const ClusterRun run = RunAt(offset, data.size());
    auto part = data.first(BytesOf(run, offset, data.size()));
    if (run.allocated) {
      ADDCOW_TRY(image_store_.Write(part, offset));
    } else {
      part = part.first(
          static_cast<size_t>(LockablePart(offset, part.size(), kMaxLockedClusters)));
      ADDCOW_TRY(storage_.Take(Layout::Touched(offset, part.size())));
      ADDCOW_TRY(CanDefer(offset, part.size()) ? DeferringWrite(part, offset)
                                               : AllocatingWrite(part, offset));
    }
    offset += part.size();
    data = data.subspan(part.size());
  }
  return {};
}

Status Image::Write(std::span<const std::byte> data, uint64_t offset, Fua fua) {
  ADDCOW_TRY(CheckWritable("write", offset, data.size()));
  if (fua == Fua::kYes) return WriteDurably(data, offset);
  ADDCOW_TRY(WriteRuns(data, offset));
  unflushed_.store(true, std::memory_order_relaxed);
  return {};
}

// A write to clusters whose bits are durable need bring no more than its own
// bytes to the disk. Several in flight would each sync for themselves; they share
// flushes, which is faster.
Status Image::WriteDurably(std::span<const std::byte> data, uint64_t offset) {
  const InFlight fua_write(fua_writes_);
  const bool own_bytes_suffice = !data.empty() && image_store_.can_write_durably() &&
                                 store_.IsDurable(Layout::Touched(offset, data.size()));
  if (own_bytes_suffice && fua_write.alone()) {
    ADDCOW_TRY(StopIfFilesAreLost());
    Status written = image_store_.WriteDurably(data, offset);
    if (written) return written;
    unflushed_.store(true, std::memory_order_relaxed);  // a part of it may be there
    if (written.error().code() != EOPNOTSUPP) return written;
    // It has just turned out that this file cannot.
  }
  ADDCOW_TRY(WriteRuns(data, offset));
  unflushed_.store(true, std::memory_order_relaxed);
  Status flushed = Flush();
  if (flushed || !own_bytes_suffice || image_store_.stopped()) return flushed;
  // What keeps other writes from the disk is not this one's failure.
  return image_store_.Sync();
}

// Whether a write to unallocated clusters can do without any copy-up for now.
bool Image::CanDefer(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  const bool room =
      deferral_room_.Has(Layout::Touched(offset, length).count, partials_.count());
  // Those that wait get theirs while there is some.
  if (!room && partials_.any()) CallForFlush();
  const auto partial = [&](uint64_t edge) { return edge % kClusterSize != 0; };
  const auto deferrable = [&](uint64_t edge, uint64_t cluster) {
    return room && edge % kSectorSize == 0 && partials_.HasRoomFor(cluster) &&
           deferral_room_.Reaches(layout_.End(cluster + 1));
  };
  return (!partial(offset) || deferrable(offset, Layout::ClusterOf(offset))) &&
         (!partial(end) || end == virtual_size() || deferrable(end, Layout::ClusterOf(end)));
}

Status Image::DeferringWrite(std::span<const std::byte> data, uint64_t offset) {
  {
    const ClusterRangeLock lock(cluster_locks_, Layout::Touched(offset, data.size()),
                                ClusterLocks::Kind::kShared);
    ADDCOW_TRY(image_store_.Write(data, offset));
    NoteWritten(offset, data.size());
  }
  CallIfCrowded();
  return {};
}

// All these bytes are in the image file, and no copy-up is under way.
void Image::NoteWritten(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  while (offset < end) {
    const uint64_t cluster = Layout::ClusterOf(offset);
    // Of clusters that are covered all at once.
    const uint64_t covered =
        end == virtual_size() ? layout_.clusters() : Layout::ClusterOf(end);
    if (offset % kClusterSize == 0 && covered > cluster) {
      SetAllocated({cluster, covered - cluster});
      offset = layout_.End(covered);
      continue;
    }
    const uint64_t part = std::min(end, layout_.End(cluster + 1)) - offset;
    if (partials_.Add(offset, part)) SetAllocated({cluster, 1});
    offset += part;
  }
}

// Every byte of the clusters is in the image file.
void Image::SetAllocated(ClusterRange range) {
  store_.Allocate(range);
  partials_.Remove(range);  // in this order, see partial_clusters.h
}

Status Image::AllocatingWrite(std::span<const std::byte> data, uint64_t offset) {
  const ClusterRangeLock lock(cluster_locks_, Layout::Touched(offset, data.size()),
                              ClusterLocks::Kind::kExclusive);
  while (!data.empty()) {
    const ClusterRun run = RunAt(offset, data.size());
    const auto part = data.first(BytesOf(run, offset, data.size()));
    if (!run.allocated) ADDCOW_TRY(FillAround(offset, part.size()));
    ADDCOW_TRY(image_store_.Write(part, offset));
    if (!run.allocated) SetAllocated(run.range);
    offset += part.size();
    data = data.subspan(part.size());
  }
  return {};
}

Status Image::Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua) {
  ADDCOW_TRY(CheckWritable("zero", offset, length));
  while (length > 0) {
    const ClusterRun run = RunAt(offset, length);
    uint64_t part = BytesOf(run, offset, length);
    if (run.allocated) {
      ADDCOW_TRY(image_store_.Zero(offset, part, options));
    } else {
      part = LockablePart(offset, part, kMaxLockedClusters);
      ADDCOW_TRY(AllocatingZero(offset, part, options));
    }
    offset += part;
    length -= part;
  }
  unflushed_.store(true, std::memory_order_relaxed);
  return fua == Fua::kYes ? Flush() : Status();
}

Status Image::AllocatingZero(uint64_t offset, uint64_t length, ZeroOptions options) {
  const ClusterRangeLock lock(cluster_locks_, Layout::Touched(offset, length),
                              ClusterLocks::Kind::kExclusive);
  while (length > 0) {
    ClusterRun run = RunAt(offset, length);
    // What a partial cluster reads as is not what the backing file has there.
    const PartialClusters::Run partials = partials_.RunAt(run.range);
    if (!run.allocated) run.range = partials.range;
    const uint64_t part = BytesOf(run, offset, length);
    if (run.allocated)
      ADDCOW_TRY(image_store_.Zero(offset, part, options));
    else if (options.may_punch && !partials.partial)
      ADDCOW_TRY(ZeroWhatBackingFills(offset, part, options));
    else
      ADDCOW_TRY(ZeroAndAllocate(offset, part, options));
    offset += part;
    length -= part;
  }
  return {};
}

// For unallocated clusters, under their lock. The image file is zeroed before
// the bits are set; the other way round, a reader would see old bytes.
Status Image::ZeroAndAllocate(uint64_t offset, uint64_t length, ZeroOptions options) {
  ADDCOW_TRY(storage_.Take(Layout::Touched(offset, length)));
  ADDCOW_TRY(image_store_.Zero(offset, length, options));
  ADDCOW_TRY(FillAround(offset, length));
  SetAllocated(Layout::Touched(offset, length));
  return {};
}

// As ZeroAndAllocate, but leaves clusters unallocated in which the range
// reads as zeroes as it is: holes of the backing file, and past its end.
Status Image::ZeroWhatBackingFills(uint64_t offset, uint64_t length, ZeroOptions options) {
  const uint64_t end = offset + length;
  while (offset < end) {
    ADDCOW_TRY_ASSIGN(const uint64_t data, backing_.FindData(offset, end));
    if (data == end) break;
    ADDCOW_TRY_ASSIGN(const uint64_t hole, backing_.FindHole(data, end));
    const ClusterRange filled = Layout::Touched(data, hole - data);
    const uint64_t start = std::max(offset, Layout::Start(filled.first));
    const uint64_t stop = std::min(end, layout_.End(filled.end()));
    ADDCOW_TRY(ZeroAndAllocate(start, stop - start, options));
    offset = stop;
  }
  return {};
}

}  // namespace addcow
