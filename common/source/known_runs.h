// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a server has said of data and zeroes, so that it need not be asked again.

#ifndef ADDCOW_COMMON_SOURCE_KNOWN_RUNS_H
#define ADDCOW_COMMON_SOURCE_KNOWN_RUNS_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

#include "common/io/file_info.h"

namespace addcow {

// One thread at a time.
class KnownRuns {
 public:
  // `most`: so many runs are kept (some 64 bytes each).
  explicit KnownRuns(size_t most) : most_(most) {}

  // What is known of the byte at `offset`, and of those after it.
  std::optional<DataRun> At(uint64_t offset) const;

  // The range is data, or zero. What was known of it is replaced.
  void Add(uint64_t start, uint64_t end, bool data);

  // There were more runs than can be kept, so that some were forgotten.
  bool forgot() const { return forgot_; }
  size_t size() const { return runs_.size(); }

 private:
  const size_t most_;
  // By their start; neighbours that touch differ.
  std::map<uint64_t, DataRun> runs_;
  bool forgot_ = false;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_KNOWN_RUNS_H
