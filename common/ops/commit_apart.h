// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether several images can be committed at once: what one writes, no other may read or write.

#ifndef ADDCOW_COMMON_OPS_COMMIT_APART_H
#define ADDCOW_COMMON_OPS_COMMIT_APART_H

#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

// EINVAL where two images, by the files that each is made of, are one, stand on each other, or
// on one file that would be written. Far below they may share what is only read. `path` and
// `other` are their add-cow files' names, for the message.
Status CheckPairApart(const std::string& path, const std::vector<ChainFile>& chain,
                      const std::string& other, const std::vector<ChainFile>& of_other);

// The same of all pairs, before anything is locked or served: what lies below an image of
// QEMU's is not known yet.
Status CheckApart(FileSystem& file_system, const std::vector<std::string>& add_cow_paths,
                  const AccessOptions& access);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_COMMIT_APART_H
