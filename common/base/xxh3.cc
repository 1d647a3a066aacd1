// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See xxh3.h. The library is compiled in, so that the plugin loads none for it; and only
// here, since its header is long.

#include "common/base/xxh3.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

namespace addcow {

Hash128 Xxh3(std::span<const std::byte> bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  Hash128 hash;
  static_assert(sizeof canonical.digest == sizeof hash);
  std::memcpy(hash.data(), canonical.digest, hash.size());
  return hash;
}

}  // namespace addcow
