// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How import, export and commit copy: piece by piece, each of which is begun when its turn has
// come, until somebody interrupts, and telling how far it is.
//
// Threads: one at a time.

#ifndef ADDCOW_COMMON_OPS_COPY_LAYER_H
#define ADDCOW_COMMON_OPS_COPY_LAYER_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/io/file.h"
#include "common/jobs/fill_pace.h"
#include "common/ops/commit_target.h"
#include "common/ops/layer_runs.h"

namespace addcow {

class PieceCopier {
 public:
  struct Options {
    uint64_t total = 0;  // bytes that are to be copied
    uint64_t rate = 0;   // bytes a second that are copied; 0: no limit
    Interrupted interrupted = {};
    // Called with the bytes that are copied, the total at most, and with that. May be empty.
    std::function<void(uint64_t done, uint64_t total)> progress = {};
  };
  using Read = std::function<Status(std::span<std::byte> buffer, uint64_t offset)>;
  using Write = std::function<Status(std::span<const std::byte> data, uint64_t offset)>;
  using Zero = std::function<Status(uint64_t offset, uint64_t length)>;

  explicit PieceCopier(Options options);

  // In pieces of 1 MiB at most (less with a small rate) that end where a piece of the disk
  // does. `file`: what the error of an interruption names.
  Status CopyData(const std::string& file, ByteRange range, const Read& read,
                  const Write& write);
  // In pieces of 256 MiB at most, which count for no progress.
  Status CopyZeroes(const std::string& file, ByteRange range, const Zero& zero);
  void TellProgress() const;

 private:
  // Waits for that, at a rate. Fails where somebody interrupts.
  Status WaitForTurn(const std::string& file);

  const Options options_;
  const uint64_t piece_;  // bytes
  FillPace pace_;
  std::vector<std::byte> buffer_;
  uint64_t done_ = 0;
};

// What the image file of an image has, on its way into a disk that reads as the backing file
// where nothing is written.
struct LayerToCopy {
  const std::string& file;  // what the error of an interruption names
  File& image;
  const LayerRuns& runs;
  CommitTarget& target;
  // From there on zeroes are left out, since the target is zero.
  uint64_t zeroes_end = UINT64_MAX;
  // Called before each change of the target; may be empty.
  std::function<void()> before_change = {};
};

// Nothing is flushed.
Status CopyLayer(PieceCopier& copier, const LayerToCopy& layer);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_COPY_LAYER_H
