// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See engine_script.h.

#include "tests/fault/engine_script.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace addcow {

namespace {

constexpr uint64_t kAreas = 15;
constexpr uint64_t kSize = 14 * kC + 345;
constexpr uint64_t kBackingSize = 12 * kC + 65000;

}  // namespace

// Of larger clusters there are two, and the border is within the areas: before the
// seventh.
uint64_t EngineScript::Start(uint64_t cluster_size) {
  return cluster_size > kC ? cluster_size - 7 * kC : 0;
}

// The backing file ends inside an area and has holes, one of them inside an area.
ImageSpec EngineScript::Spec(const Form& form) {
  const uint64_t start = Start(form.cluster_size);
  return InForm({.size = start + kSize,
                 .backing_size = start + kBackingSize,
                 .backing_data = {{{start, 5 * kC},
                                   {start + 5 * kC + 8192, 3 * kC},
                                   {start + 9 * kC, kBackingSize - 9 * kC}}}},
                form);
}

void EngineScript::Run() {
  Map();
  Prefetch();
  Write(1000, 2000);            // in an area of data
  Write(10 * kC + 1024, 2048);  // whole sectors
  Write(11 * kC + 4096, 8192);  // whole subclusters
  Read();
  Map();
  Flush();
  Write(1 * kC, 2 * kC);  // two whole areas
  Zero(3 * kC + 100, 30000, {.may_punch = true});
  Zero(4 * kC, kC, {.may_punch = true, .fast_only = true});
  Write(5 * kC + 77, 5000, Fua::kYes);  // over a hole of the backing file
  Zero(6 * kC + 1, 60000, {.may_punch = false});
  Read();
  Write(7 * kC + 4096, 4096);
  Write(8 * kC + 512, 512);
  Zero(8 * kC + 8192, 4096, {.may_punch = true});  // in a partial area
  CopyUp(7 * kC, 2 * kC);
  Map();
  Zero(9 * kC + 5, 100, {.may_punch = true}, Fua::kYes);
  Write(12 * kC + 60000, 20000);              // over the backing file's end
  Zero(kC + 500, 9000, {.may_punch = true});  // in an area that is allocated
  Flush();
  Write(4000, 1000);
  CopyUp(0, kSize);
  Flush();  // sets ALL_ALLOCATED
  Write(14 * kC + 1, 300, Fua::kYes);
  Zero(2 * kC, 4096, {.may_punch = true});
  Map();
  Read();
  Prefetch();
}

void EngineScript::RunAfterFault(bool sync_failed) {
  Read();
  Map();
  Prefetch();
  if (image_.writable() == sync_failed)
    Wrong(sync_failed ? "writable after a failed sync" : "not writable, but no sync failed");
  if (sync_failed) {
    ExpectRefused("write", image_.Write(Repeat(1, 10), 0));
    ExpectRefused("FUA write", image_.Write(Repeat(1, 10), kC, Fua::kYes));
    ExpectRefused("zero", image_.Zero(0, 10, {}));
    ExpectRefused("copy up", image_.CopyUp(All()));
    ExpectRefused("flush", image_.Flush());
    Read();
    return;
  }
  const size_t failures = failures_;
  for (uint64_t area = 0; area < kAreas; area++) {
    Write(area * kC + 200, 50);
    Zero(area * kC + 300, 20, {.may_punch = true});
  }
  CopyUp(0, kSize);
  Flush();
  Read();
  if (failures_ > failures) Wrong("a request failed, though the fault was gone");
  if (!image_.bitmap().all()) Wrong("not all is allocated after a copy-up of everything");
}

void EngineScript::Close() {
  const Status done = image_.Close();
  Note("close", done);
  if (done) MarkFlushed();
}

void EngineScript::Wrong(const std::string& what) {
  if (wrong_.empty()) wrong_ = what;
}

void EngineScript::Note(const char* what, const Status& status) {
  if (status) return;
  failures_++;
  if (status.error().Message().find("read only from here on") != std::string::npos) ends_++;
  const int code = status.error().code();
  if (code != EIO && code != ENOSPC)
    Wrong(std::string(what) + " failed with another errno: " + status.error().Message());
}

void EngineScript::ExpectRefused(const char* what, const Status& status) {
  if (status || status.error().code() != EIO)
    Wrong(std::string(what) + " was not refused with EIO after a failed sync");
}

void EngineScript::Write(uint64_t offset, uint64_t length, Fua fua) {
  const auto value = static_cast<std::byte>(0x40 + changes_.size());
  offset += start_;
  const Status done = image_.Write(std::vector<std::byte>(length, value), offset, fua);
  Record("write", {offset, length, value, bool(done), false}, done, fua);
}

