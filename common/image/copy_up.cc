// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See copy_up.h.

#include "common/image/copy_up.h"

#include <algorithm>
#include <utility>

#include "common/base/zero_bytes.h"

namespace addcow {

namespace {

// Zeroes shorter than this are written like data: no file system keeps a
// smaller hole.
constexpr uint64_t kHoleSize = 4096;

// Most bytes that are copied with one claim, where they are not one cluster.
constexpr uint64_t kChunkSize = kMiB;

// What is read at once of a source that reads several pieces at a time.
constexpr uint64_t kPieceSize = 256 * kKiB;

}  // namespace

Result<CopyUp::Edge> CopyUp::ReadEdge(uint64_t offset, uint64_t end) const {
  Edge edge{offset, {}};
  if (offset >= end) return edge;
  const Backing::Hold hold(backing_);
  // Seen in the image file, it stays there.
  const Allocation::Run run = allocation_.RunAt(offset, end);
  if (run.in_image && run.end == end) return edge;
  edge.bytes.resize(static_cast<size_t>(end - offset));
  ADDCOW_TRY(backing_.Read(edge.bytes, offset));
  return edge;
}

Result<CopyUp::Edges> CopyUp::ReadEdges(uint64_t offset, uint64_t end) const {
  Edges edges;
  ADDCOW_TRY_ASSIGN(edges.head, ReadEdge(allocation_.GrainStart(offset), offset));
  ADDCOW_TRY_ASSIGN(edges.tail, ReadEdge(end, allocation_.GrainEnd(end)));
  return edges;
}

Status CopyUp::WriteEdge(const Edge& edge) { return WriteMissing(edge.bytes, edge.offset); }

// What is not in the image file, where the caller's claim keeps it from getting there.
Status CopyUp::WriteMissing(std::span<const std::byte> data, uint64_t offset) {
  const uint64_t end = offset + data.size();
  while (offset < end) {
    const Allocation::Run run = allocation_.RunAt(offset, end);
    const auto part = data.first(static_cast<size_t>(run.end - offset));
    if (!run.in_image) ADDCOW_TRY(WriteNonZero(part, offset));
    data = data.subspan(part.size());
    offset = run.end;
  }
  return {};
}

// Writes `data` to the image file, but its blocks of zeroes as holes.
Status CopyUp::WriteNonZero(std::span<const std::byte> data, uint64_t offset) {
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

Status CopyUp::Keep(std::span<const std::byte> data, uint64_t offset) {
  const uint64_t chunk = std::max(kChunkSize, layout_.cluster_size());
  while (!data.empty()) {
    const auto part = data.first(
        static_cast<size_t>(std::min(RoundDown(offset, chunk) + chunk - offset, data.size())));
    ADDCOW_TRY(KeepChunk(part, offset));
    offset += part.size();
    data = data.subspan(part.size());
  }
  return {};
}

Status CopyUp::KeepChunk(std::span<const std::byte> data, uint64_t offset) {
  const uint64_t end = offset + data.size();
  const Allocation::Run run = allocation_.RunAt(offset, end);
  if (run.in_image && run.end == end) return {};
  ADDCOW_TRY(allocation_.TakeStorage(offset, end));
  const MutexLock alone(writing_);
  const RangeLock lock(allocation_.locks(), offset, end, RangeLocks::Kind::kExclusive);
  ADDCOW_TRY(WriteMissing(data, offset));
  allocation_.SetInImage(offset, end);
  return {};
}

Status CopyUp::Fill(ClusterRange range, Told& told) {
  const uint64_t start = layout_.Start(range.first);
  const uint64_t end = layout_.End(range.end());
  // What is on its way at once.
  const uint64_t chunk =
      RoundUp(std::max<uint64_t>(kChunkSize, kPieceSize * backing_.pieces_at_once()),
              layout_.cluster_size());
  Status result;
  for (uint64_t offset = start; offset < end; offset += chunk) {
    Status filled = FillChunk(offset, std::min(offset + chunk, end), told);
    // What can be had counts: cluster by cluster, and then the others.
    for (uint64_t at = offset; !filled && at < std::min(offset + chunk, end);
         at += layout_.cluster_size()) {
      Status one = FillChunk(at, std::min(at + layout_.cluster_size(), end), told);
      if (!one && result) result = std::move(one);
    }
  }
  ADDCOW_TRY(result);
  return image_store_.StartWriteback(start, end - start);
}

// Whole clusters, of which some may be allocated.
Status CopyUp::FillChunk(uint64_t offset, uint64_t end, Told& told) {
  // Where it has gone, nothing is missing.
  const Backing::Hold hold(backing_);
  const uint64_t claim = std::max(kChunkSize, layout_.cluster_size());
  bool clone = image_store_.can_clone();
  for (bool done = false; !done;) {
    auto plan = MakePlan(offset, end, clone);
    if (!plan) {
      told.backing_failed = true;
      return Fail(plan.error());
    }
    if (plan->pieces.empty() && allocation_.ClustersAt(offset, end - offset).allocated &&
        layout_.End(allocation_.ClustersAt(offset, end - offset).range.end()) >= end)
      return {};
    done = true;
    for (uint64_t at = offset; at < end; at += claim) {
      const uint64_t stop = std::min(at + claim, end);
      ADDCOW_TRY(allocation_.TakeStorage(at, stop));
      const MutexLock alone(writing_);
      const RangeLock lock(allocation_.locks(), at, stop, RangeLocks::Kind::kExclusive);
      ADDCOW_TRY_ASSIGN(done, CarryOut(*plan, at, stop));
      if (!done) break;
      told.filled += Unallocated(at, stop);
      allocation_.SetInImage(at, stop);
    }
    if (!done) {
      clone = false;  // by reading, then
      continue;
    }
    for (const Piece& piece : plan->pieces)
      if (piece.kind == Piece::Kind::kData) told.data += piece.end - piece.offset;
  }
  return {};
}

// Bytes of the clusters in [offset, end), whole ones, that are not allocated.
uint64_t CopyUp::Unallocated(uint64_t offset, uint64_t end) const {
  uint64_t bytes = 0;
  while (offset < end) {
    const ClusterRun run = allocation_.ClustersAt(offset, end - offset);
    const uint64_t stop = layout_.End(run.range.end());
    if (!run.allocated) bytes += stop - offset;
    offset = stop;
  }
  return bytes;
}

// What is missing, and what the backing file has there.
Result<CopyUp::Plan> CopyUp::MakePlan(uint64_t offset, uint64_t end, bool clone) {
  Plan plan;
  plan.offset = offset;
  for (uint64_t position = offset; position < end;) {
    const Allocation::Run run = allocation_.RunAt(position, end);
    while (!run.in_image && position < run.end) {
      ADDCOW_TRY_ASSIGN(const uint64_t data, backing_.FindData(position, run.end));
      if (data > position) plan.pieces.push_back({Piece::Kind::kHole, position, data});
      if (data == run.end) break;
      ADDCOW_TRY_ASSIGN(position, backing_.FindHole(data, run.end));
      ADDCOW_TRY(PlanData(data, position, clone, plan));
    }
    position = run.end;
  }
  ADDCOW_TRY(ReadData(end, plan));
  return plan;
}

// Where pieces are data.
Status CopyUp::ReadData(uint64_t end, Plan& plan) {
  std::vector<Source::Piece> pieces;
  const bool cut = backing_.pieces_at_once() > 1;
  for (const Piece& piece : plan.pieces) {
    if (piece.kind != Piece::Kind::kData) continue;
    if (plan.bytes == nullptr)
      plan.bytes =
          std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(end - plan.offset));
    for (uint64_t at = piece.offset; at < piece.end;) {
      const uint64_t stop =
          cut ? std::min(RoundDown(at, kPieceSize) + kPieceSize, piece.end) : piece.end;
      pieces.push_back(
          {{plan.bytes.get() + (at - plan.offset), static_cast<size_t>(stop - at)}, at});
      at = stop;
    }
  }
  return pieces.empty() ? Status() : backing_.ReadPieces(pieces, {});
}

// [offset, end), where the backing file has data: what can be shared, and what is read.
Status CopyUp::PlanData(uint64_t offset, uint64_t end, bool clone, Plan& plan) {
  const auto add = [&](Piece::Kind kind, uint64_t from, uint64_t to) {
    if (from < to) plan.pieces.push_back({kind, from, to});
  };
  const uint64_t first = RoundUp(offset, File::kCloneAlignment);
  const uint64_t last = RoundDown(end, File::kCloneAlignment);
  if (!clone || first >= last) {
    add(Piece::Kind::kData, offset, end);
    return {};
  }
  add(Piece::Kind::kData, offset, first);
  for (uint64_t position = first; position < last;) {
    const StorageRun run = CopyableRun(position, last - position);
    add(run.present ? Piece::Kind::kData : Piece::Kind::kClone, position,
        position + run.length);
    position += run.length;
  }
  add(Piece::Kind::kData, last, end);
  return {};
}

// What of the range the image file has storage for, or does not, from its
// beginning. Sharing would give that storage back: whoever had it reserved, so
// that writes never find the file system full, would have lost it.
StorageRun CopyUp::CopyableRun(uint64_t offset, uint64_t length) const {
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

// The part [offset, end) of it, claimed. False: something was to be shared that cannot be.
Result<bool> CopyUp::CarryOut(const Plan& plan, uint64_t offset, uint64_t end) {
  for (const Piece& piece : plan.pieces) {
    const uint64_t piece_end = std::min(piece.end, end);
    for (uint64_t position = std::max(piece.offset, offset); position < piece_end;) {
      const Allocation::Run run = allocation_.RunAt(position, piece_end);
      const uint64_t length = run.end - position;
      if (!run.in_image) {
        switch (piece.kind) {
          case Piece::Kind::kHole:
            ADDCOW_TRY(image_store_.ZeroUnlessHole(position, length));
            break;
          case Piece::Kind::kClone:
            if (!image_store_.Clone(position, length)) return false;
            break;
          case Piece::Kind::kData:
            ADDCOW_TRY(WriteNonZero(
                {plan.bytes.get() + (position - plan.offset), static_cast<size_t>(length)},
                position));
            break;
        }
      }
      position = run.end;
    }
  }
  return true;
}

}  // namespace addcow
