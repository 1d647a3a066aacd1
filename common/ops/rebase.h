// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow rebase -u: gives an add-cow file other names, and notes what the
// backing file is. Metadata only: no byte of the disk is read or copied, so the
// new files must hold what the old ones did.

#ifndef ADDCOW_COMMON_OPS_REBASE_H
#define ADDCOW_COMMON_OPS_REBASE_H

#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

struct RebaseOptions {
  std::string add_cow_path;
  // The new names, one of them at least, or no_backing. Stored as they are, and relative to the
  // directory of the add-cow file. With a backing file its identity is noted anew,
  // also where the name stays: that is how a base that has changed is accepted.
  std::optional<NamedFile> backing = std::nullopt;
  // No backing file any more. `same_without`: it has been seen that the disk reads the same
  // with it, or with the new one, whatever either holds.
  bool no_backing = false;
  bool same_without = false;
  // What was looked at: EBUSY where it is another one by now.
  struct Expected {
    FileInfo add_cow;
    uint64_t virtual_size = 0;  // bytes
  };
  std::optional<Expected> expected = std::nullopt;
  std::optional<std::string> image_name = std::nullopt;
  // confine: for a name that stays. check_identity: of what an add-cow base stands on; what
  // is named is accepted.
  AccessOptions access = {};
};

struct RebaseResult {
  Header header;                   // as it is now
  uint64_t virtual_size = 0;       // the disk's, bytes
  std::vector<std::string> notes;  // what somebody should know, a line each
};

// All is durable when it returns. The files are locked as for serving. The new
// add-cow file takes the old one's place in one step, with its rights (ReplaceAddCow);
// on failure the old one is untouched, with one exception: where
// only the directory's sync failed, the new one may be there.
//
// Refuses to do without a backing file as long as a cluster is not allocated. Refuses an image
// file that cannot be the old one's: of another size than the old one, where that is there, or
// too short for what is allocated; or, unless it is the same file, with data where nothing is
// allocated: it may be another disk's. Of the last there is only a note where the old one is
// gone and a cluster is allocated. Where the old one is there, one that lacks data of the disk
// is refused, too: it is no copy.
Result<RebaseResult> RebaseUnsafely(FileSystem& file_system, const RebaseOptions& options);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_REBASE_H
