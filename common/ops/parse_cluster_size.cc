// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See parse_cluster_size.h.

#include "common/ops/parse_cluster_size.h"

#include <fmt/format.h>

#include <bit>

#include "common/base/parse_size.h"
#include "common/format/header.h"

namespace addcow {

Result<uint64_t> ParseClusterSize(const std::string& text) {
  ADDCOW_TRY_ASSIGN(const uint64_t size, ParseSize(text));
  if (std::has_single_bit(size) && size >= kLeastClusterSize && size <= kMostClusterSize)
    return size;
  return Fail(Error::Because(EINVAL, fmt::format("cluster size '{}'", text),
                             "must be 4k, 8k, 16k, 32k, 64k, 128k, 256k, 512k, 1M or 2M"));
}

}  // namespace addcow
