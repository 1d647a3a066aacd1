// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See backing.h.

#include "common/image/backing.h"

#include <algorithm>
#include <vector>

namespace addcow {

void Backing::NoteLeft() const {
  // Who waits has looked at users_, and sleeps, or will look again.
  {
    MutexLock lock(mutex_);
  }
  left_.NotifyAll();
}

bool Backing::LetGo() {
  MutexLock closing(closing_mutex_);
  if (!may_go_ || (users_.fetch_or(kGone, std::memory_order_acq_rel) & kGone) != 0)
    return false;
  {
    MutexLock lock(mutex_);
    while (users_.load(std::memory_order_acquire) != kGone) left_.Wait(mutex_);
  }
  source_.reset();
  return true;
}

Status Backing::Read(std::span<std::byte> buffer, uint64_t offset) const {
  const uint64_t there = offset < size_ ? std::min<uint64_t>(size_ - offset, buffer.size()) : 0;
  const auto from_source = buffer.first(static_cast<size_t>(there));
  if (!from_source.empty()) {
    ADDCOW_TRY(source_->Read(from_source, offset));
    counters_.Add(Count::kSource, there);
  }
  if (there == buffer.size()) return {};
  counters_.Add(Count::kZeroes, buffer.size() - there);
  std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(there), buffer.end(), std::byte{0});
  return {};
}

Status Backing::ReadPieces(std::span<const Source::Piece> pieces,
                           const Source::Arrived& arrived) const {
  std::vector<Source::Piece> there;
  std::vector<size_t> piece_of;
  uint64_t from_source = 0;
  for (size_t i = 0; i < pieces.size(); i++) {
    const auto [buffer, offset] = pieces[i];
    const auto data = offset < size_ ? std::min<uint64_t>(size_ - offset, buffer.size()) : 0;
    std::ranges::fill(buffer.subspan(static_cast<size_t>(data)), std::byte{0});
    if (data > 0) {
      there.push_back({buffer.first(static_cast<size_t>(data)), offset});
      piece_of.push_back(i);
      from_source += data;
    } else if (arrived) {
      arrived(i);
    }
  }
  if (there.empty()) return {};
  counters_.Add(Count::kSource, from_source);
  return source_->ReadPieces(there, [&](size_t i) {
    if (arrived) arrived(piece_of[i]);
  });
}

Result<DataRun> Backing::RunAt(uint64_t offset, uint64_t limit) const {
  if (offset >= size_) return DataRun{false, limit};
  return source_->RunAt(offset, std::min(limit, size_));
}

Result<uint64_t> Backing::FindData(uint64_t offset, uint64_t end) const {
  while (offset < std::min(end, size_)) {
    ADDCOW_TRY_ASSIGN(const DataRun run, RunAt(offset, end));
    if (run.data) return offset;
    offset = run.end;
  }
  return end;
}

Result<uint64_t> Backing::FindHole(uint64_t offset, uint64_t end) const {
  ADDCOW_TRY_ASSIGN(const DataRun run, RunAt(offset, end));
  return run.data ? run.end : offset;
}

Status Backing::Prefetch(uint64_t offset, uint64_t length) const {
  const uint64_t end = std::min(offset + length, size_);
  return offset < end ? source_->Prefetch(offset, end - offset) : Status();
}

}  // namespace addcow
