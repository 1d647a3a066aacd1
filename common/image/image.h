// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Image: a disk made of an image file and a backing file, and the engine of
// this project. Clusters that are allocated live in the image file, the rest
// is read from the backing file, and what is written becomes allocated.
//
// The copy-up of a write that is smaller than its cluster is deferred to the
// next flush, see partial_clusters.h.
//
// There is one Image for a set of files in a process, whatever the number of
// clients: a flush covers the completed writes of all of them.
//
// Threads: every function may be called from any number of threads at once,
// except Close. Requests that overlap in time and in place give, byte by
// byte, the result of either order; bytes outside of them are never touched.
//
// Lock order: flush_mutex_, then cluster_locks_, then one of those of storage_,
// store_, partials_, backing_ and image_store_. crowded_mutex_ is taken while none
// is held.

#ifndef ADDCOW_COMMON_IMAGE_IMAGE_H
#define ADDCOW_COMMON_IMAGE_IMAGE_H

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/image/allocation_bitmap.h"
#include "common/image/backing.h"
#include "common/image/bitmap_storage.h"
#include "common/image/bitmap_store.h"
#include "common/image/cluster_locks.h"
#include "common/image/deferral_room.h"
#include "common/image/image_files.h"
#include "common/image/image_store.h"
#include "common/image/partial_clusters.h"

namespace addcow {

enum class Fua : bool { kNo, kYes };  // kYes: durable before the function returns

// Whose flush it is. That of one who may not write does not set ALL_ALLOCATED.
enum class FlushFor { kWriter, kReader };

// Neighbouring bytes that come from the same place.
struct Extent {
  enum class Source { kImage, kBacking, kNone };  // kNone: nobody has it, it is zero

  uint64_t offset = 0;
  uint64_t length = 0;
  Source source = Source::kNone;
  bool data = false;  // false: a hole, reads as zeroes

  bool operator==(const Extent&) const = default;
};

class Image {
 public:
  // `log` may be empty: what it would be told is dropped. `file_system` must
  // outlive the image.
  static Result<std::unique_ptr<Image>> Open(FileSystem& file_system, const ImageSource& source,
                                             LogSink log);
  // Does not write anything: what matters must have been flushed, or closed.
  ~Image() = default;

  uint64_t virtual_size() const { return layout_.virtual_size(); }
  const ImageFiles& files() const { return files_; }
  const AllocationBitmap& bitmap() const { return *bitmap_; }
  // False: opened for reading only, or a sync has failed since (see Flush).
  bool writable() const;

  // All of the range must lie within the disk, else EINVAL (ENOSPC to write).
  Status Read(std::span<std::byte> buffer, uint64_t offset);
  // With kYes, writes that are in flight together share flushes.
  Status Write(std::span<const std::byte> data, uint64_t offset, Fua fua = Fua::kNo);

  // Makes the range read as zeroes, without storage if it may. Also how a
  // trim is done: what was trimmed reads as zeroes from then on.
  Status Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua = Fua::kNo);

  // All writes and zeroes that had returned before the call are durable once
  // it succeeds. When every cluster is allocated, ALL_ALLOCATED gets set. A
  // sync that fails is final: this and every later write and flush fail with
  // EIO, reads go on. So is a file that somebody has truncated or removed
  // meanwhile. Calls that wait for a flush under way share the next one.
  Status Flush(FlushFor whom = FlushFor::kWriter) ADDCOW_EXCLUDES(flush_mutex_);

  // Flush, but only where a process that is killed would take something with
  // it: where bits wait, or ALL_ALLOCATED after a write. Else no system call.
  Status FlushNewBits() ADDCOW_EXCLUDES(flush_mutex_);

  // Calls `visit` for the extents of the range, in order, without gaps,
  // neighbours different, until it returns false.
  Status Map(uint64_t offset, uint64_t length, const std::function<bool(const Extent&)>& visit);

  // Asks the system to have the range in its cache.
  Status Prefetch(uint64_t offset, uint64_t length);

  // Copies the unallocated clusters of the range up from the backing file,
  // sparsely, and makes them allocated. The disk begins to write them. For large
  // ranges.
  Status CopyUp(ClusterRange range);

  // `handler` is called when so many clusters are partial that a flush should
  // come soon, by a thread that writes: it must be quick, and not call back.
  // An empty one ends that; it is not called after this returned.
  void SetCrowdedHandler(std::function<void()> handler) ADDCOW_EXCLUDES(crowded_mutex_);

  // Flushes what was written since the last flush. Call it once, when no
  // other call is under way or follows.
  Status Close() ADDCOW_EXCLUDES(flush_mutex_);

  // How many clusters have been written to that will not be found allocated by
  // whoever opens the files next, as things are: since the last flush that
  // succeeded. What was written to them would be lost. Any thread.
  uint64_t unpublished_clusters() { return store_.Unpublished() + partials_.count(); }

