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

// What is read at once of the rest: who comes meanwhile and needs some of it waits no
// longer than for so much.
constexpr uint64_t kRestPiece = 256 * kKiB;

// A longer request gets windows as long as this, and so reads as large.
constexpr uint64_t kMostOfRequest = 2 * kMiB;

ByteRange Between(uint64_t offset, uint64_t end) { return {offset, end - offset}; }

bool Overlap(ByteRange a, ByteRange b) { return a.offset < b.end() && b.offset < a.end(); }

bool IsWithin(ByteRange inner, ByteRange outer) {
  return inner.offset >= outer.offset && inner.end() <= outer.end();
}

}  // namespace

// Blocks that are claimed. Whatever ends the scope, nobody is left waiting for them.
class Fetch::Claimed {
 public:
  Claimed(FetchWindow& window, ByteRange range) : window_(window), ranges_{range} {}
  ~Claimed() {
    for (const ByteRange range : ranges_) window_.Set(range, FetchWindow::Block::kFailed);
  }
  Claimed(const Claimed&) = delete;
  Claimed& operator=(const Claimed&) = delete;

  // No more than these from now on: others may get claimed by somebody else.
  void Only(std::vector<ByteRange> ranges) { ranges_.swap(ranges); }
  const std::vector<ByteRange>& ranges() const { return ranges_; }

 private:
  FetchWindow& window_;
  std::vector<ByteRange> ranges_;
};

// A window that was made for the caller, who reads what it needs of it first.
class Fetch::Made {
 public:
  Made(Fetch& fetch, const Place& place) : fetch_(fetch), place_(place) {}
  ~Made() {
    if (place_.made) fetch_.Queue(*place_.made);
  }
  Made(const Made&) = delete;
  Made& operator=(const Made&) = delete;

 private:
  Fetch& fetch_;
  const Place& place_;
};

uint64_t Fetch::DefaultSize(const Image& image) {
  const Source* const source = image.files().backing.get();
  return source != nullptr && source->shared_file() != nullptr ? kLocalSize : kRemoteSize;
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
    const Made made(*this, place);
    ADDCOW_TRY(FetchNeeded(*place.window, needed));
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

// Of the backing file. Where that cannot be told, all is data.
DataRun Fetch::RunAt(uint64_t offset, uint64_t end) const {
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
Status Fetch::FetchNeeded(FetchWindow& window, ByteRange needed) {
  const ByteRange within =
      Between(std::max(RoundDown(needed.offset, kNeededPiece), window.offset()),
              std::min(RoundUp(needed.end(), kNeededPiece), window.end()));
  for (ByteRange left = needed; left.length > 0;) {
    const ByteRange claimed = window.Claim(left, within);
    if (claimed.length == 0) break;
    ADDCOW_TRY(ReadClaimed(window, claimed, needed));
    left = Between(std::min(claimed.end(), needed.end()), needed.end());
  }
  return {};
}

// Whatever nobody has asked for, piece by piece; nothing if nobody needed any data. False:
// not all of it.
bool Fetch::FetchRest(FetchWindow& window) {
  if (!window.HasData()) return false;
  for (uint64_t at = window.offset(); at < window.end();) {
    if (stopped()) return false;
    const ByteRange piece =
        Between(at, std::min(RoundDown(at, kRestPiece) + kRestPiece, window.end()));
    const ByteRange claimed = window.Claim(piece, piece);
    if (claimed.length == 0)
      at = piece.end();
    else if (!ReadClaimed(window, claimed, claimed))
      return false;
  }
  return true;
}

// The data in what is claimed that is `needed`, whole runs; others are idle again.
Status Fetch::ReadClaimed(FetchWindow& window, ByteRange claimed, ByteRange needed) {
  Claimed claim(window, claimed);
  const std::vector<ByteRange> data = FindMissing(window, claimed);
  const auto is_needed = [needed](ByteRange range) { return Overlap(range, needed); };
  std::vector<ByteRange> wanted;
  std::ranges::copy_if(data, std::back_inserter(wanted), is_needed);
  claim.Only(std::move(wanted));
  for (const ByteRange range : data)
    if (!is_needed(range)) window.Set(range, FetchWindow::Block::kIdle);
  for (const ByteRange range : claim.ranges()) {
    const Status read = image_.backing().Read(window.Bytes(range), range.offset);
    window.Set(range, read ? FetchWindow::Block::kData : FetchWindow::Block::kFailed);
    if (!read && IsWithin(range, needed)) return read;
  }
  return {};
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
    paused_until_.store(0, std::memory_order_relaxed);
    failing_.store(false, std::memory_order_relaxed);
  }
}

void Fetch::KeepFailed(const Error& error) {
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
