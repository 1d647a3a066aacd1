// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Takes a fuzzer's input apart, front to back. An input that has come to its
// end gives zeroes: every input means something, and a longer one means the
// same and more.

#ifndef ADDCOW_FUZZ_INPUT_H
#define ADDCOW_FUZZ_INPUT_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/units.h"

namespace addcow::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size)
      : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  bool empty() const { return rest_.empty(); }

  // Little endian, of `bytes` bytes.
  uint64_t Number(size_t bytes) {
    uint64_t value = 0;
    const auto taken = Take(bytes);
    for (size_t i = 0; i < taken.size(); i++)
      value |= static_cast<uint64_t>(taken[i]) << (8 * i);
    return value;
  }

  uint8_t Byte() { return static_cast<uint8_t>(Number(1)); }

  // A number of five bytes that spans all sizes of files: 32 bits, and how
  // far they are shifted.
  uint64_t Size() {
    const uint64_t value = Number(4);
    return value << (Byte() % 48) & kMaxOffset;
  }

  // At most `count` bytes.
  std::span<const std::byte> Take(size_t count) {
    const auto taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_INPUT_H
