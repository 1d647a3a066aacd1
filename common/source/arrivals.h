// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Arrivals: for a source that reads pieces in parts, which of the pieces are there.
//
// Threads: any may say that a part came. The rest is for one thread, and before.

#ifndef ADDCOW_COMMON_SOURCE_ARRIVALS_H
#define ADDCOW_COMMON_SOURCE_ARRIVALS_H

#include <atomic>
#include <cstddef>
#include <vector>

#include "common/source/source.h"

namespace addcow {

class Arrivals {
 public:
  // Each of the pieces waits for one Came. `arrived` may be empty, and must outlive this.
  Arrivals(size_t pieces, const Source::Arrived& arrived) : arrived_(arrived), left_(pieces) {
    for (std::atomic<size_t>& left : left_) left = 1;
  }

  // The piece waits for one more.
  void Expect(size_t piece) { left_[piece]++; }

  void Came(size_t piece) {
    if (--left_[piece] == 0 && arrived_) arrived_(piece);
  }

 private:
  const Source::Arrived& arrived_;
  std::vector<std::atomic<size_t>> left_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_ARRIVALS_H
