// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow rebase without -u: gives an image another backing file, or none, and the disk reads
// as before. What the two differ in is copied up first; then the names change, as with -u.

#ifndef ADDCOW_COMMON_OPS_REBASE_DATA_H
#define ADDCOW_COMMON_OPS_REBASE_DATA_H

#include <cstdint>
#include <functional>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/io/file_system.h"
#include "common/ops/rebase.h"

namespace addcow {

// Bytes of the disk that have been looked at, and all.
using RebaseProgress = std::function<void(uint64_t done, uint64_t total)>;

// Like RebaseUnsafely, of a new backing file, or none (`options.no_backing`). Both backing
// files are read where either has data and the image has nothing yet. Killed, or failed, it
// is still on the old one, of which more is in the image file than before, and the same
// again goes on. Of the two moments at which the files are locked the second may find that
// somebody else has them; then too.
Result<RebaseResult> RebaseSafely(FileSystem& file_system, const RebaseOptions& options,
                                  LogSink log, const RebaseProgress& progress);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_REBASE_DATA_H
