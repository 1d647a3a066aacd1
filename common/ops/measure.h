// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow measure: what a copy of a disk takes, as a raw file or as a qcow2.

#ifndef ADDCOW_COMMON_OPS_MEASURE_H
#define ADDCOW_COMMON_OPS_MEASURE_H

#include <cstdint>
#include <functional>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/io/file_system.h"
#include "common/ops/named_disk.h"

namespace addcow {

// In bytes of storage, as qemu-img measure has them.
struct Measured {
  uint64_t required = 0;         // with holes where the disk says it is zero
  uint64_t fully_allocated = 0;  // without any
};

enum class MeasureFor { kRaw, kQcow2 };

// qemu-img's default, of an image that it makes.
inline constexpr uint64_t kQcow2ClusterSize = 65536;

// Extents are asked for, and nothing is read.
Result<Measured> MeasureDisk(FileSystem& file_system, const NamedDisk& disk,
                             const AccessOptions& access, MeasureFor what,
                             const Interrupted& interrupted);

// The bytes of a qcow2 of which all of `size` bytes are allocated: version 3, clusters of
// kQcow2ClusterSize, refcounts of 16 bits. Source: QEMU, docs/interop/qcow2.txt.
uint64_t Qcow2Size(uint64_t size);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_MEASURE_H
