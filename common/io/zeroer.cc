// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The ladder of zeroer.h.

#include "common/io/zeroer.h"

#include <algorithm>
#include <array>

#include "common/base/units.h"

namespace addcow {

template <typename Call>
Result<bool> Zeroer::Try(std::atomic<bool>& supported, Call call) {
  if (!supported.load(std::memory_order_relaxed)) return false;
  Status done = call();
  if (done) return true;
  if (done.error().code() == EOPNOTSUPP) {
    supported.store(false, std::memory_order_relaxed);
    return false;
  }
  // A block device refuses what is not aligned to its sectors: this range
  // only, so the rung stays.
  if (done.error().code() == EINVAL) return false;
  return Fail(std::move(done).error());
}

Status Zeroer::Zero(uint64_t offset, uint64_t length, ZeroOptions options) {
  if (length == 0) return {};
  if (options.may_punch) {
    ADDCOW_TRY_ASSIGN(const bool done,
                      Try(can_punch_, [&] { return file_.PunchHole(offset, length); }));
    if (done) return {};
  }
  ADDCOW_TRY_ASSIGN(const bool done,
                    Try(can_zero_range_, [&] { return file_.ZeroRange(offset, length); }));
  if (done) return {};
  if (options.fast_only)
    return Fail(Error::Io(EOPNOTSUPP, "fast zero", file_.name(), offset, length));
  return WriteZeroes(offset, length);
}

Status Zeroer::ZeroUnlessHole(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  while (offset < end) {
    ADDCOW_TRY_ASSIGN(const uint64_t data, holes_.FindData(offset));
    if (data >= end) break;
    ADDCOW_TRY_ASSIGN(const uint64_t hole, holes_.FindHole(data));
    // FindHole may not move on where the file was truncated underneath.
    const uint64_t stop = hole > data ? std::min(hole, end) : end;
    // Storage that is there was reserved, perhaps, so that it would be.
    ADDCOW_TRY(Zero(data, stop - data, {.may_punch = false}));
    offset = stop;
  }
  return {};
}

Status Zeroer::WriteZeroes(uint64_t offset, uint64_t length) {
  static const std::array<std::byte, 64 * kKiB> zeroes = {};
  while (length > 0) {
    // Cut between sectors: a crash must not find half of one zeroed.
    const uint64_t to_boundary = zeroes.size() - offset % zeroes.size();
    const size_t count = static_cast<size_t>(std::min(length, to_boundary));
    ADDCOW_TRY(file_.Write(std::span(zeroes).first(count), offset));
    offset += count;
    length -= count;
  }
  return {};
}

}  // namespace addcow
