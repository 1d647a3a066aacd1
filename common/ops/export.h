// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow export: makes a qcow2 overlay of what an add-cow image holds, on the same backing
// file. The image is only read.

#ifndef ADDCOW_COMMON_OPS_EXPORT_H
#define ADDCOW_COMMON_OPS_EXPORT_H

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"
#include "common/ops/commit_target.h"
#include "common/source/qemu_layer.h"

namespace addcow {

struct ExportOptions {
  ImageSource source;
  std::string qcow2_path;         // from the working directory
  uint64_t cluster_size = 65536;  // of the qcow2, bytes: a power of two, 512 to 2 MiB
  bool force = false;             // replace a qcow2 that is there
  // Called now and then with the bytes of data that are written, and of all there are.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

struct ExportResult {
  uint64_t virtual_size = 0;         // of the qcow2, bytes
  std::optional<NamedFile> backing;  // as it is named there
  uint64_t data = 0;                 // bytes that were written
  uint64_t zeroes = 0;               // bytes that are marked as zero
  std::vector<std::string> notes;    // what somebody should know, a line each
};

// All is durable when it returns. The qcow2 is written under another name and gets its own
// at the end. On failure nothing is left behind, and what was there is untouched. Refused: an
// image on another add-cow image, which QEMU cannot read; with `force` what is no qcow2, is in
// use, or is what the image is made of.
Result<ExportResult> ExportQcow2(FileSystem& file_system, const ExportOptions& options);

// Makes what is exported to of a file that is there, and empty: it reads as the backing file
// where nothing is written, and has whole sectors. Its errors are the export's.
using MakeExportTarget =
    std::function<Result<std::unique_ptr<CommitTarget>>(const NewQcow2& image)>;

// All of it that knows nothing of QEMU.
Result<ExportResult> ExportImage(FileSystem& file_system, const ExportOptions& options,
                                 const MakeExportTarget& make);

// And of that the copying: writes what the image file has to `target`, and closes it. Of a disk
// that ends within a sector, the rest of that is zero. Counts in `result`.
Status ExportLayer(const ImageFiles& files, const ExportOptions& options, CommitTarget& target,
                   ExportResult& result);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_EXPORT_H
