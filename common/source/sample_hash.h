// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The hash of a source's sample (format/sample.h), which is read by one call: where the
// source is far away it costs one round trip.

#ifndef ADDCOW_COMMON_SOURCE_SAMPLE_HASH_H
#define ADDCOW_COMMON_SOURCE_SAMPLE_HASH_H

#include <cstdint>

#include "common/base/error.h"
#include "common/base/xxh3.h"
#include "common/source/source.h"

namespace addcow {

// `edge` is 1 .. kMostSampleEdge. Takes some 2 * `edge` bytes of memory meanwhile.
Result<Hash128> HashSample(Source& source, uint32_t edge);

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_SAMPLE_HASH_H
