// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Writing. A request is cut into runs of clusters in one state.
//
//   allocated     written to the image file, no claim: a set bit stays set.
//   unallocated   whole grains (subclusters): under a shared claim, written to the
//                 image file; then their bits are set.
//                 Part of a grain: what the backing file has around it is read; then,
//                 under a claim held alone, look at the bits again (another thread may
//                 have been here first), write what is still missing around it, write
//                 the data, set the bits.
//
// Two races that this order excludes; both have lost acknowledged writes in
// other copy-on-write servers:
//
// - Two writes to different parts of one grain. Were what is copied not written under
//   the claim, the second one's copy could put the backing file's bytes over what the
//   first one wrote.
// - A write of a whole grain needs no copy, but takes a claim too: a copy-up that
//   has looked at the bits would otherwise put old bytes over it.
//
// Zeroes and trims go the same way. A trim leaves grains alone that are not in the
// image file and where the backing file has a hole.
//
// Whatever the image file holds under a 0 bit is meaningless, old data
// perhaps. So every byte of a grain is written or zeroed before its bit is set.

#include <algorithm>

#include "common/image/image.h"

namespace addcow {

Status Image::CheckWritable(const char* operation, uint64_t offset, uint64_t length) const {
  if (files_.mode == OpenMode::kReadOnly)
    return Fail(Error::Io(EROFS, operation, files_.image_path, offset, length));
  if (image_store_.stopped()) return Fail(image_store_.Stopped(operation));
  if (!RangeFits(offset, length, virtual_size()))
    return Fail(Error::Io(ENOSPC, operation, files_.image_path, offset, length));
  return {};
}

// After a change of what is allocated. What a client can have wait is bounded.
Status Image::PublishIfFull() { return allocation_.IsFull() ? Flush() : Status(); }

// Inlined for what it costs: a tenth of a write to an allocated cluster.
[[gnu::always_inline]] inline Status Image::WriteRuns(std::span<const std::byte> data,
                                                      uint64_t offset) {
  while (!data.empty()) {
    const ClusterRun run = allocation_.ClustersAt(offset, data.size());
    auto part = data.first(static_cast<size_t>(
        std::min<uint64_t>(layout_.End(run.range.end()) - offset, data.size())));
    if (run.allocated) {
      ADDCOW_TRY(image_store_.Write(part, offset));
    } else {
      part = part.first(static_cast<size_t>(std::min<uint64_t>(
          part.size(), RoundDown(offset, RangeLocks::kMost) + RangeLocks::kMost - offset)));
      ADDCOW_TRY(WriteGrains(part, offset));
      ADDCOW_TRY(PublishIfFull());
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

// To clusters that are not allocated, or were not a moment ago.
Status Image::WriteGrains(std::span<const std::byte> data, uint64_t offset) {
  const uint64_t end = offset + data.size();
  const uint64_t start = allocation_.GrainStart(offset);
  const uint64_t stop = allocation_.GrainEnd(end);
  ADDCOW_TRY(allocation_.TakeStorage(start, stop));
  if (start != offset || stop != end) return WriteWithEdges(data, offset);
  const RangeLock lock(allocation_.locks(), offset, end, RangeLocks::Kind::kShared);
  ADDCOW_TRY(image_store_.Write(data, offset));
  allocation_.SetInImage(offset, end);
  return {};
}

Status Image::WriteWithEdges(std::span<const std::byte> data, uint64_t offset) {
  const uint64_t end = offset + data.size();
  const uint64_t start = allocation_.GrainStart(offset);
  const uint64_t stop = allocation_.GrainEnd(end);
  ADDCOW_TRY_ASSIGN(const CopyUp::Edges edges, copy_up_.ReadEdges(offset, end));
  const RangeLock lock(allocation_.locks(), start, stop, RangeLocks::Kind::kExclusive);
  ADDCOW_TRY(copy_up_.WriteEdge(edges.head));
  ADDCOW_TRY(image_store_.Write(data, offset));
  ADDCOW_TRY(copy_up_.WriteEdge(edges.tail));
  allocation_.SetInImage(start, stop);
  return {};
}

Status Image::Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua) {
  ADDCOW_TRY(CheckWritable("zero", offset, length));
  const uint64_t end = offset + length;
  while (offset < end) {
    const ClusterRun run = allocation_.ClustersAt(offset, end - offset);
    uint64_t stop = std::min(layout_.End(run.range.end()), end);
    if (run.allocated) {
      ADDCOW_TRY(image_store_.Zero(offset, stop - offset, options));
    } else {
      stop = std::min(stop, RoundDown(offset, RangeLocks::kMost) + RangeLocks::kMost);
      ADDCOW_TRY(ZeroUnallocated(offset, stop, options));
      ADDCOW_TRY(PublishIfFull());
    }
    offset = stop;
  }
  durability_.Unflushed();
  return fua == Fua::kYes ? Flush() : Status();
}

// Where zeroes have to be in the image file: all of it, or, where storage may be given
// up, only what does not read as zeroes from the backing file; in whole grains, but
// that the range is not left.
Result<std::vector<ByteRange>> Image::WhatBackingFills(uint64_t offset, uint64_t end,
                                                       ZeroOptions options) const {
  std::vector<ByteRange> filled;
  if (!options.may_punch) return std::vector<ByteRange>{{offset, end - offset}};
  const Backing::Hold hold(backing_);
  if (!hold.there()) return filled;  // by now all of it is in the image file
  while (offset < end) {
    ADDCOW_TRY_ASSIGN(const uint64_t data, backing_.FindData(offset, end));
    if (data == end) break;
    ADDCOW_TRY_ASSIGN(const uint64_t hole, backing_.FindHole(data, end));
    const uint64_t start = std::max(offset, allocation_.GrainStart(data));
    offset = std::min(allocation_.GrainEnd(hole), end);
    filled.push_back({start, offset - start});
  }
  return filled;
}

Status Image::ZeroUnallocated(uint64_t offset, uint64_t end, ZeroOptions options) {
  const uint64_t start = allocation_.GrainStart(offset);
  const uint64_t stop = allocation_.GrainEnd(end);
  ADDCOW_TRY_ASSIGN(const auto filled, WhatBackingFills(offset, end, options));
  CopyUp::Edges edges;
  if (!filled.empty()) {
    ADDCOW_TRY_ASSIGN(edges, copy_up_.ReadEdges(filled.front().offset, filled.back().end()));
    for (const ByteRange& range : filled)
      ADDCOW_TRY(allocation_.TakeStorage(allocation_.GrainStart(range.offset),
                                         allocation_.GrainEnd(range.end())));
  }
  const bool whole = start == offset && stop == end;
  const RangeLock lock(allocation_.locks(), start, stop,
                       whole ? RangeLocks::Kind::kShared : RangeLocks::Kind::kExclusive);
  auto next = filled.begin();
  for (uint64_t at = offset; at < end;) {
    const Allocation::Run run = allocation_.RunAt(at, end);
    if (run.in_image) {
      ADDCOW_TRY(image_store_.Zero(at, run.end - at, options));
    } else {
      for (; next != filled.end() && next->offset < run.end; ++next) {
        const uint64_t from = std::max(at, next->offset);
        const uint64_t to = std::min(run.end, next->end());
        if (from < to) ADDCOW_TRY(ZeroMissing({from, to - from}, edges, options));
        if (next->end() > run.end) break;
      }
    }
    at = run.end;
  }
  return {};
}

// The image file is zeroed before the bits are set; the other way round, a reader
// would see old bytes. The range begins and ends where a grain does, or the request.
Status Image::ZeroMissing(ByteRange range, const CopyUp::Edges& edges, ZeroOptions options) {
  const uint64_t start = allocation_.GrainStart(range.offset);
  const uint64_t stop = allocation_.GrainEnd(range.end());
  ADDCOW_TRY(image_store_.Zero(range.offset, range.length, options));
  if (start != range.offset) ADDCOW_TRY(copy_up_.WriteEdge(edges.head));
  if (stop != range.end()) ADDCOW_TRY(copy_up_.WriteEdge(edges.tail));
  allocation_.SetInImage(start, stop);
  return {};
}

Status Image::CopyUp(ClusterRange range, addcow::CopyUp::Told* told) {
  const uint64_t start = layout_.Start(range.first);
  // Bits past the last cluster would be counted as clusters of the disk.
  if (!RangeFits(range.first, range.count, layout_.clusters()))
    return Fail(
        Error::Io(ENOSPC, "copy up", files_.image_path, start, layout_.Start(range.count)));
  ADDCOW_TRY(CheckWritable("copy up", start, layout_.End(range.end()) - start));
  addcow::CopyUp::Told nobody_asks;
  ADDCOW_TRY(copy_up_.Fill(range, told != nullptr ? *told : nobody_asks));
  durability_.Unflushed();
  return PublishIfFull();
}

Status Image::Keep(std::span<const std::byte> data, uint64_t offset) {
  ADDCOW_TRY(CheckWritable("keep", offset, data.size()));
  ADDCOW_TRY(copy_up_.Keep(data, offset));
  durability_.Unflushed();
  return PublishIfFull();
}

}  // namespace addcow
