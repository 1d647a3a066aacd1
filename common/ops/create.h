// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow create: makes an add-cow file, and its image file where there is
// none.

#ifndef ADDCOW_COMMON_OPS_CREATE_H
#define ADDCOW_COMMON_OPS_CREATE_H

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/format/header.h"
#include "common/format/layout.h"
#include "common/io/file_system.h"
#include "common/source/source.h"

namespace addcow {

// Of a new image file: none is given storage; all of it has, unwritten; all is
// written with zeroes. The names are those of qemu-img.
enum class Preallocation { kOff, kFalloc, kFull };

// What a new image file holds from the beginning, of an image with a backing file.
struct NewContents {
  // What it has of the disk, ascending, apart: whole subclusters, or whole clusters where
  // there may be none of these, but at the disk's end.
  std::vector<ByteRange> allocated;
  // Writes that into the file, which has its size and is a hole. `backing`: null without
  // one. Its errors are create's.
  std::function<Status(File& image, Source* backing)> write;
  // The file that its bytes come from: who may not read that may not read the image file.
  std::optional<FileInfo> from = std::nullopt;
};

struct CreateOptions {
  // Relative to the working directory, like any path that a user gives.
  std::string add_cow_path;
  // Stored as they are, and relative to the directory of the add-cow file.
  std::string image_name;
  std::optional<NamedFile> backing;
  // Of a new image file, in bytes, 1 .. 2^63 - 1; none: the backing file's.
  // An image file that is there has its own, which this must agree with.
  std::optional<uint64_t> size;
  // Replace an add-cow file that is there, if nothing is allocated in it, no subcluster
  // either. Any other file is refused, unless it is empty.
  bool force = false;
  // With force: also where something is allocated, whose data is lost then.
  bool discard = false;
  // With a backing file: take an image file that holds data, which is ignored.
  bool reuse_image = false;
  // Clusters of another size than kClusterSize need revision 20.
  Revision revision = Revision::kVersion1;
  uint64_t cluster_size = kClusterSize;  // bytes
  // False: who serves it must not add SUBCLUSTERS (NO_SUBCLUSTERS).
  bool subclusters = true;
  Preallocation preallocation = Preallocation::kOff;
  // If not null, the image file is made by this call, and gets its name when it holds that.
  // Must outlive the call.
  const NewContents* contents = nullptr;
  // Called now and then while an image file is written in full. May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
  // Lock the files as for serving them, so that what another program uses is
  // refused.
  bool lock = true;
  // Whether what an add-cow base stands on is compared with what it noted of it.
  bool check_identity = true;
  // How long a server of the backing file may take to answer.
  std::chrono::seconds timeout{60};
  // Asked until the add-cow file is there; then it is too late.
  Interrupted interrupted = {};
};

struct CreateResult {
  uint64_t virtual_size = 0;      // bytes
  std::string image_path;         // where image_name leads
  bool image_was_there = false;   // taken as it was
  bool old_data_ignored = false;  // it holds data, which the backing file now hides
  bool old_data_shown = false;    // it holds data, which is the disk now
  // What else somebody should know, a line each.
  std::vector<std::string> notes = {};
};

// All is durable when it returns. On failure nothing is left behind and an
// add-cow file that was there is untouched, with one exception: where it was
// replaced and only the directory's sync failed, the new files stay.
//
// Without a backing file every cluster is allocated, so that what an image
// file holds stays visible.
Result<CreateResult> CreateImage(FileSystem& file_system, const CreateOptions& options);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_CREATE_H
