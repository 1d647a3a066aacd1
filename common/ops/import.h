// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow import: makes an add-cow image out of what a qcow2 overlay holds itself, on the same
// backing file. The qcow2 is only read.

#ifndef ADDCOW_COMMON_OPS_IMPORT_H
#define ADDCOW_COMMON_OPS_IMPORT_H

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/io/file_system.h"
#include "common/ops/create.h"
#include "common/source/qemu_layer.h"
#include "common/source/source.h"

namespace addcow {

struct ImportOptions {
  std::string qcow2_path;  // from the working directory
  // What is made. The backing file and the size are those of the qcow2, whatever is here.
  CreateOptions create = {};
  // Of the backing file, where the qcow2 does not say it.
  std::optional<std::string> backing_format = std::nullopt;
  // Also where something of the qcow2 has no place in an add-cow image.
  bool force = false;
};

struct ImportResult {
  CreateResult created;
  std::optional<NamedFile> backing;  // as it is named in the new file
  uint64_t data = 0;                 // bytes that were copied
  uint64_t zeroes = 0;               // bytes that the image file has as a hole
  std::vector<std::string> lost;     // what was left out, in words
  uint64_t compressed = 0;           // bytes that were, in the qcow2, and are not any more
};

// All is durable when it returns. On failure nothing is left behind, and killed, nothing
// that has a name of the image but a whole image file at most. Refused, before anything is
// made: a qcow2 that is encrypted, or in use by a program that writes to it; one whose
// backing file has no format (EINVAL), or none that is served here; one with anything that
// would be lost, or that is compressed, without `force`.
//
// The backing file is named so that it is the same file from the add-cow file's directory:
// a relative name stays relative.
Result<ImportResult> ImportQcow2(FileSystem& file_system, const ImportOptions& options);

// The half of it that knows nothing of QEMU: an image of what `runs` says that `layer` has,
// ascending and apart, as `create` says. Where an end of a run is none of a subcluster (or
// cluster, without those) the rest of that comes from the backing file.
// `from`: the file that the layer is, whose rights the image file has at most.
Result<ImportResult> ImportLayer(FileSystem& file_system, CreateOptions create, Source& layer,
                                 const std::vector<LayerRun>& runs,
                                 const std::optional<FileInfo>& from = std::nullopt);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_IMPORT_H
