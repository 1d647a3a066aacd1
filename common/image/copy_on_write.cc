// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Writing. A request is cut into runs of clusters in one state.
//
//   allocated     written to the image file, no lock: a set bit stays set.
//   unallocated   under the cluster lock: look at the bits again (another
//                 thread may have been here first), put every byte of each
//                 cluster into the image file, then set the bits.
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
#include <memory>

#include "common/base/zero_bytes.h"
#include "common/image/image.h"

namespace addcow {

namespace {

// Zeroes shorter than this are written like data: no file system keeps a
// smaller hole.
constexpr uint64_t kHoleSize = 4096;

// Most bytes copied from the backing file with one read.
constexpr uint64_t kCopySize = kMiB;

// Most clusters locked at once (16 MiB), so that a long request does not keep
// others waiting for all its time.
constexpr uint64_t kMaxLockedClusters = 256;

// As much of a request as is done under one lock. Cut between two clusters:
// a cut inside one would copy up what the next part overwrites.
uint64_t LockablePart(uint64_t offset, uint64_t length) {
  const uint64_t limit = Layout::Start(Layout::ClusterOf(offset) + kMaxLockedClusters);
  return std::min(length, limit - offset);
}

}  // namespace

Status Image::CheckWritable(const char* operation, uint64_t offset, uint64_t length) const {
  if (files_.mode == OpenMode::kReadOnly)
    return Fail(Error::Io(EROFS, operation, files_.image_path, offset, length));
  if (sync_failed_.load(std::memory_order_acquire))
    return Fail(
        Error::Because(EIO, files_.image_path,
                       std::string(operation) +
                           " refused: an earlier sync failed, or a file was truncated, so "
                           "what is on the disk is not known; read only until it is "
                           "opened again"));
  if (!RangeFits(offset, length, virtual_size()))
    return Fail(Error::Io(ENOSPC, operation, files_.image_path, offset, length));
  return {};
}

Status Image::Write(std::span<const std::byte> data, uint64_t offset, Fua fua) {
  ADDCOW_TRY(CheckWritable("write", offset, data.size()));
  while (!data.empty()) {
    const ClusterRun run = RunAt(offset, data.size());
    auto part = data.first(BytesOf(run, offset, data.size()));
    if (run.allocated) {
      ADDCOW_TRY(files_.image->Write(part, offset));
    } else {
      part = part.first(static_cast<size_t>(LockablePart(offset, part.size())));
      ADDCOW_TRY(AllocatingWrite(part, offset));
    }
    offset += part.size();
    data = data.subspan(part.size());
  }
  unflushed_.store(true, std::memory_order_relaxed);
  return fua == Fua::kYes ? Flush() : Status();
}

Status Image::AllocatingWrite(std::span<const std::byte> data, uint64_t offset) {
  const ClusterRangeLock lock(cluster_locks_, Layout::Touched(offset, data.size()));
  while (!data.empty()) {
    const ClusterRun run = RunAt(offset, data.size());
    const auto part = data.first(BytesOf(run, offset, data.size()));
    if (!run.allocated) ADDCOW_TRY(FillAround(offset, part.size()));
    ADDCOW_TRY(files_.image->Write(part, offset));
    if (!run.allocated) store_.Allocate(run.range);
    offset += part.size();
    data = data.subspan(part.size());
  }
  return {};
}

// Makes the image file right in the clusters that [offset, offset + length)
// touches, outside of that range.
Status Image::FillAround(uint64_t offset, uint64_t length) {
  const ClusterRange range = Layout::Touched(offset, length);
  const uint64_t start = Layout::Start(range.first);
  const uint64_t end = layout_.End(range.end());
  ADDCOW_TRY(CopyFromBacking(start, offset - start));
  return CopyFromBacking(offset + length, end - (offset + length));
}

// Copies bytes from the backing file to the same place in the image file;
// what is zero becomes a hole.
Status Image::CopyFromBacking(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  std::unique_ptr<std::byte[]> buffer;
  while (offset < end) {
    ADDCOW_TRY_ASSIGN(const uint64_t data, backing_.FindData(offset, end));
    if (data > offset) ADDCOW_TRY(zeroer_.ZeroUnlessHole(offset, data - offset));
    if (data == end) break;
    ADDCOW_TRY_ASSIGN(const uint64_t hole, backing_.FindHole(data, end));
    if (buffer == nullptr)
      buffer = std::make_unique_for_overwrite<std::byte[]>(
          static_cast<size_t>(std::min(end - data, kCopySize)));
    for (offset = data; offset < hole;) {
      const std::span chunk(buffer.get(),
                            static_cast<size_t>(std::min(hole - offset, kCopySize)));
      ADDCOW_TRY(backing_.Read(chunk, offset));
      ADDCOW_TRY(CopyNonZero(chunk, offset));
      offset += chunk.size();
    }
  }
  return {};
}

// Writes `data` to the image file, but its blocks of zeroes as holes.
Status Image::CopyNonZero(std::span<const std::byte> data, uint64_t offset) {
  const auto block_at = [&](size_t position) {
    const uint64_t to_boundary = kHoleSize - (offset + position) % kHoleSize;
    return data.subspan(position, std::min<size_t>(to_boundary, data.size() - position));
  };
  const auto is_hole = [](std::span<const std::byte> block) {
    return block.size() == kHoleSize && IsZero(block);
  };
  for (size_t start = 0; start < data.size();) {
    const bool hole = is_hole(block_at(start));
    size_t stop = start;
    while (stop < data.size() && is_hole(block_at(stop)) == hole) stop += block_at(stop).size();
    const auto part = data.subspan(start, stop - start);
    ADDCOW_TRY(hole ? zeroer_.ZeroUnlessHole(offset + start, part.size())
                    : files_.image->Write(part, offset + start));
    start = stop;
  }
  return {};
}

Status Image::Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua) {
  ADDCOW_TRY(CheckWritable("zero", offset, length));
  while (length > 0) {
    const ClusterRun run = RunAt(offset, length);
    uint64_t part = BytesOf(run, offset, length);
    if (run.allocated) {
      ADDCOW_TRY(zeroer_.Zero(offset, part, options));
    } else {
      part = LockablePart(offset, part);
      ADDCOW_TRY(AllocatingZero(offset, part, options));
    }
    offset += part;
    length -= part;
  }
  unflushed_.store(true, std::memory_order_relaxed);
  return fua == Fua::kYes ? Flush() : Status();
}

