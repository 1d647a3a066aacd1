// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The parts of a new add-cow file: what the verbs that make one, or make one anew,
// write into it before it gets its name (durable_create.h). Nothing is synced here.

#ifndef ADDCOW_COMMON_OPS_NEW_ADD_COW_H
#define ADDCOW_COMMON_OPS_NEW_ADD_COW_H

#include "common/base/error.h"
#include "common/format/header.h"
#include "common/format/layout.h"
#include "common/io/file.h"

namespace addcow {

// Into a file that is empty: pages without a byte stay holes.
Status WriteNewHeader(File& file, const HeaderBytes& header);

// Copies what comes after the header, holes as holes.
Status CopyBits(File& from, File& to, const Geometry& geometry);

// Storage for the bits that are to be set later, where there is room.
Status TakeStorageForBits(File& file, const Layout& layout);

// An add-cow file that is a device cannot be replaced by another one.
Status RefuseDevice(File& add_cow);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_NEW_ADD_COW_H
