// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See check.h. One pass over the raw bitmap; for its runs of zeroes the image
// file is asked for storage, and asked once for each hole, however many runs
// it spans. What has storage is read, and little of it where it is a leak. A
// repairing pass does the same and mends as it goes.
//
// Repairs, and why they are safe:
//
//   leak         its clusters are punched out of the image file, or zeroed where
//                the file system has no holes. Only where the bit is 0 and
//                ALL_ALLOCATED is not set: nobody reads it.
//   missing bit  set. The flag said so already, and data is synced before. So are
//                those of clusters by which the disk has grown.
//   stray bit    cleared, by kAll. Nobody reads it; but were the image file to grow,
//                it would become a cluster's.

#include "common/ops/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/zero_bytes.h"
#include "common/image/image_files.h"
#include "common/io/holes.h"
#include "common/io/zeroer.h"
#include "common/ops/info.h"
#include "common/ops/raw_bitmap.h"

namespace addcow {

namespace {

// Finds the data that the image file has under bits that are 0.
class LeakFinder {
 public:
  // `holes` are those of `image`.
  LeakFinder(File& image, const Holes& holes, const Layout& layout,
             const Interrupted& interrupted)
      : image_(image),
        holes_(holes),
        layout_(layout),
        interrupted_(interrupted),
        buffer_(layout.cluster_size()) {}

  // Calls `found` with the clusters of `range` that have data, as many at a
  // time as follow each other, up to kMost. Ranges must come in ascending order.
  Status Find(ClusterRange range, const std::function<Status(ClusterRange)>& found) {
    const uint64_t end = layout_.End(range.end());
    ClusterRange leaked = {range.first, 0};
    for (uint64_t offset = layout_.Start(range.first); offset < end;) {
      if (offset >= hole_) ADDCOW_TRY(FindNext(offset));
      const uint64_t start = std::max(offset, data_);
      if (start >= end) break;
      const uint64_t cluster = layout_.ClusterOf(start);
      if (leaked.count > 0 && (leaked.end() != cluster || leaked.count == kMost)) {
        ADDCOW_TRY(found(leaked));
        leaked.count = 0;
      }
      const uint64_t stop = std::min({hole_, end, layout_.Start(cluster + 1)});
      ADDCOW_TRY_ASSIGN(const bool data, HasData(start, stop));
      if (data) leaked = {leaked.count > 0 ? leaked.first : cluster, leaked.count + 1};
      // Of a cluster that leaks no more needs to be known.
      offset = data ? layout_.Start(cluster + 1) : stop;
    }
    return leaked.count > 0 ? found(leaked) : Status();
  }

 private:
  static constexpr uint64_t kMost = 256;  // 16 MiB, between two looks at `interrupted`
  static constexpr uint64_t kFirstLook = 4096;

  // Within one cluster. Most data shows at its beginning.
  Result<bool> HasData(uint64_t start, uint64_t stop) {
    for (uint64_t count = std::min(kFirstLook, stop - start); start < stop;
         start += count, count = stop - start) {
      ADDCOW_TRY(CheckInterrupted(interrupted_, image_.name()));
      const auto part = std::span(buffer_).first(static_cast<size_t>(count));
      ADDCOW_TRY_ASSIGN(const size_t got, image_.Read(part, start));
      if (!IsZero(part.first(got))) return true;
    }
    return false;
  }

  Status FindNext(uint64_t offset) {
    ADDCOW_TRY_ASSIGN(data_, holes_.FindData(offset));
    hole_ = layout_.virtual_size();
    if (data_ >= hole_) return {};
    ADDCOW_TRY_ASSIGN(const uint64_t hole, holes_.FindHole(data_));
    // It may not move on where the file was truncated underneath.
    if (hole > data_) hole_ = hole;
    return {};
  }

  File& image_;
  const Holes& holes_;
  const Layout layout_;
  const Interrupted& interrupted_;
  std::vector<std::byte> buffer_;
  // The storage that was found last: from data_ to hole_, and none before.
  uint64_t data_ = 0;
  uint64_t hole_ = 0;
};

class Checker {
 public:
  Checker(const ImageFiles& files, Repair repair, const Interrupted& interrupted)
      : files_(files),
        repair_(repair),
        interrupted_(interrupted),
        layout_(files.layout()),
        holes_(*files.image),
        leaks_(*files.image, holes_, layout_, interrupted),
        zeroer_(*files.image, holes_) {}

