// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Makes ranges of one file read as zeroes by the cheapest way that the file
// has: punch a hole, zero a range, write zeroes. A rung of that ladder that
// the file turned out not to have is remembered and not tried again.

#ifndef ADDCOW_COMMON_IO_ZEROER_H
#define ADDCOW_COMMON_IO_ZEROER_H

#include <atomic>
#include <cstdint>

#include "common/base/error.h"
#include "common/io/file.h"
#include "common/io/holes.h"

namespace addcow {

struct ZeroOptions {
  bool may_punch = true;   // storage may be given back
  bool fast_only = false;  // fail with EOPNOTSUPP rather than write zeroes
};

class Zeroer {
 public:
  // Both must outlive this object; `holes` are those of `file`.
  Zeroer(File& file, const Holes& holes) : file_(file), holes_(holes) {}

  // Any thread. The range must lie within the file.
  Status Zero(uint64_t offset, uint64_t length, ZeroOptions options);

  // The same, but leaves alone what already is a hole, and gives no storage back:
  // cheaper where most of it is, and nothing else may write to the range meanwhile.
  Status ZeroUnlessHole(uint64_t offset, uint64_t length);

 private:
  // Runs one rung. True: done. False: this rung cannot, go on to the next.
  template <typename Call>
  Result<bool> Try(std::atomic<bool>& supported, Call call);
  Status WriteZeroes(uint64_t offset, uint64_t length);

  File& file_;
  const Holes& holes_;
  std::atomic<bool> can_punch_ = true;
  std::atomic<bool> can_zero_range_ = true;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_ZEROER_H
