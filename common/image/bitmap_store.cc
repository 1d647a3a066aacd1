// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See bitmap_store.h for the order of things and why.

#include "common/image/bitmap_store.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "common/base/little_endian.h"
#include "common/io/holes.h"

namespace addcow {

namespace {

constexpr uint64_t kClustersPerPage = BitmapStore::kPageBytes * 8;

}  // namespace

Status BitmapStore::Load() {
  const uint64_t end = place_.offset + place_.bytes();
  Holes holes(file_);
  ADDCOW_TRY(holes.Settle(file_));
  for (uint64_t position = place_.offset; position < end;) {
    ADDCOW_TRY_ASSIGN(const uint64_t data, holes.FindData(position));
    if (data >= end) break;
    ADDCOW_TRY_ASSIGN(const uint64_t hole, holes.FindHole(data));
    const uint64_t stop = std::min(std::max(hole, data + 1), end);
    ADDCOW_TRY(LoadRange(data, stop));
    position = RoundUp(stop - place_.offset, sizeof(uint64_t)) + place_.offset;
  }
  return {};
}

// `start` and `end` are offsets in the file; whole words around them are read.
Status BitmapStore::LoadRange(uint64_t start, uint64_t end) {
  const uint64_t bitmap_end = place_.bytes();
  uint64_t position = RoundDown(start - place_.offset, sizeof(uint64_t));
  const uint64_t stop = std::min(RoundUp(end - place_.offset, sizeof(uint64_t)), bitmap_end);
  std::vector<std::byte> buffer(std::min<uint64_t>(kMiB, RoundUp(stop - position, 8)));
  while (position < stop) {
    const size_t count =
        static_cast<size_t>(std::min<uint64_t>(buffer.size(), stop - position));
    ADDCOW_TRY(file_.ReadExactly(std::span(buffer).first(count), place_.offset + position));
    // The last word of the bitmap may be cut short by the end of the file.
    std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(count), buffer.end(), std::byte{0});
    for (size_t i = 0; i < count; i += sizeof(uint64_t)) {
      Le64 word;
      std::memcpy(&word, buffer.data() + i, sizeof word);
      bitmap_.LoadWord((position + i) / sizeof(uint64_t), word);
    }
    position += count;
  }
  return {};
}

void BitmapStore::Allocate(ClusterRange range) {
  MutexLock lock(mutex_);
  if (bitmap_.all()) return;
  for (uint64_t cluster = range.first; cluster < range.end();) {
    const uint64_t word = cluster / 64;
    const uint64_t stop = std::min(range.end(), 64 * (word + 1));
    const uint64_t mask = ~uint64_t{0} >> (64 - (stop - cluster)) << (cluster % 64);
    // Those that are set are durable, or pending already.
    if (const uint64_t added = mask & ~bitmap_.word(word); added != 0)
      pending_[word / kPageWords][word % kPageWords] |= added;
    cluster = stop;
  }
  bitmap_.Set(range);
  pending_pages_.store(pending_.size(), std::memory_order_relaxed);
}

bool BitmapStore::HasPending() {
  MutexLock lock(mutex_);
  return !pending_.empty();
}

uint64_t BitmapStore::Unpublished() {
  uint64_t count = 0;
  MutexLock lock(mutex_);
  // No bit is in both: what was taken is not pending any more.
  for (const PageMap* pages : {&pending_, &taken_})
    for (const auto& [index, page] : *pages)
      for (const uint64_t word : page) count += static_cast<uint64_t>(std::popcount(word));
  return count;
}

BitmapStore::PageMap BitmapStore::Take() {
  MutexLock lock(mutex_);
  taken_ = std::exchange(pending_, {});
  pending_pages_.store(0, std::memory_order_relaxed);
  return taken_;
}

void BitmapStore::Published() {
  MutexLock lock(mutex_);
  taken_.clear();
  old_bits_durable_ = true;
}

bool BitmapStore::OldBitsDurable() {
  MutexLock lock(mutex_);
  return old_bits_durable_;
}

bool BitmapStore::IsDurable(ClusterRange range) {
  const ClusterRun run = bitmap_.RunAt(range);
  if (!run.allocated || run.range != range) return false;
  const auto touches = [&](const PageMap& pages) {
    for (uint64_t cluster = range.first; cluster < range.end();) {
      const auto page = pages.find(cluster / kClustersPerPage);
      const uint64_t next = RoundDown(cluster, kClustersPerPage) + kClustersPerPage;
      const uint64_t end = std::min(next, range.end());
      for (; page != pages.end() && cluster < end; cluster++)
        if ((page->second[cluster % kClustersPerPage / 64] >> (cluster % 64) & 1) != 0)
          return true;
      cluster = end;
    }
    return false;
  };
  MutexLock lock(mutex_);
  return old_bits_durable_ && !touches(pending_) && !touches(taken_);
}

void BitmapStore::PutBack(PageMap taken) {
  MutexLock lock(mutex_);
  taken_.clear();
  for (auto& [index, page] : taken) {
    Page& pending = pending_[index];
    for (size_t i = 0; i < kPageWords; i++) pending[i] |= page[i];
  }
  pending_pages_.store(pending_.size(), std::memory_order_relaxed);
}

Status BitmapStore::Clear() {
  const std::array<std::byte, kPageBytes> zeroes = {};
  const uint64_t count = bitmap_.clusters();
  for (uint64_t position = 0; position < count;) {
    const ClusterRun run = bitmap_.RunAt({position, count - position});
    position = run.range.end();
    if (!run.allocated) continue;
    const uint64_t start = RoundDown(run.range.first, kClustersPerPage) / 8;
    const uint64_t length = std::min(kPageBytes, place_.bytes() - start);
    ADDCOW_TRY(file_.Write(std::span(zeroes).first(length), place_.offset + start));
    written_.fetch_add(length, std::memory_order_relaxed);
    position = std::min(RoundDown(run.range.first, kClustersPerPage) + kClustersPerPage, count);
  }
  return {};
}

BitmapStore::Page BitmapStore::Publishable(uint64_t index) {
  const uint64_t first_word = index * kPageWords;
  const uint64_t words = std::min(kPageWords, bitmap_.words() - first_word);
  Page page = {};
  MutexLock lock(mutex_);
  for (size_t i = 0; i < words; i++) page[i] = bitmap_.word(first_word + i);
  if (auto pending = pending_.find(index); pending != pending_.end())
    for (size_t i = 0; i < words; i++) page[i] &= ~pending->second[i];
  return page;
}

Status BitmapStore::Write(const PageMap& taken) {
  for (const auto& [index, bits] : taken) {
    const Page page = Publishable(index);
    std::array<Le64, kPageWords> bytes;
    std::copy(page.begin(), page.end(), bytes.begin());
    const uint64_t start = index * kPageBytes;
    const uint64_t count = std::min(kPageBytes, place_.bytes() - start);
    ADDCOW_TRY(
        file_.Write(std::as_bytes(std::span(bytes)).first(count), place_.offset + start));
    written_.fetch_add(count, std::memory_order_relaxed);
  }
  return {};
}

}  // namespace addcow