  // Fills `report` but for the repair's own figures.
  Status Run(CheckReport& report) {
    report.total_clusters = layout_.clusters();
    if (files_.header.all_allocated) report.allocated_clusters = layout_.clusters();
    ADDCOW_TRY(holes_.Settle(ImageSync()));
    ADDCOW_TRY_ASSIGN(can_tell_, CanTellHoles());
    ADDCOW_TRY_ASSIGN(const uint64_t bytes, RawBitmapBytes(*files_.add_cow));
    // The bits to be set vouch for data: it goes first.
    if (repair_ == Repair::kAll) ADDCOW_TRY(ImageSync().SyncData());
    Status visited = VisitRawBits(*files_.add_cow, bytes,
                                  [&](const ClusterRun& run) { return Visit(run, report); });
    if (!visited && visited.error().code() != kErrInterrupted) return visited;
    report.interrupted = !visited;
    // A bitmap that lacks other bits too is broken.
    if (report.missing_bits > 0) report.missing_bits += std::exchange(report.grown_clusters, 0);
    if (repair_ == Repair::kNone) return {};
    ADDCOW_TRY(ImageSync().SyncData());
    return files_.add_cow->SyncData();
  }

 private:
  // The one that nothing else is done with, where there is one.
  File& ImageSync() const {
    return files_.image_sync != nullptr ? *files_.image_sync : *files_.image;
  }

  Status Visit(const ClusterRun& run, CheckReport& report) {
    ADDCOW_TRY(CheckInterrupted(interrupted_, files_.add_cow_path));
    const uint64_t border = std::clamp(layout_.clusters(), run.range.first, run.range.end());
    ADDCOW_TRY(Inside(run.allocated, {run.range.first, border - run.range.first}, report));
    if (!run.allocated) return {};
    return Stray({border, run.range.end() - border}, report);
  }

  Status Inside(bool set, ClusterRange range, CheckReport& report) {
    if (range.count == 0) return {};
    if (files_.header.all_allocated) {
      if (set) return {};
      // Not from the beginning on: that is a bitmap which was lost.
      const bool grown = range.first > 0 && range.end() == layout_.clusters();
      return Missing(range, grown ? report.grown_clusters : report.missing_bits);
    }
    if (set) {
      report.allocated_clusters += range.count;
      return {};
    }
    if (!can_tell_ || report.leaks_unknown) return {};
    return leaks_.Find(range, [&](ClusterRange leaked) { return Leak(leaked, report); });
  }

  // Whether holes of the image file can be told from data. Not on a device,
  // nor where all of it passes for data though it has not that much storage.
  Result<bool> CanTellHoles() {
    ADDCOW_TRY_ASSIGN(const FileInfo info, files_.image->Info());
    ADDCOW_TRY_ASSIGN(const uint64_t data, holes_.FindData(0));
    ADDCOW_TRY_ASSIGN(const uint64_t hole, holes_.FindHole(0));
    const bool all_data = data == 0 && hole >= layout_.virtual_size();
    return !info.is_block_device &&
           !(all_data && info.allocated_bytes < layout_.virtual_size());
  }

  Status Leak(ClusterRange range, CheckReport& report) {
    report.leaked_clusters += range.count;
    if (repair_ == Repair::kNone) return {};
    // To the end of a last, partial cluster, past the file's end: cut at that
    // end, the file system would keep the last block.
    const uint64_t start = layout_.Start(range.first);
    const uint64_t end = std::min(layout_.Start(range.end()), kMaxOffset);
    Status punched = files_.image->PunchHole(start, end - start);
    if (punched || !punched.error().IsUnsupported()) return punched;
    return zeroer_.Zero(start, layout_.End(range.end()) - start, {.may_punch = false});
  }

  Status Missing(ClusterRange range, uint64_t& count) {
    count += range.count;
    return repair_ == Repair::kAll ? FillRawBits(*files_.add_cow, range, true) : Status();
  }

  Status Stray(ClusterRange range, CheckReport& report) {
    report.stray_bits += range.count;
    return repair_ == Repair::kAll ? FillRawBits(*files_.add_cow, range, false) : Status();
  }

