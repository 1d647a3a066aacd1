// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See known_runs.h.

#include "common/source/known_runs.h"

#include <algorithm>
#include <iterator>

namespace addcow {

std::optional<DataRun> KnownRuns::At(uint64_t offset) const {
  auto after = runs_.upper_bound(offset);
  if (after == runs_.begin()) return std::nullopt;
  const DataRun& run = std::prev(after)->second;
  if (run.end <= offset) return std::nullopt;
  return run;
}

void KnownRuns::Add(uint64_t start, uint64_t end, bool data) {
  if (start >= end) return;
  if (runs_.size() >= most_) {
    runs_.clear();
    forgot_ = true;
  }
  // What overlaps is cut, what touches and is alike becomes one.
  auto at = runs_.lower_bound(start);
  if (at != runs_.begin() && std::prev(at)->second.end >= start) --at;
  while (at != runs_.end() && at->first <= end) {
    const uint64_t old_start = at->first;
    const DataRun old = at->second;
    at = runs_.erase(at);
    if (old.data == data) {
      start = std::min(start, old_start);
      end = std::max(end, old.end);
      continue;
    }
    if (old_start < start) runs_.emplace(old_start, DataRun{old.data, start});
    if (old.end > end) at = runs_.emplace(end, DataRun{old.data, old.end}).first;
    if (old.end > end) break;
  }
  runs_.emplace(start, DataRun{data, end});
}

}  // namespace addcow
