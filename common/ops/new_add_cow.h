// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The parts of a new add-cow file: what the verbs that make one, or make one anew,
// write into it before it gets its name (durable_create.h). Nothing is synced here.

#ifndef ADDCOW_COMMON_OPS_NEW_ADD_COW_H
#define ADDCOW_COMMON_OPS_NEW_ADD_COW_H

#include <functional>

#include "common/base/error.h"
#include "common/format/header.h"
#include "common/format/layout.h"
#include "common/image/image_files.h"
#include "common/io/file.h"
#include "common/io/file_system.h"

namespace addcow {

// Into a file that is empty: pages without a byte stay holes.
Status WriteNewHeader(File& file, const HeaderBytes& header);

// Copies what comes after the header, holes as holes.
Status CopyBits(File& from, File& to, const Geometry& geometry);

// Storage for the bits that are to be set later, where there is room.
Status TakeStorageForBits(File& file, const Layout& layout);

// A stretch of the disk: whole clusters, one or more, or a part of one.
struct ClusterPart {
  ByteRange bytes;
  bool whole = false;
};
using VisitClusterPart = std::function<Status(const ClusterPart&)>;

// Cuts a stretch into such parts, in order. The last cluster of the disk is whole where the
// stretch goes to the disk's end.
Status CutByClusters(const Layout& layout, ByteRange range, const VisitClusterPart& visit);

// Sets the bits of the parts that `visit_all` calls its argument with, in order: clusters',
// and subclusters' of what is a part of one. `file` has its length.
Status WriteBitsOf(File& file, const Layout& layout,
                   const std::function<Status(const VisitClusterPart&)>& visit_all);

// Writes the bits of a new add-cow file, and gives it its length.
using WriteBits = std::function<Status(File&)>;

// The bits that `files` has now, for a header whose geometry is the same. `files` must outlive
// the result.
WriteBits SameBits(const ImageFiles& files);

// The rights, and the other attributes, of an add-cow file that is to be written anew.
Result<NewRights> RightsOf(File& add_cow);

// Puts a new add-cow file with that header in the old one's place, in one step, with its
// rights. Durable when it returns; on failure the old one is untouched, with one
// exception: where only the directory's sync failed, the new one may be there. The old one
// stays open, and locked.
Status ReplaceAddCow(FileSystem& file_system, const ImageFiles& files, const Header& header,
                     const WriteBits& bits);

// EINVAL where no new file can take this one's place: a device; or a file with several names
// (hard links), of which only one would lead to the new file. The others would keep the old
// one's bits, of an image file that goes on without them.
Status RefuseIrreplaceable(File& add_cow);

// Where ReplaceAddCow would not do, as far as that can be told without making anything: also
// where the new file could not have the old one's rights, or its name (CheckMayChange).
Status CheckMayReplaceAddCow(FileSystem& file_system, const ImageFiles& files);

// The same for who has much to do before: a file with these rights is made, and removed. So it
// is found, too, what only the file system knows.
Status TryReplacingAddCow(FileSystem& file_system, const ImageFiles& files);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_NEW_ADD_COW_H
