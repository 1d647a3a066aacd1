// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fetch.h.

#include "common/jobs/fetch.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <new>
#include <utility>

namespace addcow {

namespace {

constexpr uint64_t kLocalSize = 64 * kKiB;
constexpr uint64_t kRemoteSize = kMiB;

// What is read first, around what somebody needs.
constexpr uint64_t kNeededPiece = 64 * kKiB;

// What is asked for at once of the rest, and of a source that reads several at once: who
// needs some of it waits for so much.
constexpr uint64_t kAtOnce = 256 * kKiB;

// A longer request gets windows as long as this, and so reads as large.
constexpr uint64_t kMostOfRequest = 2 * kMiB;

ByteRange Between(uint64_t offset, uint64_t end) { return {offset, end - offset}; }

bool Overlap(ByteRange a, ByteRange b) { return a.offset < b.end() && b.offset < a.end(); }

bool IsWithin(ByteRange inner, ByteRange outer) {
  return inner.offset >= outer.offset && inner.end() <= outer.end();
}

}  // namespace

// A window that was made for the caller, who asks for what it needs of it first.
class Fetch::Made {
 public:
  Made(Fetch& fetch, const Place& place) : fetch_(fetch), window_(place.made) {}
  ~Made() { Queue(); }
  Made(const Made&) = delete;
  Made& operator=(const Made&) = delete;

  void Queue() {
    if (window_) fetch_.Queue(*std::exchange(window_, std::nullopt));
  }

