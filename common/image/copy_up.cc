// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See copy_up.h.

#include "common/image/copy_up.h"

#include <algorithm>
#include <memory>

#include "common/base/zero_bytes.h"

namespace addcow {

namespace {

// Zeroes shorter than this are written like data: no file system keeps a
// smaller hole.
constexpr uint64_t kHoleSize = 4096;

// Most bytes copied from the backing file with one read.
constexpr uint64_t kCopySize = kMiB;

// A flush has the disk write whenever it has filled so many clusters (256 KiB).
constexpr uint64_t kWritebackClusters = 4;

}  // namespace

Status CopyUp::FillAround(uint64_t offset, uint64_t length) {
  const ClusterRange range = layout_.Touched(offset, length);
  ADDCOW_TRY(FillInvalid(layout_.Start(range.first), offset));
  return FillInvalid(offset + length, layout_.End(range.end()));
}

// Makes the image file right in [offset, end), in clusters that are not
// allocated. What a partial cluster has there already stays.
Status CopyUp::FillInvalid(uint64_t offset, uint64_t end) {
  if (offset == end) return {};
  ValidSectors valid = allocation_.partials().In(layout_.Touched(offset, end - offset));
  while (offset < end) {
    const auto piece = valid.At(offset, end);
    if (!piece.valid) ADDCOW_TRY(CopyFromBacking(offset, piece.end - offset));
    offset = piece.end;
  }
  return {};
}

// Copies bytes from the backing file to the same place in the image file.
Status CopyUp::CopyFromBacking(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  while (offset < end) {
    ADDCOW_TRY_ASSIGN(const uint64_t data, backing_.FindData(offset, end));
    if (data > offset) ADDCOW_TRY(image_store_.ZeroUnlessHole(offset, data - offset));
    if (data == end) break;
    ADDCOW_TRY_ASSIGN(offset, backing_.FindHole(data, end));
    ADDCOW_TRY(CopyData(data, offset));
  }
  return {};
}

// The same for [offset, end), where the backing file has data.
Status CopyUp::CopyData(uint64_t offset, uint64_t end) {
  while (offset < end) {
    const uint64_t first = RoundUp(offset, File::kCloneAlignment);
    const uint64_t last = RoundDown(end, File::kCloneAlignment);
    if (first >= last || !image_store_.can_clone()) break;
    const StorageRun run = CopyableRun(first, last - first);
    uint64_t stop = first + run.length;
    if (!run.present && image_store_.Clone(first, run.length)) {
      ADDCOW_TRY(CopyBytes(offset, first));
    } else {
      if (stop == last) stop = end;
      ADDCOW_TRY(CopyBytes(offset, stop));
    }
    offset = stop;
  }
  return CopyBytes(offset, end);
}

// What of the range the image file has storage for, or does not, from its
// beginning. Sharing would give that storage back: whoever had it reserved, so
// that writes never find the file system full, would have lost it.
StorageRun CopyUp::CopyableRun(uint64_t offset, uint64_t length) {
  const auto run = files_.image->StorageAt(offset, length);
  if (run) {
    // In whole blocks; what has storage in part of a block has it.
    if (run->present)
      return {true, std::min(RoundUp(run->length, File::kCloneAlignment), length)};
    const uint64_t blocks = RoundDown(run->length, File::kCloneAlignment);
    return blocks > 0 ? StorageRun{false, blocks} : StorageRun{true, File::kCloneAlignment};
  }
  // It cannot be told: whether all of the file has storage tells enough.
  const auto info = files_.image->Info();
  return {!info || info->allocated_bytes >= layout_.virtual_size(), length};
}

Status CopyUp::CopyBytes(uint64_t offset, uint64_t end) {
  if (offset == end) return {};
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(
      static_cast<size_t>(std::min(end - offset, kCopySize)));
  while (offset < end) {
    const std::span chunk(buffer.get(), static_cast<size_t>(std::min(end - offset, kCopySize)));
    ADDCOW_TRY(backing_.Read(chunk, offset));
    ADDCOW_TRY(CopyNonZero(chunk, offset));
    offset += chunk.size();
  }
  return {};
}

// Writes `data` to the image file, but its blocks of zeroes as holes.
Status CopyUp::CopyNonZero(std::span<const std::byte> data, uint64_t offset) {
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
    ADDCOW_TRY(hole ? image_store_.ZeroUnlessHole(offset + start, part.size())
                    : image_store_.Write(part, offset + start));
    start = stop;
  }
  return {};
}

Status CopyUp::Fill(ClusterRange range) {
  if (Status filled = LockAndFill(range); !filled) {
    // What can be had counts: on a file system that fills up, most of the range.
    if (range.count > 1) filled = FillOneByOne(range);
    ADDCOW_TRY(filled);
  }
  return StartWriteback(range);
}

// Has the disk write the range while the caller goes on.
Status CopyUp::StartWriteback(ClusterRange range) {
  const uint64_t start = layout_.Start(range.first);
  return image_store_.StartWriteback(start, layout_.End(range.end()) - start);
}

// Copies up what the range lacks in clusters that are not allocated.
Status CopyUp::LockAndFill(ClusterRange range) {
  const ClusterRangeLock lock(allocation_.locks(), range, ClusterLocks::Kind::kExclusive);
  while (range.count > 0) {
    const ClusterRun run = allocation_.bitmap().RunAt(range);
    if (!run.allocated) {
      ADDCOW_TRY(allocation_.TakeStorage(run.range));
      ADDCOW_TRY(FillInvalid(layout_.Start(run.range.first), layout_.End(run.range.end())));
      allocation_.SetAllocated(run.range);
    }
    range = {run.range.end(), range.end() - run.range.end()};
  }
  return {};
}

Status CopyUp::FillPartialClusters() {
  Status result;
  ClusterRange unwritten = {};  // what was filled lies in it
  uint64_t filled_clusters = 0;
  for (const ClusterRange& run : allocation_.partials().Runs(ClusterLocks::kMaxLocked)) {
    Status filled = LockAndFill(run);
    if (!filled && run.count > 1) filled = FillOneByOne(run);
    if (!filled && result) result = std::move(filled);
    if (filled_clusters == 0) unwritten.first = run.first;
    unwritten.count = run.end() - unwritten.first;
    filled_clusters += run.count;
    if (filled_clusters >= kWritebackClusters) {
      ADDCOW_TRY(StartWriteback(unwritten));
      filled_clusters = 0;
    }
  }
  return result;
}

Status CopyUp::FillOneByOne(ClusterRange range) {
  Status result;
  for (uint64_t cluster = range.first; cluster < range.end(); cluster++) {
    Status filled = LockAndFill({cluster, 1});
    if (!filled && result) result = std::move(filled);
  }
  return result;
}

}  // namespace addcow
