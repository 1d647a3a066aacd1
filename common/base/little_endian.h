// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Integers as they lie on the disk: little endian, alignment 1. A struct made
// of them has the layout of its byte table on every machine.

#ifndef ADDCOW_COMMON_BASE_LITTLE_ENDIAN_H
#define ADDCOW_COMMON_BASE_LITTLE_ENDIAN_H

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace addcow {

template <std::unsigned_integral T>
class LittleEndian {
 public:
  constexpr LittleEndian() = default;
  constexpr LittleEndian(T value) { *this = value; }

  constexpr LittleEndian& operator=(T value) {
    for (size_t i = 0; i < sizeof(T); i++)
      bytes_[i] = static_cast<uint8_t>(value >> (8 * i) & 0xff);
    return *this;
  }

  constexpr operator T() const {
    T value = 0;
    for (size_t i = 0; i < sizeof(T); i++)
      value = static_cast<T>(value | static_cast<T>(T{bytes_[i]} << (8 * i)));
    return value;
  }

 private:
  std::array<uint8_t, sizeof(T)> bytes_ = {};
};

using Le32 = LittleEndian<uint32_t>;
using Le64 = LittleEndian<uint64_t>;

static_assert(sizeof(Le32) == 4 && alignof(Le32) == 1);
static_assert(sizeof(Le64) == 8 && alignof(Le64) == 1);

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_LITTLE_ENDIAN_H
