// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow commit: writes what images hold into what they stand on, and empties them.
//
// Several images are one unit, as the disks of one guest: all are written and synced before
// the first is emptied. Killed at any instant, each of them reads as before: an overlay
// hides what its base has got already. The same command again goes on to the end.

#ifndef ADDCOW_COMMON_OPS_COMMIT_H
#define ADDCOW_COMMON_OPS_COMMIT_H

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

struct CommitOptions {
  std::vector<std::string> add_cow_paths;  // one at least
  uint64_t rate = 0;                       // bytes a second that are written; 0: no limit
  bool dry_run = false;                    // look only: no file is opened for writing
  bool drop = false;                       // do not empty them: they are to be deleted
  AccessOptions access = {};
  // Called now and then with the bytes of data that are written, and of all there are.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

struct CommitResult {
  struct One {
    std::string add_cow_path;
    std::string backing_path;        // or a URI
    uint64_t data = 0;               // bytes that the base gets, or would get
    uint64_t zeroes = 0;             // bytes of it that are made zero
    uint64_t backing_size = 0;       // bytes, before
    uint64_t grown_to = 0;           // bytes that it is made, or would be; 0: it is long enough
    std::vector<std::string> notes;  // what somebody should know, a line each
  };
  std::vector<One> images;  // in the order of the paths
};

// All is durable when it returns. Refuses, before anything is written: an image without a
// backing file; two that stand on one file, or on each other; a base that is in use, or is
// not what it was when it was named, or may not be written; one that is shorter than the
// disk and is no raw file, which is made longer. On failure and with kErrInterrupted
// every image reads as before.
//
// The images' record of what the base is is dropped before the first byte of it is changed,
// and noted anew in the end. What was not emptied because of a kill at that time is
// found by the next run.
Result<CommitResult> CommitImages(FileSystem& file_system, const CommitOptions& options);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_COMMIT_H
