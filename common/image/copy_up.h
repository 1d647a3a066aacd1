// SPDX-License-Identifier: LGPL-2.1-or-later
//
// CopyUp: what the backing file has goes to the same place in the image file. The
// one place that copies.
//
// Data is shared where the file system can do that (Cloner), else read and
// written; what is zero becomes a hole, or stays one. copy_file_range is not
// used: it would write a backing file's zeroes out as data, and where it does
// better than that, it does what the Cloner does.
//
// Threads: any. All copying is done with the clusters held alone
// (cluster_locks.h): FillAround is called by who holds them, the others take them.

#ifndef ADDCOW_COMMON_IMAGE_COPY_UP_H
#define ADDCOW_COMMON_IMAGE_COPY_UP_H

#include <cstdint>
#include <span>

#include "common/base/error.h"
#include "common/image/allocation.h"
#include "common/image/backing.h"
#include "common/image/image_files.h"
#include "common/image/image_store.h"

namespace addcow {

class CopyUp {
 public:
  // All of them must outlive this object.
  CopyUp(const ImageFiles& files, const Layout& layout, const Backing& backing,
         Allocation& allocation, ImageStore& image_store)
      : files_(files),
        layout_(layout),
        backing_(backing),
        allocation_(allocation),
        image_store_(image_store) {}

  // Copies up the clusters of the range that are not allocated, which are so then,
  // and has the disk begin to write the range. Those that can be had are, where
  // others fail: on a file system that fills up, most of the range.
  Status Fill(ClusterRange range);

  // Copies up the rest of all clusters that are partial now, in ascending order,
  // and has the disk write while it copies on. A cluster that cannot be filled does
  // not keep the others from it; the first failure is returned.
  Status FillPartialClusters();

  // Makes the image file right in the unallocated clusters that
  // [offset, offset + length) touches, outside of that range. The caller holds them
  // alone.
  Status FillAround(uint64_t offset, uint64_t length);

 private:
  Status FillInvalid(uint64_t offset, uint64_t end);
  Status LockAndFill(ClusterRange range);
  Status FillOneByOne(ClusterRange range);
  Status StartWriteback(ClusterRange range);
  Status CopyFromBacking(uint64_t offset, uint64_t length);
  Status CopyData(uint64_t offset, uint64_t end);
  StorageRun CopyableRun(uint64_t offset, uint64_t length);
  Status CopyBytes(uint64_t offset, uint64_t end);
  Status CopyNonZero(std::span<const std::byte> data, uint64_t offset);

  // Constant after construction; what they name is internally synchronised.
  const ImageFiles& files_;
  const Layout layout_;
  const Backing& backing_;
  Allocation& allocation_;
  ImageStore& image_store_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_COPY_UP_H
