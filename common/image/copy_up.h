// SPDX-License-Identifier: LGPL-2.1-or-later
//
// CopyUp: what the backing file has goes to the same place in the image file. The
// one place that copies.
//
// The backing file is constant. So it is read first, with no claim held: a slow one
// holds up nobody but who asked for its bytes. Then the range is claimed, and what is
// still missing there is written; what somebody wrote meanwhile stays.
//
// Data is shared where the file system can do that (Cloner), else read and
// written; what is zero becomes a hole, or stays one. copy_file_range is not
// used: it would write a backing file's zeroes out as data, and where it does
// better than that, it does what the Cloner does.
//
// Threads: any.

#ifndef ADDCOW_COMMON_IMAGE_COPY_UP_H
#define ADDCOW_COMMON_IMAGE_COPY_UP_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/error.h"
#include "common/image/allocation.h"
#include "common/image/backing.h"
#include "common/image/image_files.h"
#include "common/image/image_store.h"

namespace addcow {

class CopyUp {
 public:
  // All of them must outlive this object.
  CopyUp(const ImageFiles& files, const Backing& backing, Allocation& allocation,
         ImageStore& image_store)
      : files_(files),
        layout_(files.layout()),
        backing_(backing),
        allocation_(allocation),
        image_store_(image_store) {}

  // What there is to say of a copy-up.
  struct Told {
    uint64_t data = 0;            // bytes that were read from the backing file
    uint64_t filled = 0;          // bytes of clusters that it has made allocated ones
    bool backing_failed = false;  // it could not be read, or not say where its data is
  };

  // Copies up the clusters of the range that are not allocated, which are so then,
  // and has the disk begin to write the range. Those that can be had are, where
  // others fail: on a file system that fills up, most of the range.
  // Of a slow backing file many pieces are read at once. No claim is longer than 1 MiB, or
  // a cluster.
  Status Fill(ClusterRange range, Told& told);

  // `data` is what the backing file has at `offset`, whole grains: what of it is not in
  // the image file is written there, sparsely, and is so then. The caller holds no claim.
  // Where it fails, a part may have been kept.
  Status Keep(std::span<const std::byte> data, uint64_t offset);

  // What a write of [offset, end) needs around it, to be of whole grains.
  struct Edge {
    uint64_t offset = 0;
    std::vector<std::byte> bytes;  // empty where nothing is needed
  };
  struct Edges {
    Edge head;
    Edge tail;
  };
  // Reads them from the backing file. The caller holds no claim.
  Result<Edges> ReadEdges(uint64_t offset, uint64_t end) const;
  // Writes what is still missing of them. The caller holds them alone.
  Status WriteEdge(const Edge& edge);

 private:
  // What is to be done with a part of the range, as it was before the claim.
  struct Piece {
    enum class Kind { kHole, kClone, kData };
    Kind kind;
    uint64_t offset;
    uint64_t end;
  };
  struct Plan {
    uint64_t offset = 0;                 // of the range
    std::vector<Piece> pieces;           // what was missing, ascending
    std::unique_ptr<std::byte[]> bytes;  // of the range, where pieces are data
  };

  Status KeepChunk(std::span<const std::byte> data, uint64_t offset);
  Result<Edge> ReadEdge(uint64_t offset, uint64_t end) const;
  Status FillChunk(uint64_t offset, uint64_t end, Told& told);
  uint64_t Unallocated(uint64_t offset, uint64_t end) const;
  Result<Plan> MakePlan(uint64_t offset, uint64_t end, bool clone);
  Status ReadData(uint64_t end, Plan& plan);
  Status PlanData(uint64_t offset, uint64_t end, bool clone, Plan& plan);
  Result<bool> CarryOut(const Plan& plan, uint64_t offset, uint64_t end);
  Status WriteMissing(std::span<const std::byte> data, uint64_t offset);
  Status WriteNonZero(std::span<const std::byte> data, uint64_t offset);
  StorageRun CopyableRun(uint64_t offset, uint64_t length) const;

  // Constant after construction; what they name is internally synchronised.
  const ImageFiles& files_;
  const Layout layout_;
  const Backing& backing_;
  Allocation& allocation_;
  ImageStore& image_store_;

  // Held across what is written of a claim, and taken before it. File systems let one write
  // to a file at a time, and who waits there spins: it would take a processor from the others.
  Mutex writing_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_COPY_UP_H
