// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See check.h. One pass over the raw bitmap; for its runs of zeroes the image
// file is asked for storage, and asked once for each hole, however many runs
// it spans. A repairing pass does the same and mends as it goes.
//
// Repairs, and why they are safe:
//
//   leak         its clusters are punched out of the image file. Only where
//                the bit is 0 and ALL_ALLOCATED is not set: nobody reads it.
//   missing bit  set. The flag said so already, and data is synced before.
//   stray bit    cleared, by kAll. Nobody reads it; but were the image file to grow,
//                it would become a cluster's.

#include "common/ops/check.h"

#include <algorithm>

#include "common/image/image_files.h"
#include "common/ops/raw_bitmap.h"

namespace addcow {

namespace {

// Finds the storage that the image file has under bits that are 0.
class LeakFinder {
 public:
  LeakFinder(File& image, const Layout& layout) : image_(image), layout_(layout) {}

  // Calls `found` with the clusters of `range` that have storage. Ranges must
  // come in ascending order.
  Status Find(ClusterRange range, const std::function<Status(ClusterRange)>& found) {
    const uint64_t end = layout_.End(range.end());
    for (uint64_t offset = Layout::Start(range.first); offset < end;) {
      if (offset >= hole_) ADDCOW_TRY(FindNext(offset));
      if (data_ >= end) break;
      const uint64_t start = std::max(offset, data_);
      const ClusterRange leaked = Layout::Touched(start, std::min(hole_, end) - start);
      ADDCOW_TRY(found(leaked));
      offset = Layout::Start(leaked.end());
    }
    return {};
  }

 private:
  Status FindNext(uint64_t offset) {
    ADDCOW_TRY_ASSIGN(data_, image_.FindData(offset));
    hole_ = layout_.virtual_size();
    if (data_ >= hole_) return {};
    ADDCOW_TRY_ASSIGN(const uint64_t hole, image_.FindHole(data_));
    // It may not move on where the file was truncated underneath.
    if (hole > data_) hole_ = hole;
    return {};
  }

  File& image_;
  const Layout layout_;
  // The storage that was found last: from data_ to hole_, and none before.
  uint64_t data_ = 0;
  uint64_t hole_ = 0;
};

class Checker {
 public:
  Checker(const ImageFiles& files, Repair repair)
      : files_(files),
        repair_(repair),
        layout_(files.virtual_size),
        leaks_(*files.image, layout_) {}

  // Fills `report` but for the repair's own figures.
  Status Run(CheckReport& report) {
    report.total_clusters = layout_.clusters();
    if (files_.header.all_allocated) report.allocated_clusters = layout_.clusters();
    ADDCOW_TRY_ASSIGN(can_tell_, CanTellHoles());
    ADDCOW_TRY_ASSIGN(const uint64_t bytes, RawBitmapBytes(*files_.add_cow));
    // The bits to be set vouch for data: it goes first.
    if (repair_ == Repair::kAll) ADDCOW_TRY(files_.image->SyncData());
    ADDCOW_TRY(VisitRawBits(*files_.add_cow, bytes,
                            [&](const ClusterRun& run) { return Visit(run, report); }));
    if (repair_ == Repair::kNone) return {};
    ADDCOW_TRY(files_.image->SyncData());
    return files_.add_cow->SyncData();
  }

 private:
  Status Visit(const ClusterRun& run, CheckReport& report) {
    const uint64_t border = std::clamp(layout_.clusters(), run.range.first, run.range.end());
    ADDCOW_TRY(Inside(run.allocated, {run.range.first, border - run.range.first}, report));
    if (!run.allocated) return {};
    return Stray({border, run.range.end() - border}, report);
  }

  Status Inside(bool set, ClusterRange range, CheckReport& report) {
    if (range.count == 0) return {};
    if (files_.header.all_allocated) return set ? Status() : Missing(range, report);
    if (set) {
      report.allocated_clusters += range.count;
      return {};
    }
    if (!can_tell_) return {};
    return leaks_.Find(range, [&](ClusterRange leaked) { return Leak(leaked, report); });
  }

  // Whether holes of the image file can be told from data. Not on a device,
  // nor where all of it passes for data though it has not that much storage.
  Result<bool> CanTellHoles() {
    ADDCOW_TRY_ASSIGN(const FileInfo info, files_.image->Info());
    ADDCOW_TRY_ASSIGN(const uint64_t data, files_.image->FindData(0));
    ADDCOW_TRY_ASSIGN(const uint64_t hole, files_.image->FindHole(0));
    const bool all_data = data == 0 && hole >= layout_.virtual_size();
    return !info.is_block_device &&
           !(all_data && info.allocated_bytes < layout_.virtual_size());
  }

  Status Leak(ClusterRange range, CheckReport& report) {
    report.leaked_clusters += range.count;
    if (repair_ == Repair::kNone) return {};
    // To the end of a last, partial cluster, past the file's end: cut at that
    // end, the file system would keep the last block.
    const uint64_t start = Layout::Start(range.first);
    const uint64_t end = std::min(Layout::Start(range.end()), kMaxOffset);
    return files_.image->PunchHole(start, end - start);
  }

  Status Missing(ClusterRange range, CheckReport& report) {
    report.missing_bits += range.count;
    return repair_ == Repair::kAll ? FillRawBits(*files_.add_cow, range, true) : Status();
  }

  Status Stray(ClusterRange range, CheckReport& report) {
    report.stray_bits += range.count;
    return repair_ == Repair::kAll ? FillRawBits(*files_.add_cow, range, false) : Status();
  }

  const ImageFiles& files_;
  const Repair repair_;
  const Layout layout_;
  LeakFinder leaks_;
  bool can_tell_ = false;
};

// What went wrong once the files were open is part of the report.
CheckReport RunChecker(const ImageFiles& files, Repair repair) {
  CheckReport report;
  if (Status done = Checker(files, repair).Run(report); !done) {
    report.error = std::move(done).error();
    report.check_errors = report.error->code() == kErrCorrupt ? 0 : 1;
  }
  return report;
}

}  // namespace

Result<CheckReport> CheckImage(FileSystem& file_system, const std::string& add_cow_path,
                               Repair repair, const AccessOptions& access) {
  const bool writes = repair != Repair::kNone;
  const auto files =
      OpenImageFiles(file_system, {.add_cow_path = add_cow_path,
                                   .image_path = {},
                                   .backing_path = {},
                                   .mode = writes ? OpenMode::kReadWrite : OpenMode::kReadOnly,
                                   .want_backing = true,
                                   .access = access});
  if (!files) {
    if (files.error().code() != kErrCorrupt) return Fail(files.error());
    CheckReport report;
    report.error = files.error();
    return report;
  }
  if (!writes) return RunChecker(*files, repair);

  if (files->not_writable) return Fail(*files->not_writable);
  const CheckReport before = RunChecker(*files, repair);
  if (before.error) return before;
  CheckReport after = RunChecker(*files, Repair::kNone);
  const auto fixed = [](uint64_t found, uint64_t left) {
    return found > left ? found - left : 0;
  };
  after.fixed_bits = fixed(before.corruptions(), after.corruptions());
  after.fixed_leaks = fixed(before.leaked_clusters, after.leaked_clusters);
  return after;
}

}  // namespace addcow
