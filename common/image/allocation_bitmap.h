// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A live bitmap in memory: for each unit of the disk, whether it is in the image
// file. There is one of clusters and one of subclusters; "cluster" here is either. It
// says nothing of what is on the disk; that is BitmapStore's business.
//
// A bit goes from 0 to 1 only. That is what lets readers test it without a
// lock: a 1 that was seen stays true, and what was seen as 0 was, at that moment,
// still to be read from elsewhere.
//
// Memory: a bit a cluster, in pages of 4096 bytes, each taken from the system when
// its first bit is set; and a summary, a bit for each page, that says which have one.
// A page without is never looked at, so that an empty disk of any size costs neither
// time nor memory, whatever a system gives to who reads memory that nobody wrote.

#ifndef ADDCOW_COMMON_IMAGE_ALLOCATION_BITMAP_H
#define ADDCOW_COMMON_IMAGE_ALLOCATION_BITMAP_H

#include <atomic>
#include <cstdint>
#include <memory>

#include "common/base/error.h"
#include "common/format/layout.h"

namespace addcow {

// Neighbouring clusters in the same state.
struct ClusterRun {
  bool allocated = false;
  ClusterRange range;
};

class AllocationBitmap {
 public:
  // ENOMEM where the memory cannot be had.
  static Result<std::unique_ptr<AllocationBitmap>> Create(uint64_t clusters,
                                                          const std::string& file);

  ~AllocationBitmap();
  AllocationBitmap(const AllocationBitmap&) = delete;
  AllocationBitmap& operator=(const AllocationBitmap&) = delete;

  uint64_t clusters() const { return clusters_; }

  // Any thread. A true is an acquire: the caller sees everything that the
  // thread which set the bit had done before.
  bool Test(uint64_t cluster) const { return all() || TestBit(cluster); }

  // The run that starts at `range.first`, cut at the range's end; the range
  // has one cluster or more. Any thread; acquire, as Test.
  ClusterRun RunAt(ClusterRange range) const;

  // Sets the bits; release. Returns how many were 0. The caller sees to it
  // that no other thread sets any bit at the same time (BitmapStore).
  uint64_t Set(ClusterRange range);

  // Marks all clusters as allocated, whatever the bits say.
  void SetAll();

  // How many clusters are allocated. Any thread.
  uint64_t allocated() const { return allocated_.load(std::memory_order_acquire); }
  bool all() const { return all_.load(std::memory_order_acquire); }

  // Bit n of word w is cluster 64 * w + n; bits past the last cluster are 0.
  uint64_t words() const { return DivideUp(clusters_, 64); }
  uint64_t word(uint64_t index) const {
    return HasBits(index / kPageWords) ? Word(index).load(std::memory_order_acquire) : 0;
  }

  // Sets a whole word, for loading: before any other thread is there.
  void LoadWord(uint64_t index, uint64_t value);

 private:
  static constexpr uint64_t kPageWords = 512;
  static constexpr uint64_t kPageBits = 64 * kPageWords;

  AllocationBitmap(uint64_t clusters, uint64_t* words, uint64_t* summary)
      : clusters_(clusters), words_(words), summary_(summary) {}

  std::atomic_ref<uint64_t> Word(uint64_t index) const {
    return std::atomic_ref<uint64_t>(words_[index]);
  }
  std::atomic_ref<uint64_t> SummaryWord(uint64_t index) const {
    return std::atomic_ref<uint64_t>(summary_[index]);
  }

  // Whether a page may have a bit that is set. It is true before the first is.
  bool HasBits(uint64_t page) const {
    return (SummaryWord(page / 64).load(std::memory_order_acquire) >> (page % 64) & 1) != 0;
  }
  bool TestBit(uint64_t cluster) const {
    return HasBits(cluster / kPageBits) &&
           (Word(cluster / 64).load(std::memory_order_acquire) >> (cluster % 64) & 1) != 0;
  }
  uint64_t RunEnd(uint64_t position, uint64_t end, bool allocated) const;
  uint64_t SkipEmptyPages(uint64_t cluster, uint64_t end) const;
  void NoteBits(uint64_t page);

  // Constant after construction.
  const uint64_t clusters_;
  // What these point to is only touched through atomic_ref.
  uint64_t* const words_;
  uint64_t* const summary_;

  std::atomic<uint64_t> allocated_ = 0;
  // Set once every bit is: spares the look at the bits.
  std::atomic<bool> all_ = false;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_ALLOCATION_BITMAP_H