 private:
  // Most clusters locked at once (16 MiB), so that a long request does not
  // keep others waiting for all its time.
  static constexpr uint64_t kMaxLockedClusters = 256;

  // What is known of the clusters at some place, in the order that makes it
  // true (partial_clusters.h).
  struct View {
    ClusterRun run;
    ValidSectors valid;  // where the run is not allocated
  };

  Image(FileSystem& file_system, ImageFiles files, std::unique_ptr<AllocationBitmap> bitmap,
        LogSink log, const ImageSource& source);

  Status CheckWritable(const char* operation, uint64_t offset, uint64_t length) const;
  Status ReadMerged(std::span<std::byte> buffer, uint64_t offset, ValidSectors valid);
  bool CanDefer(uint64_t offset, uint64_t length);
  Status DeferringWrite(std::span<const std::byte> data, uint64_t offset);
  void NoteWritten(uint64_t offset, uint64_t length);
  void SetAllocated(ClusterRange range);
  void CallIfCrowded() ADDCOW_EXCLUDES(crowded_mutex_);
  void CallForFlush() ADDCOW_EXCLUDES(crowded_mutex_);
  Status WriteRuns(std::span<const std::byte> data, uint64_t offset);
  Status WriteDurably(std::span<const std::byte> data, uint64_t offset);
  Status AllocatingWrite(std::span<const std::byte> data, uint64_t offset);
  Status AllocatingZero(uint64_t offset, uint64_t length, ZeroOptions options);
  Status ZeroAndAllocate(uint64_t offset, uint64_t length, ZeroOptions options);
  Status ZeroWhatBackingFills(uint64_t offset, uint64_t length, ZeroOptions options);
  Status FillAround(uint64_t offset, uint64_t length);
  Status FillInvalid(uint64_t offset, uint64_t end);
  Status LockAndFill(ClusterRange range);
  Status FillPartialClusters();
  Status StartWriteback(ClusterRange range);
  Status FillOneByOne(ClusterRange range);
  Status CopyFromBacking(uint64_t offset, uint64_t length);
  Status CopyData(uint64_t offset, uint64_t end);
  StorageRun CopyableRun(uint64_t offset, uint64_t length);
  Status CopyBytes(uint64_t offset, uint64_t end);
  Status CopyNonZero(std::span<const std::byte> data, uint64_t offset);
  ClusterRun RunAt(uint64_t offset, uint64_t length) const;
  View ViewAt(uint64_t offset, uint64_t length) const;
  uint64_t BytesOf(ClusterRun run, uint64_t offset, uint64_t length) const;
  Status FlushLocked(FlushFor whom) ADDCOW_REQUIRES(flush_mutex_);
  bool HasNewBits() ADDCOW_REQUIRES(flush_mutex_);
  Status PublishBits(FlushFor whom) ADDCOW_REQUIRES(flush_mutex_);
  Status SyncAddCow() ADDCOW_REQUIRES(flush_mutex_);
  // Whether the name of an open file leads elsewhere by now. Any thread.
  struct Moved {
    std::atomic<const char*> to = nullptr;  // "nothing", for example
    std::atomic<bool> said = false;
  };
  Status StopIfFilesAreLost();
  Status StopIfLost(File& file, uint64_t size, Moved& moved);
  void LogIfMoved();

  // Constant after construction; what they name is internally synchronised.
  FileSystem& file_system_;
  const ImageFiles files_;
  const Layout layout_;
  const Backing backing_;
  const LogSink log_;

  // Internally synchronised.
  const std::unique_ptr<AllocationBitmap> bitmap_;
  BitmapStorage storage_;
  BitmapStore store_;
  PartialClusters partials_;
  DeferralRoom deferral_room_;
  ClusterLocks cluster_locks_;
  ImageStore image_store_;
  std::atomic<uint64_t> fua_writes_ = 0;  // under way
  std::atomic<bool> unflushed_ = false;   // something was written since the last flush
  Moved image_moved_;
  Moved add_cow_moved_;

  // Not again before a flush has filled all of them.
  std::atomic<bool> crowded_called_ = false;
  Mutex crowded_mutex_;
  std::function<void()> crowded_handler_ ADDCOW_GUARDED_BY(crowded_mutex_);

  // How many flushes have begun. A call that read this before a flush began
  // need not make one of its own: that flush covers it.
  std::atomic<uint64_t> flushes_begun_ = 0;

  // One flush at a time; held across its I/O.
  Mutex flush_mutex_;
  uint64_t last_flushed_ ADDCOW_GUARDED_BY(flush_mutex_) = 0;  // the last that succeeded
  bool flag_written_ ADDCOW_GUARDED_BY(flush_mutex_);          // ALL_ALLOCATED is on the disk
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_IMAGE_H
