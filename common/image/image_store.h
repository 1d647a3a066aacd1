// SPDX-License-Identifier: LGPL-2.1-or-later
//
// ImageStore: all that is done to the image file of an open image, and whether
// it may still be trusted. It knows nothing of bits.
//
// The file is opened three times, since the system tells each open file
// description once that data was lost on its way to the disk, in whichever
// call comes first:
//
//   data     reads, writes, zeroes, clones, starts write-back. Some of these
//            may be told (on NFS a plain write is); nobody relies on that.
//   durable  durable writes only, one at a time: it is told of what was lost
//            since the one before it.
//   sync     never anything but syncs: so a flush misses nothing, whoever else
//            was told.
//
// A failed sync is final (Stop): what was not flushed cannot be vouched for.
//
// Threads: any, but for Open.

#ifndef ADDCOW_COMMON_IMAGE_IMAGE_STORE_H
#define ADDCOW_COMMON_IMAGE_IMAGE_STORE_H

#include <atomic>
#include <cstdint>
#include <span>

#include "common/base/counters.h"
#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/image/image_files.h"
#include "common/io/cloner.h"
#include "common/io/holes.h"
#include "common/io/zeroer.h"

namespace addcow {

class ImageStore {
 public:
  // `files` must outlive this object. `shared`: the backing file whose storage may be
  // shared, or null; it is there when Clone is called.
  ImageStore(const ImageFiles& files, const File* shared);

  // Before anything else, and before any other thread is there.
  Status Open();

  // As those of File. What is written need not be durable.
  Status Read(std::span<std::byte> buffer, uint64_t offset) {
    counters_.Add(Count::kRead, buffer.size());
    return data_.ReadExactly(buffer, offset);
  }
  Status Prefetch(uint64_t offset, uint64_t length) { return data_.Prefetch(offset, length); }
  Status Write(std::span<const std::byte> data, uint64_t offset) {
    counters_.Add(Count::kWritten, data.size());
    if (holes_.well_known()) return data_.Write(data, offset);  // nothing to be noted
    Status written = data_.Write(data, offset);
    holes_.Written(offset, data.size());
    return written;
  }

  // As those of Zeroer.
  Status Zero(uint64_t offset, uint64_t length, ZeroOptions options) {
    counters_.Add(Count::kZeroed, length);
    return zeroer_.Zero(offset, length, options);
  }
  Status ZeroUnlessHole(uint64_t offset, uint64_t length) {
    return zeroer_.ZeroUnlessHole(offset, length);
  }

  // As those of Cloner, from the backing file.
  bool can_clone() const { return cloner_.able(); }
  bool Clone(uint64_t offset, uint64_t length);

  // Which parts of the file read as zeroes.
  const Holes& holes() const { return holes_; }

  // False: WriteDurably gives EOPNOTSUPP.
  bool can_write_durably() const { return can_write_durably_.load(std::memory_order_relaxed); }

  // Writes, and brings just these bytes to the disk. EOPNOTSUPP: nothing was
  // done, and never will be here. ENOSPC, EDQUOT, EFBIG: this write's own
  // failure. Any other error is as a failed sync.
  Status WriteDurably(std::span<const std::byte> data, uint64_t offset)
      ADDCOW_EXCLUDES(durable_mutex_);

  // Brings to the disk all that had been written before the call.
  Status Sync() ADDCOW_EXCLUDES(sync_mutex_);

  // Has the disk write the range while the caller goes on. A failure is as one
  // of a sync: data was lost.
  Status StartWriteback(uint64_t offset, uint64_t length);

  // Nothing is written any more, to no file of the image: what is on the disk
  // is not known. The caller's error, EIO: `cause`, and the first time also what
  // it means. No other will say so: it must not be dropped.
  Error Stop(const Error& cause);
  // The same where there is no memory to say so.
  void StopSilently() { stopped_.store(true, std::memory_order_release); }
  bool stopped() const { return stopped_.load(std::memory_order_acquire); }
  // EIO, for who asks for more after that.
  Error Stopped(const char* operation) const;

  // Runs `sync`, which brings data of one of the image's files to the disk or
  // begins to. If it fails, nothing is written any more.
  template <typename Call>
  Status OrStop(Call sync);

  // What was asked of it so far, in bytes.
  enum class Count { kRead, kWritten, kZeroed, kCloned, kCount };
  uint64_t Sum(Count of) const { return counters_.Sum(of); }

 private:
  // Constant after construction; what they name is internally synchronised.
  File& data_;
  File& durable_;
  File& sync_;

  // Internally synchronised.
  Counters<Count> counters_;
  Holes holes_;
  Zeroer zeroer_;
  Cloner cloner_;
  std::atomic<bool> can_write_durably_ = false;  // true to false, once it is open
  std::atomic<bool> stopped_ = false;            // false to true only

  // Innermost; each held across the calls on one description: of two at a time
  // one alone would be told that data of both was lost.
  Mutex durable_mutex_;
  Mutex sync_mutex_;
};

template <typename Call>
Status ImageStore::OrStop(Call sync) {
  try {
    Status synced = sync();
    if (synced) return synced;
    return Fail(Stop(synced.error()));
  } catch (...) {
    // No memory for the error's message: it is one all the same.
    StopSilently();
    throw;
  }
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_IMAGE_STORE_H
