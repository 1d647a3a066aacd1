// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What libnbd says of a handle, in our words: why a call failed, and block sizes.

#ifndef ADDCOW_COMMON_SOURCE_LIBNBD_WORDS_H
#define ADDCOW_COMMON_SOURCE_LIBNBD_WORDS_H

#include <libnbd.h>

#include <cstdint>
#include <string>

#include "common/base/units.h"

namespace addcow {

// A server that says nothing of sizes may want whole sectors, and commands of 32 MiB at most
// ("a client desiring maximum interoperability", NBD protocol, Block size constraints).
inline constexpr uint64_t kUsualMinimum = 512;
inline constexpr uint64_t kUsualMaximum = 32 * kMiB;

// Bytes; `otherwise` where the server does not say.
inline uint64_t BlockSizeOf(nbd_handle* handle, int which, uint64_t otherwise) {
  const int64_t size = nbd_get_block_size(handle, which);
  return size > 0 ? static_cast<uint64_t>(size) : otherwise;
}

// Of this thread's last call.
inline std::string LibnbdReason() {
  const char* const text = nbd_get_error();
  // "nbd_connect_uri: connect: Connection refused": which call it was says nothing here.
  std::string reason = text != nullptr ? text : "";
  if (const size_t call = reason.find(": ");
      call != std::string::npos && reason.starts_with("nbd_"))
    reason.erase(0, call + 2);
  return reason.empty() ? "the connection was lost" : reason;
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_LIBNBD_WORDS_H
