// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Names of files in what people read.

#ifndef ADDCOW_COMMON_BASE_PRINTABLE_H
#define ADDCOW_COMMON_BASE_PRINTABLE_H

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace addcow {

// Control characters of ASCII. Any thread, as all here.
inline bool IsControl(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

// "\x0a" for a newline.
inline std::string HexEscape(char c) {
  return fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
}

// `text` with its control characters escaped: one line, which cannot move the cursor.
inline std::string Printable(std::string_view text) {
  std::string printable;
  for (const char c : text) {
    if (IsControl(c))
      printable += HexEscape(c);
    else
      printable += c;
  }
  return printable;
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_PRINTABLE_H
