// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Scans and sets by 64-bit words.

#include "common/image/allocation_bitmap.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace addcow {

namespace {

// The bits [first, first + count) of a word; 0 < count, first + count <= 64.
uint64_t Mask(uint64_t first, uint64_t count) {
  return (count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << first;
}

}  // namespace

Result<std::unique_ptr<AllocationBitmap>> AllocationBitmap::Create(uint64_t clusters,
                                                                   const std::string& file) {
  const uint64_t words = DivideUp(clusters, 64);
  // Pages that no set bit touches are never taken from the system, and none
  // are reserved: a sparse disk may be larger than memory has bits for.
  void* memory = ::mmap(nullptr, words * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return Fail(Error::Because(ENOMEM, file,
                               fmt::format("no memory for the bitmap's {} bytes", words * 8)));
  return std::unique_ptr<AllocationBitmap>(
      new AllocationBitmap(clusters, static_cast<uint64_t*>(memory)));
}

ClusterRun AllocationBitmap::RunAt(ClusterRange range) const {
  if (all()) return {true, range};
  const bool allocated = Test(range.first);
  const uint64_t end = range.end();
  uint64_t position = range.first;
  while (position < end) {
    uint64_t value = Word(position / 64).load(std::memory_order_acquire);
    if (!allocated) value = ~value;
    // Ones from `position` on: as many as continue the run.
    const uint64_t shift = position % 64;
    const auto ones = static_cast<uint64_t>(std::countr_one(value >> shift));
    position += std::min(ones, 64 - shift);
    if (ones < 64 - shift) break;
  }
  // Another thread may have set the first bit between the two looks at it.
  position = std::clamp(position, range.first + 1, end);
  return {allocated, {range.first, position - range.first}};
}

AllocationBitmap::~AllocationBitmap() { ::munmap(words_, words() * sizeof(uint64_t)); }

uint64_t AllocationBitmap::Set(ClusterRange range) {
  uint64_t added = 0;
  for (uint64_t position = range.first; position < range.end();) {
    const uint64_t shift = position % 64;
    const uint64_t count = std::min(64 - shift, range.end() - position);
    const uint64_t mask = Mask(shift, count);
    const uint64_t before = Word(position / 64).fetch_or(mask, std::memory_order_release);
    added += static_cast<uint64_t>(std::popcount(mask & ~before));
    position += count;
  }
  if (allocated_.fetch_add(added, std::memory_order_acq_rel) + added == clusters_)
    all_.store(true, std::memory_order_release);
  return added;
}

void AllocationBitmap::SetAll() {
  allocated_.store(clusters_, std::memory_order_release);
  all_.store(true, std::memory_order_release);
}

void AllocationBitmap::LoadWord(uint64_t index, uint64_t value) {
  const uint64_t first = index * 64;
  value &= Mask(0, std::min<uint64_t>(64, clusters_ - first));
  if (value == 0) return;  // leaves the page untouched
  Word(index).store(value, std::memory_order_relaxed);
  const auto count = static_cast<uint64_t>(std::popcount(value));
  if (allocated_.fetch_add(count, std::memory_order_relaxed) + count == clusters_)
    all_.store(true, std::memory_order_release);
}

}  // namespace addcow
