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

// Whether the image file was named to be another one than the header's, which is there as well.
// Who confines does not want files opened by the name in the header: false.
bool IsAnotherThanNamed(FileSystem& file_system, const ImageSource& source,
                        const ImageFiles& files);

// Of one that is such. EINVAL where it has not the size of the one that the header names, or
// data where nothing is allocated. Of what may be data no more than 64 MiB are read. Before
// the image is used.
Status CheckDataIsOwn(FileSystem& file_system, const Image& image);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_OWN_DATA_H
