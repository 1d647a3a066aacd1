// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See file_source.h.

#include "common/source/file_source.h"

#include <algorithm>
#include <utility>

namespace addcow {

FileSource::FileSource(std::unique_ptr<File> file, uint64_t size)
    : file_(std::move(file)), size_(size), holes_(*file_) {
  // Where it cannot be synced, all is data.
  (void)holes_.Settle(*file_);
}

Status FileSource::Read(std::span<std::byte> buffer, uint64_t offset) {
  return file_->ReadExactly(buffer, offset);
}

Result<DataRun> FileSource::RunAt(uint64_t offset, uint64_t limit) {
  if (const uint64_t known = KnownDataEnd(offset); known > 0)
    return DataRun{true, std::min(known, limit)};
  ADDCOW_TRY_ASSIGN(const DataRun run, holes_.RunAt(offset, size_));
  if (run.data) {
    MutexLock lock(mutex_);
    data_start_ = offset;
    data_end_ = run.end;
  }
  return DataRun{run.data, std::min(run.end, limit)};
}

uint64_t FileSource::KnownDataEnd(uint64_t offset) const {
  MutexLock lock(mutex_);
  return offset >= data_start_ && offset < data_end_ ? data_end_ : 0;
}

Status FileSource::Prefetch(uint64_t offset, uint64_t length) {
  return file_->Prefetch(offset, length);
}

}  // namespace addcow
