// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See raw_bitmap.h.

#include "common/ops/raw_bitmap.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "common/base/little_endian.h"
#include "common/base/zero_bytes.h"
#include "common/io/holes.h"

namespace addcow {

namespace {

constexpr uint64_t kBufferSize = kMiB;
constexpr uint64_t kWordBytes = sizeof(uint64_t);

// Makes runs out of words.
class RunBuilder {
 public:
  explicit RunBuilder(const std::function<Status(const ClusterRun&)>& visit) : visit_(visit) {}

  Status Add(bool set, uint64_t count) {
    if (run_.range.count > 0 && run_.allocated != set) {
      ADDCOW_TRY(visit_(run_));
      run_.range = {run_.range.end(), 0};
    }
    run_.allocated = set;
    run_.range.count += count;
    return {};
  }

  Status AddWord(uint64_t word) {
    for (int position = 0; position < 64;) {
      const uint64_t rest = word >> position;
      const bool set = (rest & 1) != 0;
      const int count =
          std::min(set ? std::countr_one(rest) : std::countr_zero(rest), 64 - position);
      ADDCOW_TRY(Add(set, static_cast<uint64_t>(count)));
      position += count;
    }
    return {};
  }

  Status Finish() { return run_.range.count > 0 ? visit_(run_) : Status(); }

 private:
  const std::function<Status(const ClusterRun&)>& visit_;
  ClusterRun run_;
};

// `bytes` has whole words.
Status AddBytes(RunBuilder& builder, std::span<const std::byte> bytes) {
  if (IsZero(bytes)) return builder.Add(false, 8 * bytes.size());
  for (size_t i = 0; i < bytes.size(); i += kWordBytes) {
    Le64 word;
    std::memcpy(&word, bytes.data() + i, sizeof word);
    ADDCOW_TRY(builder.AddWord(word));
  }
  return {};
}

}  // namespace

Result<uint64_t> RawBitmapBytes(File& add_cow) {
  ADDCOW_TRY_ASSIGN(const uint64_t size, add_cow.Size());
  const uint64_t bytes = size > kBitmapOffset ? size - kBitmapOffset : 0;
  return std::min(bytes, Layout(kMaxOffset, kClusterSize).padded_bitmap_bytes());
}

Status VisitRawBits(File& add_cow, uint64_t bytes,
                    const std::function<Status(const ClusterRun&)>& visit) {
  RunBuilder builder(visit);
  Holes holes(add_cow);
  ADDCOW_TRY(holes.Settle(add_cow));
  std::vector<std::byte> buffer(
      static_cast<size_t>(std::min(kBufferSize, RoundUp(bytes, kWordBytes))));
  for (uint64_t position = 0; position < bytes;) {
    ADDCOW_TRY_ASSIGN(const uint64_t data, holes.FindData(kBitmapOffset + position));
    // Whole words: the one in which the data begins is read from its start.
    const uint64_t skip =
        RoundDown(std::min(data - kBitmapOffset, bytes) - position, kWordBytes);
    if (skip > 0) ADDCOW_TRY(builder.Add(false, 8 * skip));
    position += skip;
    if (data - kBitmapOffset >= bytes) {
      // What is left is less than a word, and a hole.
      if (position < bytes) ADDCOW_TRY(builder.Add(false, 8 * (bytes - position)));
      break;
    }
    const auto count = static_cast<size_t>(std::min<uint64_t>(buffer.size(), bytes - position));
    ADDCOW_TRY(add_cow.ReadExactly(std::span(buffer).first(count), kBitmapOffset + position));
    const size_t whole = count - count % kWordBytes;
    ADDCOW_TRY(AddBytes(builder, std::span(buffer).first(whole)));
    for (size_t i = whole; i < count; i++)
      for (unsigned bit = 0; bit < 8; bit++)
        ADDCOW_TRY(builder.Add((buffer[i] >> bit & std::byte{1}) != std::byte{0}, 1));
    position += count;
  }
  return builder.Finish();
}

Result<bool> AnyRawBit(File& add_cow) {
  ADDCOW_TRY_ASSIGN(const uint64_t bytes, RawBitmapBytes(add_cow));
  bool any = false;
  ADDCOW_TRY(VisitRawBits(add_cow, bytes, [&](const ClusterRun& run) -> Status {
    any = any || run.allocated;
    return {};
  }));
  return any;
}

Status FillRawBits(File& add_cow, ClusterRange range, bool value) {
  const auto fill_in_byte = [&](uint64_t index, uint64_t first, uint64_t end) -> Status {
    std::byte byte;
    ADDCOW_TRY(add_cow.ReadExactly(std::span(&byte, 1), kBitmapOffset + index));
    for (uint64_t bit = first; bit < end; bit++) {
      const std::byte mask = std::byte{1} << bit;
      byte = value ? byte | mask : byte & ~mask;
    }
    return add_cow.Write(std::span(&byte, 1), kBitmapOffset + index);
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
    ADDCOW_TRY(add_cow.Write(std::span(buffer).first(count), kBitmapOffset + position));
    position += count;
  }
  return range.end() % 8 != 0 ? fill_in_byte(last_byte, 0, range.end() % 8) : Status();
}

}  // namespace addcow
