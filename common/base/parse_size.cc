// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See parse_size.h. In integers: a double has not the digits for a size near
// 2^63, and would accept "inf", "0x1p3" and "1e3".

#include "common/base/parse_size.h"

#include <fmt/format.h>

#include <string_view>

#include "common/base/units.h"

namespace addcow {

namespace {

// Wide enough for 19 digits times 2^60.
using Wide = unsigned __int128;

constexpr std::string_view kSuffixes = "bkmgtpe";
constexpr size_t kMaxDigits = 19;  // of 2^63 - 1

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Takes the digits at the start of `text` away from it.
std::string_view TakeDigits(std::string_view& text) {
  size_t count = 0;
  while (count < text.size() && IsDigit(text[count])) count++;
  const std::string_view digits = text.substr(0, count);
  text.remove_prefix(count);
  return digits;
}

Wide Value(std::string_view digits) {
  Wide value = 0;
  for (const char c : digits) value = value * 10 + static_cast<unsigned>(c - '0');
  return value;
}

Wide PowerOfTen(size_t exponent) {
  Wide value = 1;
  while (exponent-- > 0) value *= 10;
  return value;
}

Error BadSize(const std::string& text, std::string_view reason) {
  return Error::Because(EINVAL, fmt::format("size '{}'", text), std::string(reason));
}

}  // namespace

Result<uint64_t> ParseSize(const std::string& text) {
  constexpr std::string_view kGrammar =
      "must be a number of bytes, or a number with one of the suffixes k, M, G, T, P, E "
      "(powers of 1024), for example 10G or 1.5T";
  std::string_view rest = text;
  std::string_view whole = TakeDigits(rest);
  if (whole.empty()) return Fail(BadSize(text, kGrammar));
  std::string_view fraction;
  const bool has_point = rest.starts_with('.');
  if (has_point) {
    rest.remove_prefix(1);
    fraction = TakeDigits(rest);
    if (fraction.empty()) return Fail(BadSize(text, kGrammar));
  }
  unsigned shift = 0;
  if (!rest.empty()) {
    const char lower = static_cast<char>(rest.front() | 0x20);
    const size_t suffix = kSuffixes.find(lower);
    if (rest.size() != 1 || suffix == std::string_view::npos)
      return Fail(BadSize(text, kGrammar));
    shift = static_cast<unsigned>(10 * suffix);
  }
  if (has_point && shift == 0)
    return Fail(BadSize(text, "must be a whole number of bytes, or have a suffix"));

  while (whole.size() > 1 && whole.front() == '0') whole.remove_prefix(1);
  fraction = fraction.substr(0, kMaxDigits);
  constexpr std::string_view kRange = "must be 1 byte to 9223372036854775807 bytes";
  if (whole.size() > kMaxDigits) return Fail(BadSize(text, kRange));
  const Wide size =
      (Value(whole) << shift) + (Value(fraction) << shift) / PowerOfTen(fraction.size());
  if (size == 0 || size > kMaxOffset) return Fail(BadSize(text, kRange));
  return static_cast<uint64_t>(size);
}

std::optional<uint64_t> ParseRate(const std::string& text) {
  if (text == "0") return 0;
  const auto rate = ParseSize(text);
  return rate ? std::optional(*rate) : std::nullopt;
}

}  // namespace addcow
