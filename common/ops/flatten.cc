// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See flatten.h.

#include "common/ops/flatten.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "common/image/image.h"
#include "common/jobs/fill.h"
#include "common/jobs/fill_threads.h"

namespace addcow {

namespace {

// What is copied between two looks at the clock. Large, so that holes go by
// fast; small enough for several in a second on a slow disk.
constexpr uint64_t kFlattenPiece = 16 * kMiB;  // bytes

// Between two looks at a signal, where other threads copy the rest.
constexpr std::chrono::milliseconds kInterruptInterval(200);

// How far a run has come that did not get to the end, for its error.
std::string HowFar(Image& image, bool flushed) {
  const AllocationBitmap& bitmap = image.bitmap();
  if (!flushed)
    return "what was copied since it last went to the disk is not kept; run it again to go on";
  return fmt::format(
      "{} of {} clusters are in the image file, and are kept; run it again to go on",
      bitmap.allocated(), bitmap.clusters());
}

// This thread copies, too, and is the only one where the backing file is not slow.
Status FillAll(Image& image, FlattenResult& result, const FlattenProgress& progress,
               const Interrupted& interrupted) {
  const bool slow = image.backing().pieces_at_once() > 1;
  Fill::Options options{.retry = false, .let_go = false};
  if (!slow) options.piece = kFlattenPiece;
  Fill fill(image, options, {});
  ADDCOW_TRY(fill.Start(FillMode::kAll));
  const uint64_t total = fill.status().left;
  progress(0, total);
  std::unique_ptr<FillThreads> helpers;
  if (slow) {
    ADDCOW_TRY_ASSIGN(helpers, FillThreads::Start(fill, image, fill.Threads() - 1));
  }
  for (bool ended = false; !ended;) {
    if (result.copied < total)
      ADDCOW_TRY(CheckInterrupted(interrupted, image.files().add_cow_path));
    if (const Fill::Turn turn = fill.Step(); !turn.worked)
      fill.Wait(turn, Fill::Clock::now() + kInterruptInterval);
    const FillStatus status = fill.status();
    if (const auto failure = fill.failure()) return Fail(*failure);
    ended = status.state == FillState::kDone;
    if (status.copied > result.copied) progress(status.copied, total);
    result.copied = status.copied;
  }
  return {};
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
  const Status copied = FillAll(*image, result, progress, interrupted);
  // Its last step has flushed, and set ALL_ALLOCATED.
  if (copied) return result;
  // Where copying failed (no space left, say), what there is counts the next
  // time; and the first error is the one to report.
  const Status flushed = image->Flush();
  const bool stopped = copied.error().code() == kErrInterrupted;
  // For who has kept everything, and says how far it came itself.
  if (stopped && flushed) return Fail(copied.error());
  const Error& error = stopped ? flushed.error() : copied.error();
  return Fail(error.WithNote(HowFar(*image, flushed.has_value())));
}

}  // namespace addcow
