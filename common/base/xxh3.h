// SPDX-License-Identifier: LGPL-2.1-or-later
//
// XXH3-128, a fast hash that tells different bytes apart, and that somebody who wants to
// can cheat: it protects from mistakes only.

#ifndef ADDCOW_COMMON_BASE_XXH3_H
#define ADDCOW_COMMON_BASE_XXH3_H

#include <array>
#include <cstddef>
#include <span>

namespace addcow {

// In the canonical order of the bytes (big endian), in which xxhsum prints it.
using Hash128 = std::array<std::byte, 16>;

Hash128 Xxh3(std::span<const std::byte> bytes);

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_XXH3_H
