// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow info: what the header says, and what only the files can say: sizes,
// how much is allocated, and who uses them.

#ifndef ADDCOW_COMMON_OPS_INFO_H
#define ADDCOW_COMMON_OPS_INFO_H

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/format/header.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

struct ImageInfo {
  Header header;
  std::string image_path;     // where the header's name leads
  std::string backing_path;   // the same; empty without a backing file
  uint64_t virtual_size = 0;  // bytes
  uint64_t actual_size = 0;   // storage in use by the add-cow and the image file, bytes
  uint64_t total_clusters = 0;
  // Of these, by the bits in the file: a server may have more that it has not
  // flushed. All, with ALL_ALLOCATED.
  uint64_t allocated_clusters = 0;
  // Of clusters that are not allocated: those with subclusters in the image file, and
  // these subclusters.
  uint64_t partial_clusters = 0;
  uint64_t allocated_subclusters = 0;
  // What other programs do with the add-cow file or the image file, by their
  // locks; none where files cannot be locked.
  std::optional<FileUse> use;
  // What somebody should know of the backing file, if it is there, and of what that stands
  // on: a line each.
  std::vector<std::string> notes = {};
};

// The strongest use of the two files by others. Takes no locks.
std::optional<FileUse> UseByOthers(const ImageFiles& files);

// Reads; writes nothing. The image file must be there, since its size is the
// disk's; the backing file need not be, nor be of a format that can be served.
// Nothing is locked: what is shown cannot be torn by a server that has the
// files open, and bits only go from 0 to 1.
Result<ImageInfo> GetInfo(FileSystem& file_system, ImageSource source);

// The same without notes: what it stands on is not looked at.
Result<ImageInfo> GetOwnInfo(FileSystem& file_system, const ImageSource& source);

// A link of a chain: an add-cow image, one of QEMU's formats, or what is at the end.
struct ChainLink {
  std::string path;
  std::string format;
  std::optional<ImageInfo> image = std::nullopt;        // of an add-cow image
  std::optional<uint64_t> virtual_size = std::nullopt;  // bytes; none where it takes a server
  std::optional<uint64_t> actual_size = std::nullopt;   // bytes of storage; the same
};

// The image and all that it stands on, as far as headers say; each file must be there.
// Of images of QEMU's qemu-img is asked, if that is there; servers are not. kErrCorrupt
// where it stands on itself.
Result<std::vector<ChainLink>> GetChain(FileSystem& file_system, ImageSource source);

// With the files where the header says.
inline Result<ImageInfo> GetInfo(FileSystem& file_system, const std::string& add_cow_path,
                                 const std::optional<std::string>& confine = std::nullopt) {
  return GetInfo(file_system,
                 ImageSource{.add_cow_path = add_cow_path, .access = {.confine = confine}});
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_INFO_H