  const ImageFiles& files_;
  const Repair repair_;
  const Interrupted& interrupted_;
  const Layout layout_;
  Holes holes_;
  LeakFinder leaks_;
  Zeroer zeroer_;
  bool can_tell_ = false;
};

// What went wrong once the files were open is part of the report.
CheckReport RunChecker(const ImageFiles& files, Repair repair, bool locked,
                       const Interrupted& interrupted) {
  const auto in_use = [&] { return !locked && UseByOthers(files) == FileUse::kWrite; };
  CheckReport report;
  report.notes = files.notes;
  report.leaks_unknown = in_use();
  if (Status done = Checker(files, repair, interrupted).Run(report); !done) {
    report.error = std::move(done).error();
    report.check_errors = report.error->code() == kErrCorrupt ? 0 : 1;
  }
  // A server may have begun meanwhile.
  report.leaks_unknown = report.leaks_unknown || in_use();
  if (report.leaks_unknown) report.leaked_clusters = 0;
  return report;
}

// Whether the image file was named to be another one than the header's, which is
// there as well.
bool IsAnother(FileSystem& file_system, const ImageSource& source, const ImageFiles& files) {
  if (!source.image_path || source.access.confine) return false;
  const auto own = file_system.Identify(
      ResolveName(DirectoryOf(files.add_cow_path), files.header.image.name));
  const auto named = files.image->Info();
  return own && named && !named->SameFile(*own);
}

// A bitmap without a one is that of an image which nobody has written to. Data
// under it is more likely another disk's than left over; so is that of another file
// than the image file.
Status CheckThatDataIsOwn(FileSystem& file_system, const ImageSource& source,
                          const ImageFiles& files, const Interrupted& interrupted) {
  if (files.header.all_allocated) return {};
  ADDCOW_TRY_ASSIGN(const bool any, AnyRawBit(*files.add_cow));
  const bool another = IsAnother(file_system, source, files);
  if (any && !another) return {};
  const CheckReport report = RunChecker(files, Repair::kNone, true, interrupted);
  if (report.error || report.interrupted) return {};  // that comes again
  if (report.leaked_clusters == 0) return {};
  return Fail(Error::Because(
      EINVAL, files.image_path,
      fmt::format("holds data in {}, though none is allocated{}: it may be another "
                  "disk's file, so nothing is repaired (--force gives this storage back all "
                  "the same)",
                  Counted(report.leaked_clusters, "cluster"),
                  any ? " there, and is not the image file that the header names" : "")));
}

}  // namespace

Result<uint64_t> LeakedClusters(const ImageFiles& files) {
  CheckReport report = RunChecker(files, Repair::kNone, true, {});
  if (report.error) return Fail(std::move(*report.error));
  return report.leaked_clusters;
}

Result<CheckReport> CheckImage(FileSystem& file_system, ImageSource source, Repair repair,
                               const Interrupted& interrupted, bool force) {
  const bool writes = repair != Repair::kNone;
  const bool locked = source.access.lock;
  source.mode = writes ? OpenMode::kReadWrite : OpenMode::kReadOnly;
  source.backing_optional = true;
  const auto files = OpenImageFiles(file_system, source);
  if (!files) {
    if (files.error().code() != kErrCorrupt) return Fail(files.error());
    CheckReport report;
    report.error = files.error();
    return report;
  }
  if (!writes) return RunChecker(*files, repair, locked, {});

  if (files->not_writable) return Fail(*files->not_writable);
  // With lock=off too: what a server has not flushed would be given back as leaks.
  if (!locked && UseByOthers(*files) == FileUse::kWrite)
    return Fail(Error::Because(EBUSY, files->add_cow_path,
                               "is in use by another program that writes to it, so it cannot "
                               "be repaired (stop that program first)"));
  if (!force) ADDCOW_TRY(CheckThatDataIsOwn(file_system, source, *files, interrupted));
  CheckReport before = RunChecker(*files, repair, true, interrupted);
  if (before.error) return before;
  if (before.interrupted) {
    before.fixed_leaks = std::exchange(before.leaked_clusters, 0);
    if (repair == Repair::kAll) before.fixed_bits = std::exchange(before.missing_bits, 0);
    return before;
  }
  CheckReport after = RunChecker(*files, Repair::kNone, true, interrupted);
  const auto fixed = [](uint64_t found, uint64_t left) {
    return found > left ? found - left : 0;
  };
  after.fixed_bits = fixed(before.corruptions(), after.corruptions());
  after.fixed_leaks = fixed(before.leaked_clusters, after.leaked_clusters);
  return after;
}

}  // namespace addcow
