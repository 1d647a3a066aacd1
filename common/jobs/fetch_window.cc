// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fetch_window.h.

#include "common/jobs/fetch_window.h"

#include <algorithm>

namespace addcow {

FetchWindow::FetchWindow(uint64_t offset, uint64_t end)
    : offset_(offset),
      end_(end),
      bytes_(std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(end - offset))),
      blocks_(static_cast<size_t>(DivideUp(end - offset, kBlock)), Block::kIdle) {}

FetchWindow::Blocks FetchWindow::Touched(ByteRange range) const {
  return {static_cast<size_t>((range.offset - offset_) / kBlock),
          static_cast<size_t>(DivideUp(range.end() - offset_, kBlock))};
}

ByteRange FetchWindow::RangeOf(Blocks blocks) const {
  const uint64_t start = offset_ + blocks.first * kBlock;
  return {start, std::min(offset_ + blocks.end * kBlock, end_) - start};
}

ByteRange FetchWindow::Claim(ByteRange wanted, ByteRange within) {
  const Blocks of = Touched(wanted);
  const Blocks limit = Touched(within);
  MutexLock lock(mutex_);
  for (size_t i = of.first; i < of.end; i++) {
    if (blocks_[i] != Block::kIdle) continue;
    Blocks run{i, i};
    while (run.first > limit.first && blocks_[run.first - 1] == Block::kIdle) run.first--;
    while (run.end < limit.end && blocks_[run.end] == Block::kIdle) run.end++;
    for (size_t block = run.first; block < run.end; block++) blocks_[block] = Block::kReading;
    return RangeOf(run);
  }
  return {};
}

std::vector<ByteRange> FetchWindow::ClaimAll(ByteRange within) {
  const Blocks of = Touched(within);
  std::vector<ByteRange> ranges;
  MutexLock lock(mutex_);
  for (size_t i = of.first; i < of.end;) {
    Blocks run{i, i};
    while (run.end < of.end && blocks_[run.end] == Block::kIdle) run.end++;
    if (run.end > run.first) ranges.push_back(RangeOf(run));
    i = run.end + 1;
  }
  for (size_t i = of.first; i < of.end; i++)
    if (blocks_[i] == Block::kIdle) blocks_[i] = Block::kReading;
  return ranges;
}

void FetchWindow::Set(ByteRange range, Block to) {
  Change(Touched(range), Block::kReading, to);
}

void FetchWindow::GiveUpIdle() {
  Change(Touched({offset_, length()}), Block::kIdle, Block::kFailed);
}

void FetchWindow::Change(Blocks of, Block from, Block to) {
  {
    MutexLock lock(mutex_);
    for (size_t i = of.first; i < of.end; i++)
      if (blocks_[i] == from) blocks_[i] = to;
  }
  changed_.NotifyAll();
}

FetchWindow::Found FetchWindow::Wait(ByteRange range) {
  const Blocks of = Touched(range);
  MutexLock lock(mutex_);
  Found found = Found::kThere;
  for (size_t i = of.first; i < of.end; i++) {
    while (blocks_[i] == Block::kReading) changed_.Wait(mutex_);
    if (blocks_[i] == Block::kElsewhere || blocks_[i] == Block::kFailed) return Found::kNot;
    if (blocks_[i] == Block::kIdle) found = Found::kIdle;
  }
  return found;
}

bool FetchWindow::NeedsData() const {
  MutexLock lock(mutex_);
  return std::ranges::any_of(
      blocks_, [](Block block) { return block == Block::kData || block == Block::kReading; });
}

bool FetchWindow::WaitUntilSettled() {
  MutexLock lock(mutex_);
  while (std::ranges::find(blocks_, Block::kReading) != blocks_.end()) changed_.Wait(mutex_);
  return std::ranges::find(blocks_, Block::kIdle) == blocks_.end();
}

std::vector<ByteRange> FetchWindow::ToKeep(uint64_t unit, uint64_t grain) const {
  std::vector<ByteRange> ranges;
  const size_t step = static_cast<size_t>(unit / kBlock);
  MutexLock lock(mutex_);
  for (size_t i = 0; i < blocks_.size(); i += step)
    KeepUnit({i, std::min(i + step, blocks_.size())}, static_cast<size_t>(grain / kBlock),
             ranges);
  return ranges;
}

// The unit, if it is complete, or those of its grains that are.
void FetchWindow::KeepUnit(Blocks unit, size_t grain, std::vector<ByteRange>& ranges) const {
  bool data = false;
  bool there = true;  // all
  bool known = true;  // all are there, or are elsewhere
  for (size_t i = unit.first; i < unit.end; i++) {
    const Block block = blocks_[i];
    data = data || block == Block::kData;
    if (block == Block::kData || block == Block::kZero) continue;
    there = false;
    known = known && block == Block::kElsewhere;
  }
  if (!data) return;
  const bool one_grain = unit.end - unit.first <= grain;
  if (one_grain ? there : known) {
    const ByteRange range = RangeOf(unit);
    if (!ranges.empty() && ranges.back().end() == range.offset)
      ranges.back().length += range.length;
    else
      ranges.push_back(range);
    return;
  }
  for (size_t i = unit.first; !one_grain && i < unit.end; i += grain)
    KeepUnit({i, std::min(i + grain, unit.end)}, grain, ranges);
}

}  // namespace addcow
