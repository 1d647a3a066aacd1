// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See backing.h.

#include "common/image/backing.h"

#include <algorithm>

namespace addcow {

Backing::Backing(File* file, uint64_t size) : file_(file), size_(file != nullptr ? size : 0) {
  if (file_ == nullptr) return;
  holes_.emplace(*file_);
  // Where it cannot be synced, all is data.
  (void)holes_->Settle(*file_);
}

Status Backing::Read(std::span<std::byte> buffer, uint64_t offset) const {
  const uint64_t there = offset < size_ ? std::min<uint64_t>(size_ - offset, buffer.size()) : 0;
  const auto from_file = buffer.first(static_cast<size_t>(there));
  if (!from_file.empty()) ADDCOW_TRY(file_->ReadExactly(from_file, offset));
  std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(there), buffer.end(), std::byte{0});
  return {};
}

Result<uint64_t> Backing::FindData(uint64_t offset, uint64_t end) const {
  const uint64_t limit = std::min(end, size_);
  if (offset >= limit) return end;
  if (KnownDataEnd(offset) > 0) return offset;
  ADDCOW_TRY_ASSIGN(const uint64_t data, holes_->FindData(offset));
  return data < limit ? data : end;
}

Result<uint64_t> Backing::FindHole(uint64_t offset, uint64_t end) const {
  const uint64_t limit = std::min(end, size_);
  if (offset >= limit) return offset;
  if (const uint64_t known = KnownDataEnd(offset); known > 0) return std::min(known, limit);
  ADDCOW_TRY_ASSIGN(const uint64_t hole, holes_->FindHole(offset));
  // Storage may be found again at `offset` itself only if the file shrank.
  if (hole <= offset) return limit;
  MutexLock lock(mutex_);
  data_start_ = offset;
  data_end_ = hole;
  return std::min(hole, limit);
}

uint64_t Backing::KnownDataEnd(uint64_t offset) const {
  MutexLock lock(mutex_);
  return offset >= data_start_ && offset < data_end_ ? data_end_ : 0;
}

Status Backing::Prefetch(uint64_t offset, uint64_t length) const {
  const uint64_t end = std::min(offset + length, size_);
  if (offset >= end) return {};
  return file_->Prefetch(offset, end - offset);
}

}  // namespace addcow
