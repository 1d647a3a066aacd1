// SPDX-License-Identifier: LGPL-2.1-or-later

#ifndef ADDCOW_COMMON_OPS_PARSE_CLUSTER_SIZE_H
#define ADDCOW_COMMON_OPS_PARSE_CLUSTER_SIZE_H

#include <cstdint>
#include <string>

#include "common/base/error.h"

namespace addcow {

// As ParseSize (common/base/parse_size.h), of a cluster size of revision 20.
Result<uint64_t> ParseClusterSize(const std::string& text);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_PARSE_CLUSTER_SIZE_H
