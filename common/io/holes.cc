// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See holes.h. What is known here is looked at before the file system is asked,
// never after: between the two a sync may make it forget what was written, and
// the file system know of it.

#include "common/io/holes.h"

#include <algorithm>
#include <iterator>

namespace addcow {

namespace {

// Whether the file simply cannot be synced.
bool IsNoSync(const Error& error) {
  switch (error.code()) {
    case EINVAL:
    case ENOSYS:
    case EOPNOTSUPP:
    case EROFS:
    case EBADF:
    case EPERM:
      return true;
    default:
      return false;
  }
}

}  // namespace

Status Holes::Settle(File& by) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, file_.Info());
  if (info.well_known) {
    belief_ = Belief::kAlways;
    return {};
  }
  if (Status synced = by.SyncData(); !synced)
    return IsNoSync(synced.error()) ? Status() : synced;
  belief_ = Belief::kAfterSync;
  return {};
}

Result<uint64_t> Holes::FindData(uint64_t offset) const {
  if (belief_ == Belief::kAlways) return file_.FindData(offset);
  if (belief_ == Belief::kNever) return offset;
  const auto unsynced = Unsynced(offset);
  if (unsynced == offset) return offset;
  ADDCOW_TRY_ASSIGN(const uint64_t data, file_.FindData(offset));
  return unsynced ? std::min(*unsynced, data) : data;
}

Result<DataRun> Holes::RunAt(uint64_t offset, uint64_t limit) const {
  ADDCOW_TRY_ASSIGN(const uint64_t data, FindData(offset));
  if (data > offset) return DataRun{false, std::min(data, limit)};
  ADDCOW_TRY_ASSIGN(const uint64_t hole, FindHole(offset));
  // Storage may be found again at `offset` itself only if the file shrank.
  return DataRun{true, hole > offset ? std::min(hole, limit) : limit};
}

Result<uint64_t> Holes::FindHole(uint64_t offset) const {
  if (belief_ == Belief::kAlways) return file_.FindHole(offset);
  if (belief_ == Belief::kNever) {
    ADDCOW_TRY_ASSIGN(const uint64_t size, file_.Size());
    return std::max(size, offset);
  }
  for (;;) {
    const uint64_t end = UnsyncedEnd(offset);
    ADDCOW_TRY_ASSIGN(const uint64_t hole, file_.FindHole(end));
    // Only where nothing was unsynced when it was asked for.
    if (hole == offset) return hole;
    offset = hole;
  }
}

Status Holes::VisitData(
    uint64_t offset, uint64_t end, uint64_t most,
    const std::function<Result<bool>(uint64_t offset, uint64_t length)>& visit) const {
  while (offset < end) {
    ADDCOW_TRY_ASSIGN(uint64_t data, FindData(offset));
    if (data >= end) return {};
    ADDCOW_TRY_ASSIGN(const uint64_t hole, FindHole(data));
    // It may not move on where the file was truncated underneath.
    offset = std::min(std::max(hole, data + 1), end);
    for (; data < offset; data += most) {
      ADDCOW_TRY_ASSIGN(const bool more, visit(data, std::min(most, offset - data)));
      if (!more) return {};
    }
  }
  return {};
}

void Holes::Note(uint64_t offset, uint64_t length) {
  if (length == 0) return;
  MutexLock lock(mutex_);
  uint64_t end = offset + length;
  auto at = unsynced_.upper_bound(offset);
  if (at != unsynced_.begin() && std::prev(at)->second.end >= offset) --at;
  // Joined with what it meets.
  for (; at != unsynced_.end() && at->first <= end; at = unsynced_.erase(at)) {
    offset = std::min(offset, at->first);
    end = std::max(end, at->second.end);
  }
  unsynced_[offset] = {end, syncs_ + 1};
  if (unsynced_.size() <= kMostRanges) return;
  offset = unsynced_.begin()->first;
  end = unsynced_.rbegin()->second.end;
  unsynced_.clear();
  unsynced_[offset] = {end, syncs_ + 1};
}

uint64_t Holes::SyncBegins() {
  MutexLock lock(mutex_);
  return ++syncs_;
}

void Holes::SyncSucceeded(uint64_t begun) {
  MutexLock lock(mutex_);
  std::erase_if(unsynced_, [&](const auto& range) { return range.second.sync <= begun; });
}

uint64_t Holes::UnsyncedEnd(uint64_t offset) const {
  MutexLock lock(mutex_);
  const auto after = unsynced_.upper_bound(offset);
  if (after == unsynced_.begin()) return offset;
  return std::max(offset, std::prev(after)->second.end);
}

std::optional<uint64_t> Holes::Unsynced(uint64_t offset) const {
  MutexLock lock(mutex_);
  const auto after = unsynced_.upper_bound(offset);
  if (after != unsynced_.begin() && std::prev(after)->second.end > offset) return offset;
  if (after == unsynced_.end()) return std::nullopt;
  return after->first;
}

}  // namespace addcow
