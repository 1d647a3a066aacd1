// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Image: a disk made of an image file and a backing file, and the engine of
// this project. What is allocated, clusters and subclusters, lives in the image
// file, the rest is read from the backing file, and what is written becomes allocated.
//
// It is a facade: what it asks for is done by ImageStore (the image file), Allocation
// (where a byte is), CopyUp (what copies) and Durability (what makes writes durable).
//
// There is one Image for a set of files in a process, whatever the number of
// clients: a flush covers the completed writes of all of them.
//
// Threads: every function may be called from any number of threads at once,
// except Close. Requests that overlap in time and in place give, byte by
// byte, the result of either order; bytes outside of them are never touched.
//
// Lock order: Durability's or a claim (range_locks.h), never both; then the innermost
// ones: those of Allocation's parts, of Backing and of ImageStore.

#ifndef ADDCOW_COMMON_IMAGE_IMAGE_H
#define ADDCOW_COMMON_IMAGE_IMAGE_H

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/image/allocation.h"
#include "common/image/backing.h"
#include "common/image/copy_up.h"
#include "common/image/durability.h"
#include "common/image/image_counts.h"
#include "common/image/image_files.h"
#include "common/image/image_store.h"

namespace addcow {

enum class Fua : bool { kNo, kYes };  // kYes: durable before the function returns

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
  // The same of files that OpenImageFiles has opened.
  static Result<std::unique_ptr<Image>> Of(FileSystem& file_system, ImageFiles files,
                                           const ImageSource& source, LogSink log);
  // Does not write anything: what matters must have been flushed, or closed.
  ~Image() = default;

  // Starts the threads of what it stands on, if that has any. Once, after the process has
  // forked for the last time.
  Status Start() { return backing_.Start(); }

  uint64_t virtual_size() const { return layout_.virtual_size(); }
  // Without the backing file, which is in backing().
  const ImageFiles& files() const { return files_; }
  const AllocationBitmap& bitmap() const { return allocation_.clusters(); }
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
  // it succeeds. When every cluster is allocated, ALL_ALLOCATED gets set, and
  // SUBCLUSTERS dropped. Nothing is copied, and the backing file not read. A
  // sync that fails is final: this and every later write and flush fail with
  // EIO, reads go on. So is a file that somebody has truncated or removed
  // meanwhile. Calls that wait for a flush under way share the next one.
  Status Flush(FlushFor whom = FlushFor::kWriter);

  // Flush, but only where a process that is killed would take something with
  // it: where bits wait, or ALL_ALLOCATED after a write. Else no system call.
  Status FlushNewBits();

  // Calls `visit` for the extents of the range, in order, without gaps,
  // neighbours different, until it returns false.
  Status Map(uint64_t offset, uint64_t length, const std::function<bool(const Extent&)>& visit);

  // The same one by one, for who stands on this image: where the bytes at `offset` come
  // from, and what they are. `offset` lies before `limit`, that not past the end. They
  // end at `limit` at the latest, or where others like them begin.
  struct Place {
    Extent::Source source = Extent::Source::kNone;
    uint64_t end = 0;
  };
  Place PlaceAt(uint64_t offset, uint64_t limit) const;
  Result<DataRun> RunAt(uint64_t offset, uint64_t limit);

  // Asks the system to have the range in its cache.
  Status Prefetch(uint64_t offset, uint64_t length);

  // Copies the unallocated clusters of the range up from the backing file,
  // sparsely, and makes them allocated. The disk begins to write them. For large
  // ranges. `told`, where it is given, says more, also of a failure.
  Status CopyUp(ClusterRange range, addcow::CopyUp::Told* told = nullptr);
  // The first cluster from `cluster` on that is not allocated and has a part in the image
  // file; how many clusters there are, if none has.
  uint64_t NextPartial(uint64_t cluster) const { return allocation_.NextPartial(cluster); }

  // What is below the image: zeroes past its end, or all over where there is nothing.
  const Backing& backing() const { return backing_; }
  // Closes what is below, all of it, once ALL_ALLOCATED is durable: from then on it may
  // change, and be deleted. Logged. Waits for who reads from it; so not for a client. True:
  // it did so now. False: it is needed, or there is none any more.
  bool LetBackingGo();
  // Reads of what is below fail from now on, if they would have to be waited for.
  void AbandonBacking() { backing_.Abandon(); }
  // Bytes of the disk that become allocated together: those of a subcluster, or of a
  // cluster where the image has, and gets, no subclusters.
  uint64_t grain() const { return allocation_.grain(); }
  // Copies up, like CopyUp, but bytes that the caller has read from backing(): all of
  // the grains from `offset`, which begins one, to an end of one or of the disk. What
  // was written meanwhile stays. On an error some of it may have become allocated.
  Status Keep(std::span<const std::byte> data, uint64_t offset);

  // Flushes what was written since the last flush, and drops SUBCLUSTERS where no
  // cluster is partial. Call it once, when no other call is under way or follows.
  Status Close();

  // How many bytes of the disk have been written to that whoever opens the files next
  // would not find in the image file, as things are: since the last flush that
  // succeeded. What was written there would be lost. Any thread.
  uint64_t unpublished_bytes() { return allocation_.UnpublishedBytes(); }

  // What it has done so far, and how things are. Each by itself is right; they are not of
  // one moment. Any thread.
  ImageCounts Counts();

 private:
  Image(FileSystem& file_system, ImageFiles files, LogSink log, const ImageSource& source);

  Status CheckWritable(const char* operation, uint64_t offset, uint64_t length) const;
  bool HasManyPieces(uint64_t offset, uint64_t end) const;
  Status ReadUnallocated(std::span<std::byte> buffer, uint64_t offset);
  Status ReadPieces(std::span<std::byte> buffer, uint64_t offset);
  Status WriteRuns(std::span<const std::byte> data, uint64_t offset);
  Status WriteGrains(std::span<const std::byte> data, uint64_t offset);
  Status WriteWithEdges(std::span<const std::byte> data, uint64_t offset);
  Status ZeroUnallocated(uint64_t offset, uint64_t end, ZeroOptions options);
  Status ZeroMissing(ByteRange range, const CopyUp::Edges& edges, ZeroOptions options);
  Result<std::vector<ByteRange>> WhatBackingFills(uint64_t offset, uint64_t end,
                                                  ZeroOptions options) const;
  Status PublishIfFull();

  // Internally synchronised.
  Backing backing_;

  // Constant after construction; what they name is internally synchronised.
  const ImageFiles files_;
  const Layout layout_;
  const LogSink log_;

  // Internally synchronised. Each knows those before it, none those after it.
  ImageStore image_store_;
  Allocation allocation_;
  addcow::CopyUp copy_up_;
  Durability durability_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_IMAGE_H
