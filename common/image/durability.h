// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Durability: what makes a write durable. The steps of a flush, who shares one,
// durable writes, ALL_ALLOCATED, and whether the files are still those that were
// opened. The only one that writes the add-cow file's header and bits while an image
// is open.
//
// Threads: any, but for Close.
//
// A flush takes no other lock than the innermost ones, and never reads the backing file.
// No log line is written while flush_mutex_ is held.

#ifndef ADDCOW_COMMON_IMAGE_DURABILITY_H
#define ADDCOW_COMMON_IMAGE_DURABILITY_H

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>

#include "common/base/error.h"
#include "common/base/latency.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/image/allocation.h"
#include "common/image/image_files.h"
#include "common/image/image_store.h"

namespace addcow {

// Whose flush it is. That of one who may not write does not set ALL_ALLOCATED.
enum class FlushFor { kWriter, kReader };

class Durability {
 public:
  // All of them must outlive this object.
  Durability(FileSystem& file_system, const ImageFiles& files, const LogSink& log,
             Allocation& allocation, ImageStore& image_store);

  // Something was written that no flush has covered.
  void Unflushed() { unflushed_.store(true, std::memory_order_relaxed); }

  // See Image.
  Status Flush(FlushFor whom) ADDCOW_EXCLUDES(flush_mutex_);
  Status FlushNewBits() ADDCOW_EXCLUDES(flush_mutex_);
  Status Close() ADDCOW_EXCLUDES(flush_mutex_);

  // Whether ALL_ALLOCATED is on the disk, for good. Acquire.
  bool all_allocated() const { return all_allocated_.load(std::memory_order_acquire); }

  // A FUA write. Where that makes it durable, in clusters whose bits are, no more than
  // its own bytes are brought to the disk. Else `write` writes them, and a flush
  // follows: several that are in flight share flushes, which is faster.
  Status WriteDurably(std::span<const std::byte> data, uint64_t offset,
                      const std::function<Status()>& write);

  // Flushes so far: answered by another one that covered them, done, of these failed; and
  // bytes of flags that were written. Any thread; no lock.
  uint64_t flushes_shared() const { return flushes_shared_.load(std::memory_order_relaxed); }
  Latencies flushes() const { return flush_times_.Read(); }
  uint64_t flush_errors() const { return flush_errors_.load(std::memory_order_relaxed); }
  uint64_t flags_written() const { return flags_written_.load(std::memory_order_relaxed); }

 private:
  // Whether the name of an open file leads elsewhere by now. Any thread.
  struct Moved {
    std::atomic<const char*> to = nullptr;  // "nothing", for example
    std::atomic<bool> said = false;
  };

  Status FlushLocked(FlushFor whom) ADDCOW_REQUIRES(flush_mutex_);
  Status FlushOnce(FlushFor whom) ADDCOW_REQUIRES(flush_mutex_);
  bool HasNewBits() ADDCOW_REQUIRES(flush_mutex_);
  bool FlagWaits() const ADDCOW_REQUIRES(flush_mutex_);
  bool CanDropSubclusters() ADDCOW_EXCLUDES(flush_mutex_);
  Status PublishBits(FlushFor whom) ADDCOW_REQUIRES(flush_mutex_);
  Status SyncAddCow() ADDCOW_REQUIRES(flush_mutex_);
  Status WriteFlags(bool all_allocated, bool subclusters) ADDCOW_REQUIRES(flush_mutex_);
  Status DropSubclusters(bool all_allocated) ADDCOW_REQUIRES(flush_mutex_);
  Status StopIfFilesAreLost();
  Status StopIfLost(File& file, const std::function<uint64_t()>& needed, Moved& moved);
  void LogIfMoved();

  // Constant after construction; what they name is internally synchronised.
  FileSystem& file_system_;
  const ImageFiles& files_;
  const Layout layout_;
  const LogSink& log_;
  Allocation& allocation_;
  ImageStore& image_store_;

  std::atomic<uint64_t> fua_writes_ = 0;  // under way
  std::atomic<bool> unflushed_ = false;   // something was written since the last flush
  std::atomic<bool> all_allocated_;       // durable
  Moved image_moved_;
  Moved add_cow_moved_;

  // For who asks.
  LatencyHistogram flush_times_;
  std::atomic<uint64_t> flushes_shared_ = 0;
  std::atomic<uint64_t> flush_errors_ = 0;
  std::atomic<uint64_t> flags_written_ = 0;

  // How many flushes have begun. A call that read this before a flush began
  // need not make one of its own: that flush covers it.
  std::atomic<uint64_t> flushes_begun_ = 0;

  // One flush at a time; held across its I/O.
  Mutex flush_mutex_;
  uint64_t last_flushed_ ADDCOW_GUARDED_BY(flush_mutex_) = 0;  // the last that succeeded
  // On the disk, as far as they may be: ALL_ALLOCATED and SUBCLUSTERS.
  Header flags_ ADDCOW_GUARDED_BY(flush_mutex_);
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_DURABILITY_H
