// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a commit writes to: the disk that an image stands on, of any format that can be
// written. Nobody else has it open as long as the object lives, as far as its format has
// locks: of a server nobody can tell.
//
// Threads: one at a time.

#ifndef ADDCOW_COMMON_OPS_COMMIT_TARGET_H
#define ADDCOW_COMMON_OPS_COMMIT_TARGET_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

class CommitTarget {
 public:
  CommitTarget() = default;
  CommitTarget(const CommitTarget&) = delete;
  CommitTarget& operator=(const CommitTarget&) = delete;
  virtual ~CommitTarget() = default;

  virtual uint64_t size() const = 0;  // bytes

  // Makes it larger; what is new reads as zeroes. It is durable when it returns. Only where
  // can_grow().
  virtual bool can_grow() const { return false; }
  virtual Status Grow(uint64_t size);

  // Within the disk. Durable after a Flush.
  virtual Status Write(std::span<const std::byte> data, uint64_t offset) = 0;
  // Makes the range read as zeroes, and gives its storage back where that goes.
  virtual Status Zero(uint64_t offset, uint64_t length) = 0;
  virtual Status Flush() = 0;
  // Flushes, and ends what serves it. The last call.
  virtual Status Close() { return Flush(); }
};

struct CommitBase {
  std::string path;                    // absolute, or a URI
  std::string format;                  // one that IsBaseFormat knows
  std::optional<FileInfo> is = {};     // the file that it must be; none of a URI
  std::vector<ChainFile> others = {};  // that an image of QEMU's names
  uint64_t size = 0;                   // bytes of its disk; of an image of QEMU's
};

// For a program of QEMU's that failed, and has been writing to `image`: whether that is as long
// as files of this process may be (ulimit -f), or nearly. QEMU inherits the limit, and has
// other words for it. EFBIG.
std::optional<Error> SizeLimitReached(File& image);

// EBUSY where somebody else has it open. EROFS, EACCES where it cannot be written.
Result<std::unique_ptr<CommitTarget>> OpenCommitTarget(FileSystem& file_system,
                                                       const CommitBase& base,
                                                       const AccessOptions& access);

// The same as far as that can be told without opening a file for writing: locked as it would
// be, and for its size only. Of what QEMU refuses only when it opens an image for writing
// nothing is known.
Result<std::unique_ptr<CommitTarget>> LookAtCommitTarget(FileSystem& file_system,
                                                         const CommitBase& base,
                                                         const AccessOptions& access);

// Whether the two files of an image that is open for reading could be written to; it is locked
// for that. The same errors as where they are opened so.
Status LookAtWriting(FileSystem& file_system, const ImageFiles& files,
                     const AccessOptions& access);

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_COMMIT_TARGET_H
