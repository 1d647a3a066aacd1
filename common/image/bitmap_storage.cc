// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See bitmap_storage.h.

#include "common/image/bitmap_storage.h"

#include <algorithm>
#include <vector>

#include "common/base/zero_bytes.h"

namespace addcow {

Status BitmapStorage::TakeAll() {
  const uint64_t bytes = place_.bytes();
  ADDCOW_TRY_ASSIGN(const FileInfo info, file_.Info());
  ADDCOW_TRY_ASSIGN(bool has_all, HasAll());
  if (!has_all && !info.is_block_device) {
    if (bytes > kMostReserved) return {};
    // Most of what is left is for the image file.
    const uint64_t missing = bytes - std::min(bytes, info.allocated_bytes);
    if (info.free_bytes && missing > *info.free_bytes / 4) return {};
    Status taken = Reserve(0, bytes);
    if (!taken && !taken.error().IsUnsupported()) {
      if (taken.error().IsNoRoom()) return {};
      return taken;
    }
    if (!taken) {
      if (bytes > kMostWritten) return {};
      taken = WriteZeroes(0, bytes);
      if (!taken && taken.error().IsNoRoom()) return {};
      ADDCOW_TRY(taken);
    }
  }
  all_.store(true, std::memory_order_release);
  return {};
}

Result<std::unique_ptr<BitmapStorage>> BitmapStorage::Create(File& file,
                                                             const BitmapPlace& place) {
  ADDCOW_TRY_ASSIGN(auto pages,
                    AllocationBitmap::Create(DivideUp(place.bytes(), kPageBytes), file.name()));
  return std::unique_ptr<BitmapStorage>(new BitmapStorage(file, place, std::move(pages)));
}

Status BitmapStorage::Take(ClusterRange range) {
  if (all_.load(std::memory_order_acquire) || range.count == 0) return {};
  const uint64_t first = range.first / 8 / kPageBytes;
  const ClusterRange pages{first, (range.end() - 1) / 8 / kPageBytes - first + 1};
  const ClusterRun run = pages_->RunAt(pages);
  return run.allocated && run.range == pages ? Status() : TakePages(pages);
}

Status BitmapStorage::TakePages(ClusterRange pages) {
  MutexLock lock(mutex_);
  for (uint64_t page = pages.first; page < pages.end(); page++) {
    if (pages_->Test(page)) continue;
    const uint64_t offset = page * kPageBytes;
    const uint64_t end = std::min(offset + kPageBytes, place_.bytes());
    Status taken = Reserve(offset, end);
    if (!taken && taken.error().IsUnsupported()) taken = WriteZeroes(offset, end);
    ADDCOW_TRY(taken);
    pages_->Set({page, 1});
  }
  return {};
}

// Whether the file is known to have all of it: then nothing is changed, not even
// its time stamp, by a server that is only read from.
Result<bool> BitmapStorage::HasAll() {
  constexpr int kMostRuns = 64;  // a file that is in more pieces is reserved again
  ADDCOW_TRY_ASSIGN(const FileInfo info, file_.Info());
  const uint64_t end = place_.offset + place_.bytes();
  if (end > info.size_limit) return false;  // storage alone does not do
  uint64_t position = place_.offset;
  for (int runs = 0; runs < kMostRuns && position < end; runs++) {
    const auto run = file_.StorageAt(position, end - position);
    if (!run && run.error().IsUnsupported()) return false;
    if (!run) return Fail(run.error());
    if (!run->present) return false;
    position += run->length;
  }
  return position >= end;
}

Status BitmapStorage::Reserve(uint64_t offset, uint64_t end) {
  if (!can_reserve_.load(std::memory_order_relaxed))
    return Fail(
        Error::Io(EOPNOTSUPP, "fallocate", file_.name(), place_.offset + offset, end - offset));
  Status reserved = file_.Reserve(place_.offset + offset, end - offset);
  if (!reserved && reserved.error().IsUnsupported())
    can_reserve_.store(false, std::memory_order_relaxed);
  return reserved;
}

// Only in holes, where the file system can tell them; else everywhere, unless
// the file has as much storage as it is long.
Status BitmapStorage::WriteZeroes(uint64_t offset, uint64_t end) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, file_.Info());
  ADDCOW_TRY_ASSIGN(const uint64_t first_hole, file_.FindHole(0));
  ADDCOW_TRY_ASSIGN(const uint64_t size, file_.Size());
  if (first_hole >= size)
    return info.allocated_bytes >= size ? Status() : WriteWhereZero(offset, end);
  while (offset < end) {
    ADDCOW_TRY_ASSIGN(const uint64_t data, file_.FindData(place_.offset + offset));
    const uint64_t stop = std::min(data - place_.offset, end);
    ADDCOW_TRY(WriteWhereZero(offset, stop));
    if (stop == end) break;
    ADDCOW_TRY_ASSIGN(const uint64_t hole, file_.FindHole(data));
    // It may not move on where the file was truncated underneath.
    offset = std::max(hole, data + 1) - place_.offset;
  }
  return {};
}

// What the file system calls a hole is read all the same: one that does not know
// of what waits in the kernel's cache would have us write over set bits.
Status BitmapStorage::WriteWhereZero(uint64_t offset, uint64_t end) {
  std::vector<std::byte> buffer(kPageBytes);
  while (offset < end) {
    const uint64_t stop = std::min(RoundDown(offset, kPageBytes) + kPageBytes, end);
    const auto page = std::span(buffer).first(static_cast<size_t>(stop - offset));
    ADDCOW_TRY(file_.ReadExactly(page, place_.offset + offset));
    if (IsZero(page)) ADDCOW_TRY(file_.Write(page, place_.offset + offset));
    offset = stop;
  }
  return {};
}

}  // namespace addcow