 private:
  Fetch& fetch_;
  std::optional<Windows::iterator> window_;
};

uint64_t Fetch::DefaultSize(const Image& image) {
  return image.backing().shared_file() != nullptr ? kLocalSize : kRemoteSize;
}

Fetch::Fetch(Image& image, const Options& options, LogSink log)
    : image_(image),
      size_(std::max(options.size > 0 ? options.size : DefaultSize(image), image.grain())),
      unit_(std::min(size_, image.files().layout().cluster_size())),
      memory_(std::max(options.memory, 2 * size_)),
      pause_(options.pause),
      log_(log ? std::move(log) : [](LogLevel, const std::string&) {}) {}

// Whether what is read can be kept, and something is left to be kept.
bool Fetch::Active() const {
  if (image_.backing().size() == 0 || image_.bitmap().all() || !image_.writable()) return false;
  const Clock::rep until = paused_until_.load(std::memory_order_relaxed);
  return until == 0 || Clock::now().time_since_epoch().count() >= until;
}

Status Fetch::Read(std::span<std::byte> buffer, uint64_t offset) {
  if (!Active() || !RangeFits(offset, buffer.size(), image_.virtual_size()))
    return image_.Read(buffer, offset);
  return Serve(buffer.data(), offset, buffer.size());
}

Status Fetch::Prefetch(uint64_t offset, uint64_t length) {
  if (!Active() || !RangeFits(offset, length, image_.virtual_size()))
    return image_.Prefetch(offset, length);
  return Serve(nullptr, offset, length);
}

// `buffer` is null where the bytes are not wanted, but to be kept.
// No lock, as in Image::Read: what gets into the image file after its bits were looked at
// does so by a write that is in flight together with this read.
Status Fetch::Serve(std::byte* buffer, uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  while (offset < end) {
    const Image::Place place = image_.PlaceAt(offset, end);
    uint64_t stop = place.end;
    if (place.source == Extent::Source::kBacking) {
      ADDCOW_TRY_ASSIGN(stop, ServeFromBacking(buffer, offset, stop));
    } else if (buffer != nullptr) {
      ADDCOW_TRY(image_.Read({buffer, static_cast<size_t>(stop - offset)}, offset));
    } else {
      ADDCOW_TRY(image_.Prefetch(offset, stop - offset));
    }
    if (buffer != nullptr) buffer += stop - offset;
    offset = stop;
  }
  return {};
}

// What was not in the image file. Up to where it was served.
Result<uint64_t> Fetch::ServeFromBacking(std::byte* buffer, uint64_t offset, uint64_t end) {
  const Place place = PlaceFor(offset, end, buffer == nullptr);
  const ByteRange needed = Between(offset, std::min(end, place.end));
  auto found = FetchWindow::Found::kNot;
  if (place.window != nullptr) {
    Made made(*this, place);
    ADDCOW_TRY(FetchNeeded(*place.window, needed, &made));
  }
  while (place.window != nullptr) {
    found = place.window->Wait(needed);
    if (found != FetchWindow::Found::kIdle) break;
    ADDCOW_TRY(FetchNeeded(*place.window, needed));
  }
  if (buffer != nullptr) {
    const std::span wanted(buffer, static_cast<size_t>(needed.length));
    if (found == FetchWindow::Found::kThere)
      std::ranges::copy(place.window->Bytes(needed), wanted.begin());
    else
      ADDCOW_TRY(ReadOnly(wanted, offset));
  }
  return needed.end();
}

// What finds no room, got into the image file meanwhile, or could not be read together
// with what is around it.
Status Fetch::ReadOnly(std::span<std::byte> buffer, uint64_t offset) {
  while (!buffer.empty()) {
    const DataRun run = RunAt(offset, offset + buffer.size());
    const auto part = buffer.first(static_cast<size_t>(run.end - offset));
    if (run.data)
      ADDCOW_TRY(image_.Read(part, offset));
    else
      std::ranges::fill(part, std::byte{0});
    buffer = buffer.subspan(part.size());
    offset = run.end;
  }
  return {};
}

// Of the backing file. Where that cannot be told, or it has gone, all is data.
DataRun Fetch::RunAt(uint64_t offset, uint64_t end) const {
  const Backing::Hold hold(image_.backing());
  if (!hold.there()) return {true, end};
  return image_.backing().RunAt(offset, end).value_or(DataRun{true, end});
}

Fetch::Place Fetch::PlaceFor(uint64_t offset, uint64_t end, bool wait) {
  Place place;
  const uint64_t start = RoundDown(offset, size_);
  MutexLock lock(mutex_);
  for (;;) {
    const auto next = windows_.upper_bound(offset);
    if (next != windows_.begin()) {
      place.window = std::prev(next)->second;
      place.end = place.window->end();
      if (offset < place.end) return place;
      place.window = nullptr;
    }
    const uint64_t limit = next != windows_.end() ? next->first : image_.virtual_size();
    place.end = std::min({RoundUp(end, size_),
                          start + std::max(size_, RoundDown(kMostOfRequest, size_)), limit});
    if (used_ + (place.end - start) > memory_) place.end = std::min(start + size_, limit);
    const uint64_t length = place.end - start;
    if (used_ + length <= memory_) {
      Windows made;
      try {
        made.push_back(std::make_shared<FetchWindow>(start, place.end));
        windows_.emplace(start, made.front());
      } catch (const std::bad_alloc&) {
        return place;
      }
      used_ += length;
      place.window = made.front();
      place.made = made.begin();
      busy_.splice(busy_.end(), made);
      return place;
    }
    if (!wait || stop_) return place;
    room_.Wait(mutex_);
  }
}

void Fetch::Queue(Windows::iterator window) {
  {
    MutexLock lock(mutex_);
    queue_.splice(queue_.end(), busy_, window);
  }
  queued_.NotifyAll();
}

void Fetch::Drop(Windows::iterator window) {
  {
    MutexLock lock(mutex_);
    used_ -= (*window)->length();
    windows_.erase((*window)->offset());
    busy_.erase(window);
  }
  room_.NotifyAll();
}

bool Fetch::stopped() {
  MutexLock lock(mutex_);
  return stop_;
}

uint64_t Fetch::memory_used() {
  MutexLock lock(mutex_);
  return used_;
}

// What of it nobody reads yet, and what is around that in its pieces. An error is one of
// bytes that are all needed.
Status Fetch::FetchNeeded(FetchWindow& window, ByteRange needed, Made* made) {
  const ByteRange within =
      Between(std::max(RoundDown(needed.offset, kNeededPiece), window.offset()),
              std::min(RoundUp(needed.end(), kNeededPiece), window.end()));
  for (ByteRange left = needed; left.length > 0;) {
    FetchClaim claim(window);
    const uint64_t end = claim.Claim(left, within);
    if (claim.ranges().empty()) break;
    ADDCOW_TRY(ReadClaimed(window, claim, needed, made));
    left = Between(std::min(end, needed.end()), needed.end());
  }
  return {};
}

// Whatever nobody has asked for; nothing if nobody needed any data. False: not all of it.
// No more is claimed than is on its way at once: others can be faster with the rest.
bool Fetch::FetchRest(FetchWindow& window) {
  if (!window.NeedsData()) return false;
  const uint64_t step = kAtOnce * image_.backing().pieces_at_once();
  for (uint64_t at = window.offset(); at < window.end();) {
    if (stopped()) return false;
    const ByteRange part = Between(at, std::min(RoundDown(at, step) + step, window.end()));
    FetchClaim claim(window);
    claim.ClaimAll(part);
    if (!ReadClaimed(window, claim, part, nullptr)) return false;
    at = part.end();
  }
  return true;
}

// The data in what is claimed that is `needed`, whole runs; others are idle again.
Status Fetch::ReadClaimed(FetchWindow& window, FetchClaim& claim, ByteRange needed,
                          Made* made) {
  // Where it has gone, all is in the image file.
  const Backing::Hold hold(image_.backing());
  std::vector<ByteRange> wanted;
  for (const ByteRange part : claim.ranges())
    for (const ByteRange range : FindMissing(window, part)) {
      if (Overlap(range, needed))
        wanted.push_back(range);
      else
        window.Set(range, FetchWindow::Block::kIdle);
    }
  claim.Only(std::move(wanted));
  if (claim.ranges().empty()) return {};
  if (made != nullptr) made->Queue();
  std::vector<ByteRange> ranges;
  std::vector<Source::Piece> pieces;
  const bool cut = image_.backing().pieces_at_once() > 1;
  for (const ByteRange range : claim.ranges())
    for (uint64_t at = range.offset; at < range.end(); at = ranges.back().end()) {
      const uint64_t stop = cut ? RoundDown(at, kAtOnce) + kAtOnce : range.end();
      ranges.push_back(Between(at, std::min(stop, range.end())));
      pieces.push_back({window.Bytes(ranges.back()), at});
    }
  const Status read = image_.backing().ReadPieces(pieces, [&](size_t i) {
    fetched_.fetch_add(ranges[i].length, std::memory_order_relaxed);
    window.Set(ranges[i], FetchWindow::Block::kData);
  });
  // Else who needs some of it tries for that alone.
  const auto is_needed = [needed](ByteRange range) { return IsWithin(range, needed); };
  return std::ranges::all_of(claim.ranges(), is_needed) ? read : Status();
}

// Where the data is that has to be fetched of what is claimed. Of all else it is noted
// what it is.
std::vector<ByteRange> Fetch::FindMissing(FetchWindow& window, ByteRange claimed) {
  std::vector<ByteRange> data;
  for (uint64_t at = claimed.offset; at < claimed.end();) {
    Image::Place place = image_.PlaceAt(at, claimed.end());
    if (place.source == Extent::Source::kImage) {
      window.Set(Between(at, place.end), FetchWindow::Block::kElsewhere);
      at = place.end;
      continue;
    }
    uint64_t stop = place.end;
    while (stop < claimed.end()) {
      place = image_.PlaceAt(stop, claimed.end());
      if (place.source == Extent::Source::kImage) break;
      stop = place.end;
    }
    // The backing file may end inside a block, which may have been written since.
    stop = std::min(RoundUp(stop, FetchWindow::kBlock), claimed.end());
    FindData(window, Between(at, stop), data);
    at = stop;
  }
  return data;
}

// A block of which the backing file has any data is data.
void Fetch::FindData(FetchWindow& window, ByteRange missing, std::vector<ByteRange>& data) {
  uint64_t told = missing.offset;  // a block begins there
  const auto set_zero = [&](uint64_t end) {
    if (told == end) return;
    std::ranges::fill(window.Bytes(Between(told, end)), std::byte{0});
    window.Set(Between(told, end), FetchWindow::Block::kZero);
  };
  for (uint64_t at = told; at < missing.end();) {
    const DataRun run = RunAt(at, missing.end());
    if (!run.data) {
      at = run.end;
      continue;
    }
    const uint64_t first = RoundDown(at, FetchWindow::kBlock);
    set_zero(first);
    told = at = std::min(RoundUp(run.end, FetchWindow::kBlock), missing.end());
    if (!data.empty() && data.back().end() == first)
      data.back().length += told - first;
    else
      data.push_back(Between(first, told));
  }
  set_zero(missing.end());
}

bool Fetch::RunOne() {
  Windows::iterator next;
  {
    MutexLock lock(mutex_);
    if (queue_.empty()) return false;
    next = queue_.begin();
    busy_.splice(busy_.end(), queue_, next);
  }
  FetchWindow& window = **next;
  try {
    do {
      // Who needs some of what is left asks for that.
      if (!FetchRest(window)) window.GiveUpIdle();
    } while (!window.WaitUntilSettled());
    Keep(window);
  } catch (const std::exception&) {
    // No memory: it is not kept.
  }
  Drop(next);
  return true;
}

void Fetch::RunUntilStopped() {
  const auto wait = [this] {
    MutexLock lock(mutex_);
    while (queue_.empty() && !stop_) queued_.Wait(mutex_);
    return !queue_.empty();
  };
  while (wait()) (void)RunOne();
}

void Fetch::Stop() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  queued_.NotifyAll();
  room_.NotifyAll();
}

void Fetch::Keep(const FetchWindow& window) {
  if (!Active()) return;
  for (const ByteRange range : window.ToKeep(unit_, image_.grain())) {
    const Image::Place place = image_.PlaceAt(range.offset, range.end());
    if (place.source == Extent::Source::kImage && place.end == range.end()) continue;
    if (const Status kept = image_.Keep(window.Bytes(range), range.offset); !kept)
      return KeepFailed(kept.error());
    kept_.fetch_add(range.length, std::memory_order_relaxed);
    paused_until_.store(0, std::memory_order_relaxed);
    failing_.store(false, std::memory_order_relaxed);
  }
}

void Fetch::KeepFailed(const Error& error) {
  failures_.fetch_add(1, std::memory_order_relaxed);
  paused_until_.store((Clock::now() + pause_).time_since_epoch().count(),
                      std::memory_order_relaxed);
  if (!image_.writable() || failing_.exchange(true, std::memory_order_relaxed)) return;
  log_(LogLevel::kError,
       error
           .WithNote("so what is read from the backing file is not kept; that is tried again "
                     "from time to time")
           .Message());
}

}  // namespace addcow
