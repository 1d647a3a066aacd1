// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Map: which bytes come from where, and which of them are holes. Runs are
// taken word by word from the bitmaps; then the file that a run comes from is
// asked for its holes. The backing file, which does not change, is asked once
// for each of them, however many runs it spans.
//
// RunAt is what an image on top asks this one: it looks at one run only, and asks what is
// below about no more than that. Were it to join runs that are alike, it would have to
// look past them, and what is below it past those: with each layer the work would
// multiply.

#include <algorithm>
#include <utility>

#include "common/image/image.h"

namespace addcow {

namespace {

constexpr uint64_t kMostOfRun = kTiB;

// Ones are looked at word by word, and again for each hole among them.
constexpr uint64_t kMostOfOnes = kGiB;

// Walks through the data and holes of one file towards its end.
class HoleCursor {
 public:
  // Says what is at an offset, at most up to a limit.
  using Look = std::function<Result<DataRun>(uint64_t offset, uint64_t limit)>;

  // What lies past `size` is a hole.
  HoleCursor(Look look, uint64_t size) : look_(std::move(look)), size_(size) {}

  // The state at `offset` and where it ends, at most `limit`. Offsets must
  // not decrease from call to call.
  Result<DataRun> At(uint64_t offset, uint64_t limit) {
    if (offset >= run_.end) ADDCOW_TRY(Advance(offset));
    return DataRun{run_.data, std::min(run_.end, limit)};
  }

 private:
  Status Advance(uint64_t offset) {
    run_ = {false, UINT64_MAX};
    if (offset >= size_) return {};
    ADDCOW_TRY_ASSIGN(const DataRun run, look_(offset, size_));
    if (!run.data && run.end >= size_) return {};
    run_ = run;
    // Data is rounded outwards: a file may end inside a sector.
    if (run_.end >= size_) run_.end = RoundUp(size_, kSectorSize);
    return {};
  }

  const Look look_;
  const uint64_t size_;
  DataRun run_;
};

// Joins neighbours that are alike before it shows them.
class Joiner {
 public:
  explicit Joiner(const std::function<bool(const Extent&)>& visit) : visit_(visit) {}

  // False: the visitor wants no more.
  bool Add(const Extent& extent) {
    if (last_.length > 0 && last_.source == extent.source && last_.data == extent.data) {
      last_.length += extent.length;
      return true;
    }
    if (!Finish()) return false;
    last_ = extent;
    return true;
  }

  bool Finish() { return last_.length == 0 || visit_(last_); }

 private:
  const std::function<bool(const Extent&)>& visit_;
  Extent last_;
};

}  // namespace

Status Image::Map(uint64_t offset, uint64_t length,
                  const std::function<bool(const Extent&)>& visit) {
  if (!RangeFits(offset, length, virtual_size()))
    return Fail(Error::Io(EINVAL, "map past the end", files_.image_path, offset, length));
  // Before the bits are looked at.
  const Backing::Hold hold(backing_);
  HoleCursor backing([this](uint64_t at, uint64_t limit) { return backing_.RunAt(at, limit); },
                     backing_.size());
  // Up to where the backing file supplies bytes, its last sector whole.
  const uint64_t backing_end = RoundUp(backing_.size(), kSectorSize);
  Joiner joiner(visit);
  const uint64_t end = offset + length;
  while (offset < end) {
    // Looked at in parts: where subclusters are, the end of each run is looked for anew.
    const Allocation::Run run = allocation_.RunAt(offset, std::min(end, offset + kMostOfRun));
    // A new one for each run: what it learns of the image file must come after
    // the bits. A hole that it remembered from before may since have become
    // data whose bit is set by now.
    HoleCursor image(
        [this](uint64_t at, uint64_t limit) { return image_store_.holes().RunAt(at, limit); },
        virtual_size());
    while (offset < run.end) {
      Extent extent{offset, 0, Extent::Source::kImage, false};
      uint64_t limit = run.end;
      if (!run.in_image) {
        const bool supplied = offset < backing_end;
        extent.source = supplied ? Extent::Source::kBacking : Extent::Source::kNone;
        if (supplied) limit = std::min(limit, backing_end);
      }
      HoleCursor& cursor = run.in_image ? image : backing;
      ADDCOW_TRY_ASSIGN(const DataRun piece, cursor.At(offset, limit));
      extent.data = piece.data;
      extent.length = piece.end - offset;
      if (!joiner.Add(extent)) return {};
      offset = piece.end;
    }
  }
  (void)joiner.Finish();
  return {};
}

Image::Place Image::PlaceAt(uint64_t offset, uint64_t limit) const {
  Allocation::Run run = allocation_.RunAt(offset, std::min(limit, offset + kMostOfOnes));
  if (run.in_image) return {Extent::Source::kImage, run.end};
  if (run.end == offset + kMostOfOnes)
    run = allocation_.RunAt(offset, std::min(limit, offset + kMostOfRun));
  const uint64_t backing_end = RoundUp(backing_.size(), kSectorSize);
  if (offset >= backing_end) return {Extent::Source::kNone, run.end};
  return {Extent::Source::kBacking, std::min(run.end, backing_end)};
}

Result<DataRun> Image::RunAt(uint64_t offset, uint64_t limit) {
  const Backing::Hold hold(backing_);
  const Place place = PlaceAt(offset, limit);
  if (place.source == Extent::Source::kImage)
    return image_store_.holes().RunAt(offset, place.end);
  ADDCOW_TRY_ASSIGN(DataRun run, backing_.RunAt(offset, place.end));
  // Data is rounded outwards.
  if (run.data && run.end == backing_.size())
    run.end = std::min(RoundUp(run.end, kSectorSize), place.end);
  return run;
}

}  // namespace addcow
