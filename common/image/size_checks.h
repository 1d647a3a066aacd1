// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether an add-cow file and its image file go together, by their sizes and by how the
// image file begins.

#ifndef ADDCOW_COMMON_IMAGE_SIZE_CHECKS_H
#define ADDCOW_COMMON_IMAGE_SIZE_CHECKS_H

#include "common/base/error.h"
#include "common/image/image_files.h"

namespace addcow {

// That the bitmaps are as long as the disk needs; with subclusters not longer either.
Status CheckBitmapSize(const ImageFiles& files);

// That the image file is not an add-cow file, which was named by mistake. What a guest
// wrote must not keep its disk from being served, so where the first cluster is allocated,
// or its first subcluster, its bytes are the guest's business.
Status CheckImageContents(const ImageFiles& files);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_SIZE_CHECKS_H