void EngineScript::Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua) {
  offset += start_;
  const Status done = image_.Zero(offset, length, options, fua);
  Record("zero", {offset, length, std::byte{0}, bool(done), false}, done, fua);
}

void EngineScript::Record(const char* what, const Change& change, const Status& done, Fua fua) {
  Note(what, done);
  if (changes_.size() == 63) Wrong("the script is too long for 64 bits");
  changes_.push_back(change);
  if (done && fua == Fua::kYes) MarkFlushed();
}

void EngineScript::Flush() {
  const Status done = image_.Flush();
  Note("flush", done);
  if (done) MarkFlushed();
}

void EngineScript::MarkFlushed() {
  for (Change& change : changes_) change.flushed = true;
}

void EngineScript::Read() {
  // One buffer for all: fresh memory would be most of the work.
  static std::vector<std::byte> bytes;
  bytes.assign(image_.virtual_size(), std::byte{0xee});
  const Status done = image_.Read(bytes, 0);
  Note("read", done);
  if (!done) return;
  if (const std::string found = Check(bytes, false); !found.empty()) Wrong("read: " + found);
}

void EngineScript::Map() {
  const std::vector<Segment> segments = Segments(false);
  uint64_t end = 0;
  const Status done = image_.Map(0, image_.virtual_size(), [&](const Extent& extent) {
    if (extent.offset != end || extent.length == 0) Wrong("extents with a gap");
    end = extent.offset + extent.length;
    if (extent.data) return true;
    static const std::vector<std::byte> kZeroes(2 * kMostClusterSize);
    const auto zeroes = std::span(kZeroes).first(extent.length);
    for (const Segment& segment : segments) {
      if (segment.start >= end || segment.end <= extent.offset) continue;
      const uint64_t wrong = FirstWrong(segment, zeroes, extent.offset);
      if (wrong < std::min(segment.end, end))
        Wrong("byte " + std::to_string(wrong) + " was called a hole, but is not zero");
    }
    return true;
  });
  Note("map", done);
  if (done && end != image_.virtual_size()) Wrong("extents that do not cover the disk");
}

std::vector<EngineScript::Segment> EngineScript::Segments(bool reopened) const {
  std::vector<uint64_t> borders = {0, contents_.size()};
  for (const Change& change : changes_) {
    borders.push_back(change.offset);
    borders.push_back(change.offset + change.length);
  }
  std::ranges::sort(borders);
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
  std::vector<Segment> segments;
  for (auto start = borders.begin(), end = std::next(start); end != borders.end();
       start = end, ++end) {
    Segment segment{*start, *end, 1};
    for (size_t n = 0; n < changes_.size(); n++) {
      const Change& change = changes_[n];
      if (*start < change.offset || *start >= change.offset + change.length) continue;
      const bool sure = change.succeeded && (change.flushed || !reopened);
      const uint64_t bit = uint64_t{2} << n;
      segment.origins = sure ? bit : segment.origins | bit;
    }
    segments.push_back(segment);
  }
  return segments;
}

uint64_t EngineScript::FirstWrong(const Segment& segment, std::span<const std::byte> bytes,
                                  uint64_t offset) const {
  const uint64_t end = std::min(segment.end, offset + bytes.size());
  const uint64_t start = std::max(segment.start, offset);
  const bool as_it_was = (segment.origins & 1) != 0;
  // All of it as it was: the usual case, and much the fastest.
  const std::byte* const first = bytes.data() + (start - offset);
  if (as_it_was && std::memcmp(first, contents_.data() + start, end - start) == 0) return end;
  std::array<bool, 256> changed_to{};
  for (uint64_t rest = segment.origins & ~uint64_t{1}; rest != 0; rest &= rest - 1)
    changed_to[std::to_integer<size_t>(
        changes_[static_cast<size_t>(std::countr_zero(rest)) - 1].value)] = true;
  // Or all of it the same that it was changed to.
  if (start < end && changed_to[std::to_integer<size_t>(*first)] &&
      std::memcmp(first, first + 1, end - start - 1) == 0)
    return end;
  for (uint64_t i = start; i < end; i++) {
    const std::byte byte = bytes[i - offset];
    if (!changed_to[std::to_integer<size_t>(byte)] && !(as_it_was && byte == contents_[i]))
      return i;
  }
  return end;
}

std::string EngineScript::Check(const std::vector<std::byte>& actual, bool reopened) const {
  if (actual.size() != contents_.size()) return "the disk could not be read";
  for (const Segment& segment : Segments(reopened)) {
    const uint64_t wrong = FirstWrong(segment, actual, 0);
    if (wrong < segment.end)
      return "byte " + std::to_string(wrong) + " of area " +
             std::to_string((wrong - start_) / kC) + " is neither old nor new";
  }
  return "";
}

}  // namespace addcow
