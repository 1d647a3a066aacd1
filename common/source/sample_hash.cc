// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See sample_hash.h.

#include "common/source/sample_hash.h"

#include <vector>

#include "common/format/sample.h"

namespace addcow {

Result<Hash128> HashSample(Source& source, uint32_t edge) {
  const std::vector<ByteRange> ranges = SampleOf(source.size(), edge);
  uint64_t total = 0;
  for (const ByteRange& range : ranges) total += range.length;
  std::vector<std::byte> bytes(static_cast<size_t>(total));
  std::vector<Source::Piece> pieces;
  auto rest = std::span(bytes);
  for (const ByteRange& range : ranges) {
    pieces.push_back({rest.first(static_cast<size_t>(range.length)), range.offset});
    rest = rest.subspan(pieces.back().buffer.size());
  }
  ADDCOW_TRY(source.ReadPieces(pieces, {}));
  return Xxh3(bytes);
}

}  // namespace addcow
