// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See check.h. One pass over the raw bitmap, and in its runs of zeroes over that of
// the subclusters, where there is one; where that has zeroes too, the image
// file is asked for storage, and asked once for each hole, however many runs
// it spans. What has storage is read, and of clusters little where they leak. A
// repairing pass does the same and mends as it goes.
//
// Repairs, and why they are safe:
//
//   leak         its clusters, or subclusters, are punched out of the image file, or
//                zeroed where the file system has no holes. Only where the bits of
//                both levels are 0 and ALL_ALLOCATED is not set: nobody reads it.
//   missing bit  set. The flag said so already, and data is synced before. So are
//                those of clusters by which the disk has grown.
//   stray bit    cleared, by kAll. Nobody reads it; but were the image file to grow,
//                it would become a cluster's, or a subcluster's.

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
  // `holes` are those of `image`. `unit`: in bytes, what leaks or does not: clusters or
  // subclusters.
  LeakFinder(File& image, const Holes& holes, const Layout& layout, uint64_t unit,
             const Interrupted& interrupted)
      : image_(image),
        holes_(holes),
        layout_(layout),
        unit_(unit),
        interrupted_(interrupted),
        buffer_(std::max(layout.cluster_size(), 64 * kKiB)) {}

  // Calls `found` with the units of [offset, end) that have data, as many at a
  // time as follow each other, up to kMost. Ranges must come in ascending order.
  Status Find(uint64_t offset, uint64_t end, const std::function<Status(ByteRange)>& found) {
    ByteRange leaked;
    while (offset < end) {
      if (offset >= hole_) ADDCOW_TRY(FindNext(offset));
      const uint64_t start = std::max(offset, data_);
      if (start >= end) break;
      const uint64_t unit = RoundDown(start, unit_);
      const uint64_t next = std::min(unit + unit_, end);
      if (leaked.length > 0 && (leaked.end() != unit || leaked.length >= kMost)) {
        ADDCOW_TRY(found(leaked));
        leaked.length = 0;
      }
      const uint64_t stop = std::min(hole_, next);
      ADDCOW_TRY_ASSIGN(const bool data, HasData(start, stop, std::min(hole_, end)));
      if (data && leaked.length == 0) leaked.offset = unit;
      if (data) leaked.length = next - leaked.offset;
      // Of a unit that leaks no more needs to be known.
      offset = data ? next : stop;
    }
    return leaked.length > 0 ? found(leaked) : Status();
  }

 private:
  static constexpr uint64_t kMost = 16 * kMiB;  // between two looks at `interrupted`
  static constexpr uint64_t kFirstLook = 4096;

  // Of [start, stop), which lies within one unit. Up to `limit` there is storage.
  Result<bool> HasData(uint64_t start, uint64_t stop, uint64_t limit) {
    // Most data of a cluster shows at its beginning. Of small units several are read.
    const uint64_t first = unit_ > kFirstLook
                               ? std::min(kFirstLook, stop - start)
                               : std::min<uint64_t>(buffer_.size(), limit - start);
    for (uint64_t count = first; start < stop; count = stop - start) {
      if (start < read_.offset || start >= read_.end()) ADDCOW_TRY(Read({start, count}));
      const uint64_t end = std::min(read_.end(), stop);
      if (!IsZero(std::span(buffer_).subspan(static_cast<size_t>(start - read_.offset),
                                             static_cast<size_t>(end - start))))
        return true;
      start = end;
    }
    return false;
  }

  Status Read(ByteRange range) {
    ADDCOW_TRY(CheckInterrupted(interrupted_, image_.name()));
    const auto part = std::span(buffer_).first(static_cast<size_t>(range.length));
    ADDCOW_TRY_ASSIGN(const size_t got, image_.Read(part, range.offset));
    std::ranges::fill(part.subspan(got), std::byte{0});
    read_ = range;
    return {};
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
  const uint64_t unit_;
  const Interrupted& interrupted_;
  std::vector<std::byte> buffer_;
  ByteRange read_;  // what the buffer holds
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
        unit_(files.header.subclusters ? kSubclusterSize : layout_.cluster_size()),
        leaks_(*files.image, holes_, layout_, unit_, interrupted),
        zeroer_(*files.image, holes_) {}

  // Fills `report` but for the repair's own figures.
  Status Run(CheckReport& report) {
    report.total_clusters = layout_.clusters();
    report.subclusters = files_.header.subclusters;
    if (files_.header.all_allocated) report.allocated_clusters = layout_.clusters();
    ADDCOW_TRY(holes_.Settle(ImageSync()));
    ADDCOW_TRY_ASSIGN(can_tell_, CanTellHoles());
    ADDCOW_TRY_ASSIGN(places_, RawPlacesOf(*files_.add_cow, files_.header, layout_));
    subclusters_.emplace(*files_.add_cow, places_.subclusters);
    // The bits to be set vouch for data: it goes first.
    if (repair_ == Repair::kAll) ADDCOW_TRY(ImageSync().SyncData());
    Status visited = VisitRawBits(*files_.add_cow, places_.clusters,
                                  [&](const ClusterRun& run) { return Visit(run, report); });
    if (visited) visited = StraySubclusters(report);
    if (visited) visited = Padding(report);
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
    return Stray(places_.clusters, {border, run.range.end() - border}, report);
  }

  Status Inside(bool set, ClusterRange range, CheckReport& report) {
    if (range.count == 0) return {};
    if (files_.header.all_allocated) {
      if (set || files_.header.flag_suffices()) return {};
      // Not from the beginning on: that is a bitmap which was lost.
      const bool grown = range.first > 0 && range.end() == layout_.clusters();
      return Missing(range, grown ? report.grown_clusters : report.missing_bits);
    }
    if (set) {
      report.allocated_clusters += range.count;
      return {};
    }
    if (places_.subclusters.bits == 0)
      return FindLeaks(layout_.Start(range.first), layout_.End(range.end()), report);
    return InsideUnallocated(range, report);
  }

  Status InsideUnallocated(ClusterRange range, CheckReport& report) {
    const uint64_t first = layout_.Start(range.first) / kSubclusterSize;
    const uint64_t last = DivideUp(layout_.End(range.end()), kSubclusterSize);
    uint64_t counted = range.first;
    for (uint64_t at = first; at < last;) {
      ADDCOW_TRY(CheckInterrupted(interrupted_, files_.add_cow_path));
      ADDCOW_TRY_ASSIGN(const ClusterRun run, subclusters_->RunAt({at, last - at}));
      at = run.range.end();
      const uint64_t start = run.range.first * kSubclusterSize;
      const uint64_t end = std::min(at * kSubclusterSize, layout_.virtual_size());
      if (!run.allocated) {
        ADDCOW_TRY(FindLeaks(start, end, report));
        continue;
      }
      report.partial_clusters += CountClusters({start, end - start}, counted);
    }
    return {};
  }

  Status StraySubclusters(CheckReport& report) {
    const uint64_t bits = places_.subclusters.bits;
    for (uint64_t at = std::min(bits, layout_.subcluster_bitmap().bits); at < bits;) {
      ADDCOW_TRY_ASSIGN(const ClusterRun run, subclusters_->RunAt({at, bits - at}));
      at = run.range.end();
      if (run.allocated) ADDCOW_TRY(Stray(places_.subclusters, run.range, report));
    }
    return {};
  }

  Status Padding(CheckReport& report) {
    ADDCOW_TRY_ASSIGN(const FileInfo info, files_.add_cow->Info());
    if (!files_.header.must_be_padded() || info.is_block_device) return {};
    ADDCOW_TRY_ASSIGN(const uint64_t size, files_.add_cow->Size());
    const Geometry& geometry = layout_.geometry();
    const uint64_t padded =
        geometry.header_size + RoundUp(size - geometry.header_size, geometry.padding);
    report.unpadded = padded != size;
    if (!report.unpadded || repair_ != Repair::kAll) return {};
    return files_.add_cow->Truncate(padded);
  }

  // How many clusters `range` touches that come at or after `next`, which moves on.
  uint64_t CountClusters(ByteRange range, uint64_t& next) const {
    const ClusterRange touched = layout_.Touched(range.offset, range.length);
    const uint64_t count = touched.end() - std::max(next, touched.first);
    next = touched.end();
    return count;
  }

  Status FindLeaks(uint64_t start, uint64_t end, CheckReport& report) {
    if (!can_tell_ || report.leaks_unknown) return {};
    return leaks_.Find(start, end, [&](ByteRange leaked) { return Leak(leaked, report); });
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

  Status Leak(ByteRange range, CheckReport& report) {
    report.leaked_clusters += CountClusters(range, next_to_leak_);
    if (report.subclusters)
      report.leaked_subclusters += DivideUp(range.length, kSubclusterSize);
    if (repair_ == Repair::kNone) return {};
    // To the end of a last, partial unit, past the file's end: cut at that
    // end, the file system would keep the last block.
    const uint64_t end = std::min(RoundUp(range.end(), unit_), kMaxOffset);
    Status punched = files_.image->PunchHole(range.offset, end - range.offset);
    if (punched || !punched.error().IsUnsupported()) return punched;
    return zeroer_.Zero(range.offset, range.length, {.may_punch = false});
  }

  Status Missing(ClusterRange range, uint64_t& count) {
    count += range.count;
    if (repair_ != Repair::kAll) return {};
    return FillRawBits(*files_.add_cow, places_.clusters, range, true);
  }

  Status Stray(const BitmapPlace& place, ClusterRange range, CheckReport& report) {
    report.stray_bits += range.count;
    if (repair_ != Repair::kAll) return {};
    return FillRawBits(*files_.add_cow, place, range, false);
  }

  const ImageFiles& files_;
  const Repair repair_;
  const Interrupted& interrupted_;
  const Layout layout_;
  Holes holes_;
  const uint64_t unit_;  // what leaks or does not, in bytes
  LeakFinder leaks_;
  Zeroer zeroer_;
  RawPlaces places_;
  std::optional<RawBitmap> subclusters_;
  bool can_tell_ = false;
  uint64_t next_to_leak_ = 0;  // clusters before this one are counted
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
  if (report.leaks_unknown) report.leaked_clusters = report.leaked_subclusters = 0;
  return report;
}

// Bitmaps without a one are those of an image which nobody has written to. Data
// under it is more likely another disk's than left over.
Status CheckThatDataIsOwn(const ImageFiles& files, const Interrupted& interrupted) {
  if (files.header.all_allocated) return {};
  ADDCOW_TRY_ASSIGN(const RawPlaces places,
                    RawPlacesOf(*files.add_cow, files.header, files.layout()));
  ADDCOW_TRY_ASSIGN(const bool any, AnyRawBit(*files.add_cow, places));
  if (any) return {};
  const CheckReport report = RunChecker(files, Repair::kNone, true, interrupted);
  if (report.error || report.interrupted) return {};  // that comes again
  if (report.leaked_clusters == 0) return {};
  return Fail(Error::Because(
      EINVAL, files.image_path,
      fmt::format("holds data in {}, though none is allocated: it may be another disk's "
                  "file, so nothing is repaired (--force gives this storage back all the "
                  "same)",
                  Counted(report.leaked_clusters, "cluster"))));
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
  source.access.interrupted = interrupted;
  // Leaks are where the bits have nothing, in whichever file.
  source.may_be_another = force && repair == Repair::kLeaks;
  auto files = OpenImageFiles(file_system, source);
  // A server that stops meanwhile may cut the file (info.cc).
  if (!files && !locked && !writes && files.error().code() == kErrCorrupt)
    files = OpenImageFiles(file_system, source);
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
  if (!force) ADDCOW_TRY(CheckThatDataIsOwn(*files, interrupted));
  CheckReport before = RunChecker(*files, repair, true, interrupted);
  if (before.error) return before;
  if (before.interrupted) {
    before.fixed_leaks = std::exchange(before.leaked_clusters, 0);
    before.leaked_subclusters = 0;
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
