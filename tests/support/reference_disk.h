// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a disk must read, kept apart from the engine that is tested.
//
// ReferenceDisk is a byte array. With many threads each owns byte ranges of
// its own: it alone writes there and knows what must be read, whatever the
// others do to the rest of the same cluster, sector or word.
//
// SharedSectors is for sectors that many threads write at once. Each write
// fills its sectors with one byte value. A read may find, byte by byte, the
// value of any write that was in flight together with it, or of a completed
// one that no other write followed before the read began. Nothing else.

#ifndef ADDCOW_TESTS_SUPPORT_REFERENCE_DISK_H
#define ADDCOW_TESTS_SUPPORT_REFERENCE_DISK_H

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/units.h"
#include "tests/support/test_image.h"

namespace addcow {

// Threads: any, on ranges that do not overlap.
class ReferenceDisk {
 public:
  explicit ReferenceDisk(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  uint64_t size() const { return bytes_.size(); }
  std::span<const std::byte> Range(uint64_t offset, uint64_t length) const {
    return std::span(bytes_).subspan(offset, length);
  }
  void Write(std::span<const std::byte> data, uint64_t offset) {
    std::ranges::copy(data, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  void Zero(uint64_t offset, uint64_t length) {
    std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
  }
  // Empty where `actual`, read at `offset`, is right; else what is wrong.
  std::string Check(std::span<const std::byte> actual, uint64_t offset) const {
    return Difference(actual, Range(offset, actual.size()), offset);
  }

 private:
  std::vector<std::byte> bytes_;
};

// Threads: any.
class SharedSectors {
 public:
  // All sectors start out with bytes of value `initial`.
  SharedSectors(uint64_t sectors, std::byte initial);

  // Around a write of `value` to the sectors [first, first + count). The
  // number that Begin returns goes to End.
  uint64_t BeginWrite(uint64_t first, uint64_t count, std::byte value);
  void EndWrite(uint64_t first, uint64_t count, uint64_t write);

  // Around a read; what Begin returns goes to Check, any number of times, and
  // to End. Check: empty, or what is wrong.
  uint64_t BeginRead();
  std::string Check(uint64_t first, std::span<const std::byte> actual, uint64_t read);
  void EndRead(uint64_t read);

 private:
  static constexpr uint64_t kInFlight = UINT64_MAX;
  struct WriteRecord {
    uint64_t began;
    uint64_t ended;
    std::byte value;
  };

  // Whether a read that began at `read` cannot find this write any more.
  static bool IsOver(const std::vector<WriteRecord>& writes, const WriteRecord& write,
                     uint64_t read);

  Mutex mutex_;
  uint64_t clock_ ADDCOW_GUARDED_BY(mutex_) = 0;
  std::multiset<uint64_t> reads_ ADDCOW_GUARDED_BY(mutex_);  // under way
  std::vector<std::vector<WriteRecord>> sectors_ ADDCOW_GUARDED_BY(mutex_);
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_REFERENCE_DISK_H
