// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See sample.h.

#include "common/format/sample.h"

namespace addcow {

namespace {

constexpr uint64_t kSamplePiece = 4096;
constexpr uint64_t kSpread = 16;
// Where partitions begin as a rule: the first block of a file system's there changes
// when it is mounted.
constexpr int kFirstPower = 20;
constexpr int kLastPower = 30;

}  // namespace

std::vector<ByteRange> SampleOf(uint64_t size, uint32_t edge) {
  const uint64_t edges = 2 * uint64_t{edge};
  if (size <= edges + (kSpread + 1) * kSamplePiece) return {{0, size}};
  const uint64_t end = size - edge;
  std::vector<ByteRange> pieces = {{0, edge}};
  for (int power = kFirstPower; power <= kLastPower; power++)
    if (const uint64_t at = uint64_t{1} << power; at >= edge && at + kSamplePiece <= end)
      pieces.push_back({at, kSamplePiece});
  const uint64_t step = (size - edges) / (kSpread + 1);
  for (uint64_t n = 1; n <= kSpread; n++)
    pieces.push_back({(edge + n * step) / kSamplePiece * kSamplePiece, kSamplePiece});
  pieces.push_back({end, edge});
  return pieces;
}

}  // namespace addcow
