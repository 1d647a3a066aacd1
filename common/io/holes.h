// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where a file has data and where holes, as far as that may be believed. Some
// file systems answer without what waits in the kernel's cache: FUSE with a
// write-back cache calls a hole what was written and not synced. To believe
// that is to lose it: it would be told as zeroes, left alone where zeroes are
// wanted, passed over where bits are read.
//
// So what no sync has covered is data, but where the file system is well known
// (FileInfo). What others wrote before counts too: it is synced at the
// beginning, and where that cannot be done, all is data.
//
// Answers about ranges that are being written meanwhile may be old or new.
//
// Threads: any, but for Settle.

#ifndef ADDCOW_COMMON_IO_HOLES_H
#define ADDCOW_COMMON_IO_HOLES_H

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/io/file.h"

namespace addcow {

class Holes {
 public:
  // `file` must outlive this object. All is data until Settle.
  explicit Holes(File& file) : file_(file) {}

  // To be called once, before any other thread is there. Where it has to sync
  // it does so through `by`, which is `file` or another on the same one. After
  // an error the object may be used all the same.
  Status Settle(File& by);

  // After Settle: FileInfo's.
  bool well_known() const { return belief_ == Belief::kAlways; }

  // As those of File.
  Result<uint64_t> FindData(uint64_t offset) const ADDCOW_EXCLUDES(mutex_);
  Result<uint64_t> FindHole(uint64_t offset) const ADDCOW_EXCLUDES(mutex_);

  // What is at `offset`, which lies before `limit`, up to that at most.
  Result<DataRun> RunAt(uint64_t offset, uint64_t limit) const ADDCOW_EXCLUDES(mutex_);

  // Calls `visit` with the parts of [offset, end) that may hold data, in order and
  // of at most `most` bytes each, until it gives false.
  Status VisitData(uint64_t offset, uint64_t end, uint64_t most,
                   const std::function<Result<bool>(uint64_t offset, uint64_t length)>& visit)
      const ADDCOW_EXCLUDES(mutex_);

  // Of a file that is written to: after each write or clone, also one that has
  // failed, before its caller is told.
  void Written(uint64_t offset, uint64_t length) {
    if (belief_ != Belief::kAlways) Note(offset, length);
  }
  // Around each sync. What had been written before it begins is not looked at
  // any more once it has succeeded.
  uint64_t SyncBegins() ADDCOW_EXCLUDES(mutex_);
  void SyncSucceeded(uint64_t begun) ADDCOW_EXCLUDES(mutex_);

 private:
  // More ranges than this are taken for one, from the first to the last.
  static constexpr size_t kMostRanges = 1024;

  enum class Belief { kNever, kAfterSync, kAlways };
  struct Range {
    uint64_t end = 0;
    uint64_t sync = 0;  // the first that covers all of it
  };

  void Note(uint64_t offset, uint64_t length) ADDCOW_EXCLUDES(mutex_);
  // Where what was written around `offset` ends; `offset` where nothing was.
  uint64_t UnsyncedEnd(uint64_t offset) const ADDCOW_EXCLUDES(mutex_);
  // The first unsynced byte at or after `offset`, if any.
  std::optional<uint64_t> Unsynced(uint64_t offset) const ADDCOW_EXCLUDES(mutex_);

  // Constant after Settle.
  File& file_;
  Belief belief_ = Belief::kNever;

  // Innermost.
  mutable Mutex mutex_;
  // By their beginnings; none touches the next.
  std::map<uint64_t, Range> unsynced_ ADDCOW_GUARDED_BY(mutex_);
  uint64_t syncs_ ADDCOW_GUARDED_BY(mutex_) = 0;  // that have begun
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_HOLES_H
