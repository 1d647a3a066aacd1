// SPDX-License-Identifier: LGPL-2.1-or-later
//
// SharedSectors: a clock that ticks at each beginning and end puts writes and
// reads in order.

#include "tests/support/reference_disk.h"

#include <fmt/format.h>

#include <bitset>

namespace addcow {

SharedSectors::SharedSectors(uint64_t sectors, std::byte initial)
    : sectors_(sectors, {{0, 0, initial}}) {}

uint64_t SharedSectors::BeginWrite(uint64_t first, uint64_t count, std::byte value) {
  MutexLock lock(mutex_);
  const uint64_t now = ++clock_;
  for (uint64_t i = first; i < first + count; i++)
    sectors_[i].push_back({now, kInFlight, value});
  return now;
}

void SharedSectors::EndWrite(uint64_t first, uint64_t count, uint64_t write) {
  MutexLock lock(mutex_);
  const uint64_t now = ++clock_;
  const uint64_t oldest_read = reads_.empty() ? now : *reads_.begin();
  for (uint64_t i = first; i < first + count; i++) {
    std::vector<WriteRecord>& writes = sectors_[i];
    for (WriteRecord& record : writes)
      if (record.began == write) record.ended = now;
    const std::vector<WriteRecord> before = writes;
    std::erase_if(
        writes, [&](const WriteRecord& record) { return IsOver(before, record, oldest_read); });
  }
}

bool SharedSectors::IsOver(const std::vector<WriteRecord>& writes, const WriteRecord& write,
                           uint64_t read) {
  return std::ranges::any_of(writes, [&](const WriteRecord& later) {
    return later.began > write.ended && later.ended < read;
  });
}

uint64_t SharedSectors::BeginRead() {
  MutexLock lock(mutex_);
  reads_.insert(++clock_);
  return clock_;
}

std::string SharedSectors::Check(uint64_t first, std::span<const std::byte> actual,
                                 uint64_t read) {
  MutexLock lock(mutex_);
  std::bitset<256> possible;  // values in the sector
  for (size_t i = 0; i < actual.size(); i++) {
    if (i % kSectorSize == 0) {
      const std::vector<WriteRecord>& writes = sectors_[first + i / kSectorSize];
      possible.reset();
      for (const WriteRecord& write : writes)
        if (!IsOver(writes, write, read)) possible.set(static_cast<size_t>(write.value));
    }
    if (!possible[static_cast<size_t>(actual[i])])
      return fmt::format("shared sector {}, byte {}: {:#04x} is no value that may be there",
                         first + i / kSectorSize, i % kSectorSize,
                         static_cast<unsigned>(actual[i]));
  }
  return "";
}

void SharedSectors::EndRead(uint64_t read) {
  MutexLock lock(mutex_);
  reads_.erase(reads_.find(read));
}

}  // namespace addcow
