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

// As much of a request as is done under one lock. Cut
// between two clusters: a cut inside one would copy up what the next part
// overwrites.
uint64_t LockablePart(const Layout& layout, uint64_t offset, uint64_t length) {
  const uint64_t limit = layout.Start(layout.ClusterOf(offset) + ClusterLocks::kMaxLocked);
  return std::min(length, limit - offset);
}

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
    const ClusterRun run = allocation_.RunAt(offset, data.size());
    auto part = data.first(allocation_.BytesOf(run, offset, data.size()));
    if (run.allocated) {
      ADDCOW_TRY(image_store_.Write(part, offset));
    } else {
      part = part.first(static_cast<size_t>(LockablePart(layout_, offset, part.size())));
      ADDCOW_TRY(allocation_.TakeStorage(layout_.Touched(offset, part.size())));
      ADDCOW_TRY(allocation_.CanDefer(offset, part.size()) ? DeferringWrite(part, offset)
                                                           : AllocatingWrite(part, offset));
    }
    offset += part.size();
    data = data.subspan(part.size());
  }
  return {};
}

Status Image::Write(std::span<const std::byte> data, uint64_t offset, Fua fua) {
  ADDCOW_TRY(CheckWritable("write", offset, data.size()));
  if (fua == Fua::kYes) {
    const auto write = [&] { return WriteRuns(data, offset); };
    return durability_.WriteDurably(data, offset, std::ref(write));
  }
  ADDCOW_TRY(WriteRuns(data, offset));
  durability_.Unflushed();
  return {};
}

Status Image::DeferringWrite(std::span<const std::byte> data, uint64_t offset) {
  {
    const ClusterRangeLock lock(allocation_.locks(), layout_.Touched(offset, data.size()),
                                ClusterLocks::Kind::kShared);
    ADDCOW_TRY(image_store_.Write(data, offset));
    allocation_.NoteWritten(offset, data.size());
  }
  allocation_.CallIfCrowded();
  return {};
}

Status Image::AllocatingWrite(std::span<const std::byte> data, uint64_t offset) {
  const ClusterRangeLock lock(allocation_.locks(), layout_.Touched(offset, data.size()),
                              ClusterLocks::Kind::kExclusive);
  while (!data.empty()) {
    const ClusterRun run = allocation_.RunAt(offset, data.size());
    const auto part = data.first(allocation_.BytesOf(run, offset, data.size()));
    if (!run.allocated) ADDCOW_TRY(copy_up_.FillAround(offset, part.size()));
    ADDCOW_TRY(image_store_.Write(part, offset));
    if (!run.allocated) allocation_.SetAllocated(run.range);
    offset += part.size();
    data = data.subspan(part.size());
  }
  return {};
}

Status Image::Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua) {
  ADDCOW_TRY(CheckWritable("zero", offset, length));
  while (length > 0) {
    const ClusterRun run = allocation_.RunAt(offset, length);
    uint64_t part = allocation_.BytesOf(run, offset, length);
    if (run.allocated) {
      ADDCOW_TRY(image_store_.Zero(offset, part, options));
    } else {
      part = LockablePart(layout_, offset, part);
      ADDCOW_TRY(AllocatingZero(offset, part, options));
    }
    offset += part;
    length -= part;
  }
  durability_.Unflushed();
  return fua == Fua::kYes ? Flush() : Status();
}

Status Image::AllocatingZero(uint64_t offset, uint64_t length, ZeroOptions options) {
  const ClusterRangeLock lock(allocation_.locks(), layout_.Touched(offset, length),
                              ClusterLocks::Kind::kExclusive);
  while (length > 0) {
    ClusterRun run = allocation_.RunAt(offset, length);
    // What a partial cluster reads as is not what the backing file has there.
    const PartialClusters::Run partials = allocation_.partials().RunAt(run.range);
    if (!run.allocated) run.range = partials.range;
    const uint64_t part = allocation_.BytesOf(run, offset, length);
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
  ADDCOW_TRY(allocation_.TakeStorage(layout_.Touched(offset, length)));
  ADDCOW_TRY(image_store_.Zero(offset, length, options));
  ADDCOW_TRY(copy_up_.FillAround(offset, length));
  allocation_.SetAllocated(layout_.Touched(offset, length));
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
    const ClusterRange filled = layout_.Touched(data, hole - data);
    const uint64_t start = std::max(offset, layout_.Start(filled.first));
    const uint64_t stop = std::min(end, layout_.End(filled.end()));
    ADDCOW_TRY(ZeroAndAllocate(start, stop - start, options));
    offset = stop;
  }
  return {};
}

Status Image::CopyUp(ClusterRange range) {
  const uint64_t start = layout_.Start(range.first);
  // Bits past the last cluster would be counted as clusters of the disk.
  if (!RangeFits(range.first, range.count, layout_.clusters()))
    return Fail(
        Error::Io(ENOSPC, "copy up", files_.image_path, start, layout_.Start(range.count)));
  ADDCOW_TRY(CheckWritable("copy up", start, layout_.End(range.end()) - start));
  ADDCOW_TRY(copy_up_.Fill(range));
  durability_.Unflushed();
  return {};
}

}  // namespace addcow
