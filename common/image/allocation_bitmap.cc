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

// One bit for each page of the bitmap.
uint64_t SummaryBytes(uint64_t clusters) {
  return DivideUp(DivideUp(clusters, uint64_t{8} * 4096), 64) * sizeof(uint64_t);
}

// Zeroes, or null. What nobody writes to is never taken from the system, and none
// of it is reserved: a sparse disk may be larger than memory has bits for. Nor is
// more taken than a page where something is written.
uint64_t* Map(uint64_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  (void)::madvise(memory, bytes, MADV_NOHUGEPAGE);  // EINVAL where there are none
  return static_cast<uint64_t*>(memory);
}

}  // namespace

Result<std::unique_ptr<AllocationBitmap>> AllocationBitmap::Create(uint64_t clusters,
                                                                   const std::string& file) {
  const uint64_t bytes = DivideUp(clusters, 64) * sizeof(uint64_t);
  uint64_t* const words = Map(bytes);
  if (words == nullptr)
    return Fail(Error::Because(ENOMEM, file,
                               fmt::format("no memory for the bitmap's {} bytes", bytes)));
  uint64_t* const summary = Map(SummaryBytes(clusters));
  if (summary == nullptr) {
    ::munmap(words, bytes);
    return Fail(Error::Because(ENOMEM, file, "no memory for the bitmap's summary"));
  }
  return std::unique_ptr<AllocationBitmap>(new AllocationBitmap(clusters, words, summary));
}

AllocationBitmap::~AllocationBitmap() {
  ::munmap(words_, words() * sizeof(uint64_t));
  ::munmap(summary_, SummaryBytes(clusters_));
}

// The first cluster from `cluster` on whose page has bits; at most `end`. Never one before
// it, also where its page gets its first bit between the two looks at the summary.
uint64_t AllocationBitmap::SkipEmptyPages(uint64_t cluster, uint64_t end) const {
  uint64_t page = cluster / kPageBits;
  if (HasBits(page)) return cluster;
  const uint64_t pages = DivideUp(end, kPageBits);
  while (page < pages) {
    const uint64_t rest = SummaryWord(page / 64).load(std::memory_order_acquire) >> (page % 64);
    if (rest != 0) {
      page += static_cast<uint64_t>(std::countr_zero(rest));
      break;
    }
    page = RoundDown(page, 64) + 64;
  }
  return std::min(std::max(page * kPageBits, cluster), end);
}

ClusterRun AllocationBitmap::RunAt(ClusterRange range) const {
  if (all()) return {true, range};
  // Most requests lie in one word.
  const uint64_t first_word = word(range.first / 64);
  const uint64_t shift = range.first % 64;
  const bool allocated = (first_word >> shift & 1) != 0;
  const uint64_t same = (allocated ? first_word : ~first_word) >> shift;
  const auto in_word = static_cast<uint64_t>(std::countr_one(same));
  if (in_word >= range.count) return {allocated, range};
  if (in_word < 64 - shift) return {allocated, {range.first, in_word}};
  return {allocated,
          {range.first, RunEnd(range.first + in_word, range.end(), allocated) - range.first}};
}

// Where the run ends that goes on at `position`, the first bit of a word; at most `end`.
uint64_t AllocationBitmap::RunEnd(uint64_t position, uint64_t end, bool allocated) const {
  while (position < end) {
    if (!allocated) position = SkipEmptyPages(position, end);
    const uint64_t stop = std::min(RoundDown(position, kPageBits) + kPageBits, end);
    for (; position < stop; position += 64) {
      const uint64_t value = word(position / 64);
      const uint64_t same = allocated ? value : ~value;
      if (~same != 0)
        return std::min(position + static_cast<uint64_t>(std::countr_one(same)), end);
    }
  }
  return end;
}

// Before the first bit of the page is set: who sees that bit finds the page by it.
void AllocationBitmap::NoteBits(uint64_t page) {
  if (!HasBits(page))
    SummaryWord(page / 64).fetch_or(uint64_t{1} << (page % 64), std::memory_order_release);
}

uint64_t AllocationBitmap::Set(ClusterRange range) {
  uint64_t added = 0;
  for (uint64_t position = range.first; position < range.end();) {
    const uint64_t shift = position % 64;
    const uint64_t count = std::min(64 - shift, range.end() - position);
    const uint64_t mask = Mask(shift, count);
    NoteBits(position / kPageBits);
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
  NoteBits(index / kPageWords);
  Word(index).store(value, std::memory_order_relaxed);
  const auto count = static_cast<uint64_t>(std::popcount(value));
  if (allocated_.fetch_add(count, std::memory_order_relaxed) + count == clusters_)
    all_.store(true, std::memory_order_release);
}

}  // namespace addcow
