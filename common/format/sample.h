// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which bytes of a backing file are its sample (docs/format.md, "The sample"): a function
// of its size, so that whoever opens it later, and however, looks at the same ones.

#ifndef ADDCOW_COMMON_FORMAT_SAMPLE_H
#define ADDCOW_COMMON_FORMAT_SAMPLE_H

#include <cstdint>
#include <vector>

#include "common/base/units.h"
#include "common/format/layout.h"

namespace addcow {

// How much of the beginning and of the end is in it, in bytes. No record asks for more.
inline constexpr uint32_t kMostSampleEdge = kMiB;
// Where a byte more costs time: of what is not a local raw file.
inline constexpr uint32_t kSmallSampleEdge = 64 * kKiB;

// The pieces, in the order in which they are hashed; some may overlap. `size` is 1 or
// more, and `edge` 1 .. kMostSampleEdge.
std::vector<ByteRange> SampleOf(uint64_t size, uint32_t edge);

}  // namespace addcow

#endif  // ADDCOW_COMMON_FORMAT_SAMPLE_H
