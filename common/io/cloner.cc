// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See cloner.h.

#include "common/io/cloner.h"

namespace addcow {

bool Cloner::Clone(uint64_t offset, uint64_t length) {
  if (!able()) return false;
  const Status cloned = to_.CloneFrom(*from_, offset, length);
  if (cloned) return true;
  if (cloned.error().code() == EOPNOTSUPP) able_.store(false, std::memory_order_relaxed);
  return false;
}

}  // namespace addcow
