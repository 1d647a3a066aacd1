// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Random numbers that can be had again. A test takes its seed from TestSeed,
// which the environment variable ADDCOW_SEED sets; otherwise it is new in
// every process. main.cc prints it, so a failure names what repeats it.

#ifndef ADDCOW_TESTS_SUPPORT_RANDOM_H
#define ADDCOW_TESTS_SUPPORT_RANDOM_H

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <vector>

namespace addcow {

inline uint64_t TestSeed() {
  static const uint64_t seed = [] {
    const char* text = std::getenv("ADDCOW_SEED");
    if (text != nullptr && *text != '\0') return std::strtoull(text, nullptr, 0);
    return static_cast<unsigned long long>(std::random_device()());
  }();
  return seed;
}

// The value of an environment variable, or `otherwise`.
inline uint64_t EnvironmentNumber(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 0) : otherwise;
}

// splitmix64: small, fast, and the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t value = state_;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
  }

  // 0 .. limit - 1.
  uint64_t Below(uint64_t limit) { return Next() % limit; }
  uint64_t Between(uint64_t low, uint64_t high) { return low + Below(high - low + 1); }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

  // Never 0, so that it is not taken for zeroes.
  std::byte NonZeroByte() { return static_cast<std::byte>(Between(1, 255)); }

  void Fill(std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      const uint64_t value = Next();
      const size_t count = bytes.size() < sizeof value ? bytes.size() : sizeof value;
      std::memcpy(bytes.data(), &value, count);
      bytes = bytes.subspan(count);
    }
  }

  std::vector<std::byte> Bytes(uint64_t count) {
    std::vector<std::byte> bytes(count);
    Fill(bytes);
    return bytes;
  }

 private:
  uint64_t state_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_RANDOM_H
