// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow upgrade and downgrade: the same disk with metadata of another revision, or
// with clusters of another size. The add-cow file is written anew and takes the old
// one's name in one step: killed at any time, the image is as before or as after. The
// image file stays, but for what a cluster lacks where there may be no subclusters.

#ifndef ADDCOW_COMMON_OPS_CONVERT_H
#define ADDCOW_COMMON_OPS_CONVERT_H

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/base/log.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

struct ConvertOptions {
  // Its mode is not looked at.
  ImageSource source;
  Revision revision = Revision::kVersion1;
  uint64_t cluster_size = kClusterSize;  // bytes; as Header's
  // False: clusters that the image file has in part are copied up, and NO_SUBCLUSTERS
  // is set. So it is, too, where the image has NO_SUBCLUSTERS.
  bool subclusters = true;
  // Called while clusters are copied up, with the bytes that are done, and of all.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
  Interrupted interrupted = {};
};

struct ConvertResult {
  Header before;
  Header after;  // the same as before: nothing was to be done
  uint64_t virtual_size = 0;
  uint64_t copied = 0;  // bytes of the clusters that were copied up
  // What somebody should know, a line each.
  std::vector<std::string> notes = {};
};

// All is durable when it returns. The backing file is opened only where something must
// be copied up, which is kept where the rest fails.
Result<ConvertResult> ConvertImage(FileSystem& file_system, const ConvertOptions& options,
                                   LogSink log);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_CONVERT_H
