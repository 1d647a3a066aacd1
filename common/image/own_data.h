// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Is an image file that was named by an option, and not by the header, this disk's? The bits
// say where one has bytes of the disk; another disk's has data elsewhere, which would be
// overwritten.

#ifndef ADDCOW_COMMON_IMAGE_OWN_DATA_H
#define ADDCOW_COMMON_IMAGE_OWN_DATA_H

#include "common/base/error.h"
#include "common/image/image.h"
#include "common/io/file_system.h"

namespace addcow {

// EINVAL where the file that the header names is there and another one, and this one has not
// its size, or data where nothing is allocated. Of what may be data no more than 64 MiB are
// read. Before the image is used.
Status CheckDataIsOwn(FileSystem& file_system, const Image& image);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_OWN_DATA_H
