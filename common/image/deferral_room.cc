// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See deferral_room.h.

#include "common/image/deferral_room.h"

namespace addcow {

bool DeferralRoom::Has(uint64_t clusters, uint64_t waiting) {
  const auto count = static_cast<int64_t>(clusters);
  if (left_.fetch_sub(count, std::memory_order_relaxed) >= count) return true;
  const auto enough = Look(waiting + clusters);
  return enough && *enough;
}

Result<bool> DeferralRoom::Look(uint64_t clusters) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, image_.Info());
  const uint64_t needed = (clusters + kClustersALook) * kClusterSize + kSpare;
  const bool enough = !info.free_bytes || *info.free_bytes >= needed;
  limit_.store(info.size_limit, std::memory_order_relaxed);
  left_.store(enough ? static_cast<int64_t>(kClustersALook) : 0, std::memory_order_relaxed);
  return enough;
}

}  // namespace addcow
