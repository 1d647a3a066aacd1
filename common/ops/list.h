// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow ls: the add-cow images below a folder, and what stands on what.

#ifndef ADDCOW_COMMON_OPS_LIST_H
#define ADDCOW_COMMON_OPS_LIST_H

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/io/file_system.h"
#include "common/ops/info.h"

namespace addcow {

// An add-cow image, or a base of one, which may be anything.
struct ListedDisk {
  std::string path;  // as it was found; of a base where a header leads, or a URI
  std::vector<std::string> other_names;  // of the same file in that directory (hard links)
  std::string format;                    // of a base: as the header says
  bool below = false;                    // an add-cow file that was found below the folder
  std::optional<ImageInfo> info;         // of an add-cow image that could be looked at
  std::optional<Error> error;  // why it could not, or is not there, or stands on itself
  // Indices into Listing::disks: what it stands on, and what stands on it.
  std::optional<size_t> base;
  std::vector<size_t> overlays;
  // The images whose image file it is.
  std::vector<size_t> image_of;
  // Of an add-cow image: what stands on its image file alone, and other images that have the
  // same one, as a copy of an add-cow file has.
  std::vector<size_t> image_overlays;
  std::vector<size_t> image_shared;

  // Nothing that was found needs it, or its image file.
  bool IsFree() const {
    return info && overlays.empty() && image_overlays.empty() && image_shared.empty();
  }
};

struct Listing {
  // Those below the folder first, by their paths.
  std::vector<ListedDisk> disks;
  // Folders and files that could not be looked at: what is in them is not known.
  std::vector<Error> unread;
  // A line for each add-cow file that a killed command has left half made. Like one that is
  // being made, it is no image.
  std::vector<std::string> notes;
};

// Looks through all regular files below `directory`, whatever they are called; symbolic links
// are not followed. Nothing is locked or written, no server is asked, and of bases that are
// no add-cow images nothing is opened. With ALL_ALLOCATED a base counts that the header names.
// Fails where `directory` itself cannot be read; what is broken or cannot be read below it is
// in the result.
Result<Listing> ListImages(FileSystem& file_system, const std::string& directory,
                           const Interrupted& interrupted = {});

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_LIST_H
