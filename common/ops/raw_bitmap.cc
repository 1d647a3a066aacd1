// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See raw_bitmap.h.

#include "common/ops/raw_bitmap.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/base/little_endian.h"

namespace addcow {

namespace {

constexpr uint64_t kBufferSize = kMiB;
constexpr uint64_t kWordBytes = sizeof(uint64_t);

// Counts the bits of `clusters`, and those of `subclusters` that count.
Result<BitCounts> Count(File& add_cow, const RawPlaces& places, const Layout& layout,
                        ClusterRange clusters, ClusterRange subclusters) {
  const uint64_t ratio = layout.cluster_size() / kSubclusterSize;
  BitCounts counts;
  RawBitmap first(add_cow, places.clusters);
  for (uint64_t at = clusters.first; at < clusters.end();) {
    ADDCOW_TRY_ASSIGN(const ClusterRun run, first.RunAt({at, clusters.end() - at}));
    if (run.allocated) counts.allocated_clusters += run.range.count;
    at = run.range.end();
  }
  RawBitmap second(add_cow, places.subclusters);
  uint64_t counted = 0;  // clusters before this one are
  for (uint64_t next = subclusters.first; next < subclusters.end();) {
    ADDCOW_TRY_ASSIGN(const ClusterRun run, second.RunAt({next, subclusters.end() - next}));
    uint64_t at = next;
    next = run.range.end();
    while (run.allocated && at < next) {
      const uint64_t cluster = at / ratio;
      ADDCOW_TRY_ASSIGN(const ClusterRun above,
                        first.RunAt({cluster, DivideUp(next, ratio) - cluster}));
      const uint64_t stop = std::min(above.range.end() * ratio, next);
      if (!above.allocated) {
        counts.subclusters += stop - at;
        counts.partial_clusters += above.range.end() - std::max(cluster, counted);
        counted = above.range.end();
      }
      at = stop;
    }
  }
  return counts;
}

}  // namespace

Result<BitmapPlace> WholeRawBitmap(File& add_cow, const Geometry& geometry) {
  ADDCOW_TRY_ASSIGN(const uint64_t size, add_cow.Size());
  BitmapPlace place = Layout(kMaxOffset, geometry).bitmap();
  const uint64_t bytes = size > place.offset ? size - place.offset : 0;
  const BitmapPlace last = Layout(kMaxOffset, geometry).subcluster_bitmap();
  place.bits = 8 * std::min(bytes, last.end() - place.offset);
  return place;
}

Result<RawPlaces> RawPlacesOf(File& add_cow, const Header& header, const Layout& layout) {
  RawPlaces places;
  ADDCOW_TRY_ASSIGN(places.clusters, WholeRawBitmap(add_cow, layout.geometry()));
  if (!header.subclusters) return places;
  const uint64_t bits = places.clusters.bits;
  places.clusters.bits =
      std::min(bits, 8 * (layout.bitmap().padded_end() - layout.bitmap().offset));
  if (header.all_allocated) return places;
  places.subclusters = layout.subcluster_bitmap();
  const uint64_t padded = places.subclusters.padded_end() - places.subclusters.offset;
  places.subclusters.bits = std::min(bits - places.clusters.bits, 8 * padded);
  return places;
}

Result<ClusterRun> RawBitmap::RunAt(ClusterRange range) {
  ADDCOW_TRY(Look(range.first / 8));
  ClusterRun run{.allocated = RunEnd(range.first, false) == range.first,
                 .range = {range.first, 0}};
  for (uint64_t at = range.first; at < range.end();) {
    ADDCOW_TRY(Look(at / 8));
    const uint64_t stop = std::min(RunEnd(at, run.allocated), range.end());
    run.range.count += stop - at;
    at = stop;
    if (at < 8 * end_) break;
  }
  return run;
}

// Has the byte in what is known.
Status RawBitmap::Look(uint64_t byte) {
  if (byte >= start_ && byte < end_) return {};
  if (!settled_) ADDCOW_TRY(holes_.Settle(file_));
  settled_ = true;
  const uint64_t bytes = place_.bytes();
  start_ = end_ = RoundDown(byte, kWordBytes);
  ADDCOW_TRY_ASSIGN(const uint64_t data, holes_.FindData(place_.offset + start_));
  // Whole words: the one in which the data begins is read from its start.
  const uint64_t first = data - place_.offset;
  const uint64_t hole_end = first >= bytes ? bytes : RoundDown(first, kWordBytes);
  hole_ = hole_end > start_;
  if (hole_) {
    end_ = hole_end;
    return {};
  }
  ADDCOW_TRY_ASSIGN(const uint64_t hole, holes_.FindHole(data));
  // It may not move on where the file was truncated underneath.
  const uint64_t data_end = RoundUp(std::max(hole, data + 1) - place_.offset, kWordBytes);
  const uint64_t end = std::min({data_end, bytes, start_ + kBufferSize});
  buffer_.assign(static_cast<size_t>(RoundUp(end - start_, kWordBytes)), std::byte{0});
  ADDCOW_TRY(file_.ReadExactly(std::span(buffer_).first(static_cast<size_t>(end - start_)),
                               place_.offset + start_));
  end_ = end;
  return {};
}

// Of what is known: where the bits from `bit` on that are `set` end.
uint64_t RawBitmap::RunEnd(uint64_t bit, bool set) const {
  const uint64_t end = 8 * end_;
  if (hole_) return set ? bit : end;
  while (bit < end) {
    Le64 bytes;
    std::memcpy(&bytes, buffer_.data() + (bit / 64 * kWordBytes - start_), sizeof bytes);
    const uint64_t other = (set ? ~uint64_t{bytes} : uint64_t{bytes}) >> (bit % 64);
    if (other != 0) return std::min(bit + static_cast<uint64_t>(std::countr_zero(other)), end);
    bit = RoundDown(bit, 64) + 64;
  }
  return end;
}

Status VisitRawBits(File& add_cow, const BitmapPlace& place,
                    const std::function<Status(const ClusterRun&)>& visit) {
  RawBitmap bitmap(add_cow, place);
  for (uint64_t at = 0; at < place.bits;) {
    ADDCOW_TRY_ASSIGN(const ClusterRun run, bitmap.RunAt({at, place.bits - at}));
    ADDCOW_TRY(visit(run));
    at = run.range.end();
  }
  return {};
}

Result<BitCounts> CountRawBits(File& add_cow, const RawPlaces& places, const Layout& layout) {
  return Count(add_cow, places, layout, {0, std::min(layout.clusters(), places.clusters.bits)},
               {0, std::min(layout.subcluster_bitmap().bits, places.subclusters.bits)});
}

Result<BitCounts> CountStrayBits(File& add_cow, const RawPlaces& places, const Layout& layout) {
  const auto past = [](uint64_t inside, const BitmapPlace& place) {
    const uint64_t first = std::min(inside, place.bits);
    return ClusterRange{first, place.bits - first};
  };
  return Count(add_cow, places, layout, past(layout.clusters(), places.clusters),
               past(layout.subcluster_bitmap().bits, places.subclusters));
}

Result<bool> AnyRawBit(File& add_cow, const RawPlaces& places) {
  for (const BitmapPlace& place : {places.clusters, places.subclusters}) {
    if (place.bits == 0) continue;
    ADDCOW_TRY_ASSIGN(const ClusterRun run, RawBitmap(add_cow, place).RunAt({0, place.bits}));
    if (run.allocated || run.range.count < place.bits) return true;
  }
  return false;
}

Status VisitAllocated(File& add_cow, const RawPlaces& places, const Layout& layout,
                      const std::function<Status(ByteRange)>& visit) {
  ByteRange found;
  const auto add = [&](uint64_t start, uint64_t end) -> Status {
    if (found.length > 0 && found.end() != start) {
      ADDCOW_TRY(visit(found));
      found.length = 0;
    }
    if (found.length == 0) found.offset = start;
    found.length = end - found.offset;
    return {};
  };
  RawBitmap clusters(add_cow, places.clusters);
  RawBitmap subclusters(add_cow, places.subclusters);
  for (uint64_t at = 0; at < layout.clusters();) {
    ADDCOW_TRY_ASSIGN(const ClusterRun run, clusters.RunAt({at, layout.clusters() - at}));
    at = run.range.end();
    const uint64_t start = layout.Start(run.range.first);
    const uint64_t end = layout.End(run.range.end());
    if (run.allocated) ADDCOW_TRY(add(start, end));
    if (run.allocated || places.subclusters.bits == 0) continue;
    const uint64_t last = DivideUp(end, kSubclusterSize);
    for (uint64_t sub = start / kSubclusterSize; sub < last;) {
      ADDCOW_TRY_ASSIGN(const ClusterRun part, subclusters.RunAt({sub, last - sub}));
      sub = part.range.end();
      if (part.allocated)
        ADDCOW_TRY(
            add(part.range.first * kSubclusterSize, std::min(sub * kSubclusterSize, end)));
    }
  }
  return found.length > 0 ? visit(found) : Status();
}

Status FillRawBits(File& add_cow, const BitmapPlace& place, ClusterRange range, bool value) {
  const auto fill_in_byte = [&](uint64_t index, uint64_t first, uint64_t end) -> Status {
    std::byte byte;
    ADDCOW_TRY(add_cow.ReadExactly(std::span(&byte, 1), place.offset + index));
    for (uint64_t bit = first; bit < end; bit++) {
      const std::byte mask = std::byte{1} << bit;
      byte = value ? byte | mask : byte & ~mask;
    }
    return add_cow.Write(std::span(&byte, 1), place.offset + index);
  };
  const uint64_t first_byte = range.first / 8;
  const uint64_t last_byte = range.end() / 8;
  if (range.count == 0) return {};
  if (first_byte == last_byte)
    return fill_in_byte(first_byte, range.first % 8, range.end() % 8);
  uint64_t position = first_byte;
  if (range.first % 8 != 0) {
    ADDCOW_TRY(fill_in_byte(position, range.first % 8, 8));
    position++;
  }
  const std::vector<std::byte> buffer(
      static_cast<size_t>(std::min(kBufferSize, last_byte - position)),
      value ? std::byte{0xff} : std::byte{0});
  while (position < last_byte) {
    const auto count =
        static_cast<size_t>(std::min<uint64_t>(buffer.size(), last_byte - position));
    ADDCOW_TRY(add_cow.Write(std::span(buffer).first(count), place.offset + position));
    position += count;
  }
  return range.end() % 8 != 0 ? fill_in_byte(last_byte, 0, range.end() % 8) : Status();
}

Status ClearRawBitsFrom(File& add_cow, const BitmapPlace& place, uint64_t first) {
  RawBitmap bitmap(add_cow, place);
  for (uint64_t at = first; at < place.bits;) {
    ADDCOW_TRY_ASSIGN(const ClusterRun run, bitmap.RunAt({at, place.bits - at}));
    at = run.range.end();
    if (run.allocated) ADDCOW_TRY(FillRawBits(add_cow, place, run.range, false));
  }
  return {};
}

}  // namespace addcow
