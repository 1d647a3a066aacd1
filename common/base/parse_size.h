// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sizes as people write them, by the rules of qemu-img: 1G is 2^30 bytes.

#ifndef ADDCOW_COMMON_BASE_PARSE_SIZE_H
#define ADDCOW_COMMON_BASE_PARSE_SIZE_H

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/error.h"

namespace addcow {

// The number of bytes that `text` means: digits, perhaps a decimal fraction,
// perhaps one of the suffixes b k M G T P E in either case (powers of 1024).
// Part of a byte is dropped, as qemu-img does, but without a suffix a fraction
// is refused. The size of a disk: 1 .. 2^63 - 1, else EINVAL with a message
// that says what is accepted.
Result<uint64_t> ParseSize(const std::string& text);

// The same of bytes a second, the most there may be, where "0" is no limit. None where it is
// not what kRateRule says.
std::optional<uint64_t> ParseRate(const std::string& text);
inline constexpr const char* kRateRule = "must be bytes a second, as 50M, or 0 for no limit";

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_PARSE_SIZE_H