Status Image::AllocatingZero(uint64_t offset, uint64_t length, ZeroOptions options) {
  const ClusterRangeLock lock(cluster_locks_, Layout::Touched(offset, length));
  while (length > 0) {
    const ClusterRun run = RunAt(offset, length);
    const uint64_t part = BytesOf(run, offset, length);
    if (run.allocated)
      ADDCOW_TRY(zeroer_.Zero(offset, part, options));
    else if (options.may_punch)
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
  ADDCOW_TRY(zeroer_.Zero(offset, length, options));
  ADDCOW_TRY(FillAround(offset, length));
  store_.Allocate(Layout::Touched(offset, length));
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

Status Image::CopyUp(ClusterRange range) {
  const uint64_t start = Layout::Start(range.first);
  // Bits past the last cluster would be counted as clusters of the disk.
  if (!RangeFits(range.first, range.count, layout_.clusters()))
    return Fail(
        Error::Io(ENOSPC, "copy up", files_.image_path, start, Layout::Start(range.count)));
  ADDCOW_TRY(CheckWritable("copy up", start, layout_.End(range.end()) - start));
  const ClusterRangeLock lock(cluster_locks_, range);
  while (range.count > 0) {
    const ClusterRun run = bitmap_->RunAt(range);
    if (!run.allocated) {
      const uint64_t offset = Layout::Start(run.range.first);
      ADDCOW_TRY(CopyFromBacking(offset, layout_.End(run.range.end()) - offset));
      store_.Allocate(run.range);
    }
    range = {run.range.end(), range.end() - run.range.end()};
  }
  unflushed_.store(true, std::memory_order_relaxed);
  return {};
}

}  // namespace addcow
