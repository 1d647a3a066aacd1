// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See copy_layer.h.

#include "common/ops/copy_layer.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "common/base/units.h"

namespace addcow {

namespace {

constexpr uint64_t kCopyPiece = kMiB;            // bytes that are read and written at once
constexpr uint64_t kCopyZeroes = 256 * kMiB;     // that are made at once
constexpr uint64_t kLeastCopyPiece = 64 * kKiB;  // with a rate, of which it is an eighth

uint64_t CopyPieceAt(uint64_t rate) {
  if (rate == 0) return kCopyPiece;
  return std::clamp(RoundDown(rate / 8, kLeastCopyPiece), kLeastCopyPiece, kCopyPiece);
}

}  // namespace

PieceCopier::PieceCopier(Options options)
    : options_(std::move(options)),
      piece_(CopyPieceAt(options_.rate)),
      pace_(nullptr, options_.rate),
      buffer_(static_cast<size_t>(piece_)) {}

Status PieceCopier::CopyData(const std::string& file, ByteRange range, const Read& read,
                             const Write& write) {
  for (uint64_t at = range.offset; at < range.end();) {
    const uint64_t count = std::min(RoundDown(at, piece_) + piece_, range.end()) - at;
    ADDCOW_TRY(WaitForTurn(file));
    const auto begun = FillPace::Clock::now();
    const auto part = std::span(buffer_).first(static_cast<size_t>(count));
    ADDCOW_TRY(read(part, at));
    ADDCOW_TRY(write(part, at));
    pace_.Copied(count, begun, FillPace::Clock::now());
    at += count;
    done_ += count;
    TellProgress();
  }
  return {};
}

Status PieceCopier::CopyZeroes(const std::string& file, ByteRange range, const Zero& zero) {
  for (uint64_t at = range.offset; at < range.end(); at += kCopyZeroes) {
    ADDCOW_TRY(WaitForTurn(file));
    ADDCOW_TRY(zero(at, std::min(kCopyZeroes, range.end() - at)));
  }
  return {};
}

void PieceCopier::TellProgress() const {
  if (options_.progress) options_.progress(std::min(done_, options_.total), options_.total);
}

Status PieceCopier::WaitForTurn(const std::string& file) {
  constexpr std::chrono::milliseconds kGlance(100);  // between two looks at a signal
  for (;;) {
    ADDCOW_TRY(CheckInterrupted(options_.interrupted, file));
    const auto now = FillPace::Clock::now();
    const auto next = pace_.Next(now);
    if (next <= now) return {};
    std::this_thread::sleep_until(std::min(next, now + kGlance));
  }
}

Status CopyLayer(PieceCopier& copier, const LayerToCopy& layer) {
  const auto changing = [&] {
    if (layer.before_change) layer.before_change();
  };
  const auto read = [&](std::span<std::byte> buffer, uint64_t offset) {
    return layer.image.ReadExactly(buffer, offset);
  };
  const auto write = [&](std::span<const std::byte> data, uint64_t offset) {
    changing();
    return layer.target.Write(data, offset);
  };
  const auto zero = [&](uint64_t offset, uint64_t length) {
    changing();
    return layer.target.Zero(offset, length);
  };
  return layer.runs.Visit([&](bool data, ByteRange range) -> Status {
    if (data) return copier.CopyData(layer.file, range, read, write);
    if (range.offset >= layer.zeroes_end) return {};
    range.length = std::min(range.end(), layer.zeroes_end) - range.offset;
    return copier.CopyZeroes(layer.file, range, zero);
  });
}

}  // namespace addcow
