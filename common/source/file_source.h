// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A local raw file, or a block device, as a Source.

#ifndef ADDCOW_COMMON_SOURCE_FILE_SOURCE_H
#define ADDCOW_COMMON_SOURCE_FILE_SOURCE_H

#include <memory>

#include "common/base/mutex.h"
#include "common/io/file.h"
#include "common/io/holes.h"
#include "common/source/source.h"

namespace addcow {

// The file must not change meanwhile; so where it was once found to have data, it is
// not asked again.
class FileSource final : public Source {
 public:
  // `size` is the file's, taken once: a file that ends before it was truncated under us,
  // and reading there fails with EIO.
  FileSource(std::unique_ptr<File> file, uint64_t size);

  uint64_t size() const override { return size_; }
  Status Read(std::span<std::byte> buffer, uint64_t offset) override;
  Result<DataRun> RunAt(uint64_t offset, uint64_t limit) override ADDCOW_EXCLUDES(mutex_);
  Status Prefetch(uint64_t offset, uint64_t length) override;
  const File* shared_file() const override { return file_.get(); }

 private:
  // The end of the data around `offset`, where that is known; else 0.
  uint64_t KnownDataEnd(uint64_t offset) const ADDCOW_EXCLUDES(mutex_);

  // Constant after construction; what they name is internally synchronised.
  const std::unique_ptr<File> file_;
  const uint64_t size_;
  Holes holes_;

  // Innermost.
  mutable Mutex mutex_;
  // The data that was found last.
  uint64_t data_start_ ADDCOW_GUARDED_BY(mutex_) = 0;
  uint64_t data_end_ ADDCOW_GUARDED_BY(mutex_) = 0;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_FILE_SOURCE_H
