// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Is this buffer all zeroes? It compares the buffer with itself, shifted by
// sixteen bytes, so that memcmp does the work at the speed of the memory.
// The idea is Rusty Russell's (https://rusty.ozlabs.org/?p=560).

#ifndef ADDCOW_COMMON_BASE_ZERO_BYTES_H
#define ADDCOW_COMMON_BASE_ZERO_BYTES_H

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

namespace addcow {

inline bool IsZero(std::span<const std::byte> bytes) {
  constexpr size_t kHead = 16;
  const size_t head = std::min(kHead, bytes.size());
  for (size_t i = 0; i < head; i++)
    if (bytes[i] != std::byte{0}) return false;
  return bytes.size() <= kHead ||
         std::memcmp(bytes.data(), bytes.data() + kHead, bytes.size() - kHead) == 0;
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_ZERO_BYTES_H
