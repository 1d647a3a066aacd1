// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See flatten.h.

#include "common/ops/flatten.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "common/image/image.h"

namespace addcow {

namespace {

// What is copied between two looks at the clock. Large, so that holes go by
// fast; small enough for several in a second on a slow disk.
constexpr uint64_t kChunkSize = 16 * kMiB;  // bytes

// A killed run loses what came after its last flush. But holes go by at
// terabytes a second, so not more often than the interval.
constexpr uint64_t kFlushBytes = 256 * kMiB;
constexpr std::chrono::milliseconds kFlushInterval(100);

// Decides when to flush.
class Flusher {
 public:
  explicit Flusher(Image& image) : image_(image) {}

  Status Copied(uint64_t bytes) {
    unflushed_ += bytes;
    if (unflushed_ < kFlushBytes || Clock::now() - last_ < kFlushInterval) return {};
    ADDCOW_TRY(image_.Flush());
    unflushed_ = 0;
    last_ = Clock::now();
    return {};
  }

 private:
  using Clock = std::chrono::steady_clock;

  Image& image_;
  uint64_t unflushed_ = 0;
  Clock::time_point last_ = {};  // long ago
};

// Calls `use` with the unallocated clusters, at most `limit` at a time.
Status ForEachUnallocated(const AllocationBitmap& bitmap, uint64_t limit,
                          const std::function<Status(ClusterRange)>& use) {
  for (uint64_t cluster = 0; cluster < bitmap.clusters();) {
    ClusterRun run = bitmap.RunAt({cluster, bitmap.clusters() - cluster});
    cluster = run.range.end();
    while (!run.allocated && run.range.count > 0) {
      const uint64_t count = std::min(run.range.count, limit);
      ADDCOW_TRY(use({run.range.first, count}));
      run.range = {run.range.first + count, run.range.count - count};
    }
  }
  return {};
}

uint64_t BytesOf(const Layout& layout, ClusterRange range) {
  return layout.End(range.end()) - layout.Start(range.first);
}

// How far a run has come that did not get to the end, for its error.
std::string HowFar(Image& image, bool flushed) {
  const AllocationBitmap& bitmap = image.bitmap();
  if (!flushed)
    return "what was copied since it last went to the disk is not kept; run it again to go on";
  return fmt::format(
      "{} of {} clusters are in the image file, and are kept; run it again to go on",
      bitmap.allocated(), bitmap.clusters());
}

Status CopyAllUp(Image& image, FlattenResult& result, const FlattenProgress& progress,
                 const Interrupted& interrupted) {
  const Layout layout = image.files().layout();
  uint64_t total = 0;
  ADDCOW_TRY(ForEachUnallocated(image.bitmap(), UINT64_MAX, [&](ClusterRange range) {
    total += BytesOf(layout, range);
    return Status();
  }));
  progress(0, total);
  Flusher flusher(image);
  return ForEachUnallocated(
      image.bitmap(), kChunkSize / layout.cluster_size(), [&](ClusterRange range) -> Status {
        ADDCOW_TRY(CheckInterrupted(interrupted, image.files().add_cow_path));
        ADDCOW_TRY(image.CopyUp(range));
        const uint64_t bytes = BytesOf(layout, range);
        ADDCOW_TRY(flusher.Copied(bytes));
        result.copied += bytes;
        progress(result.copied, total);
        return {};
      });
}

}  // namespace

Result<FlattenResult> FlattenImage(FileSystem& file_system, ImageSource source, LogSink log,
                                   const FlattenProgress& progress,
                                   const Interrupted& interrupted) {
  source.mode = OpenMode::kReadWrite;
  source.access.interrupted = interrupted;
  ADDCOW_TRY_ASSIGN(auto image, Image::Open(file_system, source, std::move(log)));
  const ImageFiles& files = image->files();
  if (files.not_writable) return Fail(*files.not_writable);
  ADDCOW_TRY(image->Start());
  FlattenResult result{0, files.image_path, files.backing_path};
  const Status copied = CopyAllUp(*image, result, progress, interrupted);
  // Where copying failed (no space left, say), what there is counts the next
  // time; and the first error is the one to report. Where it did not, this
  // sets ALL_ALLOCATED, also if the last run was killed just before.
  const Status flushed = image->Flush();
  const bool stopped = !copied && copied.error().code() == kErrInterrupted;
  // For who has kept everything, and says how far it came itself.
  if (stopped && flushed) return Fail(copied.error());
  if (const Status& status = copied || stopped ? flushed : copied; !status)
    return Fail(status.error().WithNote(HowFar(*image, flushed.has_value())));
  return result;
}

}  // namespace addcow
