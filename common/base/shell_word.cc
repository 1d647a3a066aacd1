// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See shell_word.h.

#include "common/base/shell_word.h"

#include <algorithm>

#include "common/base/printable.h"

namespace addcow {

namespace {

// What means nothing else to a shell, anywhere in a word.
bool IsPlain(char c) {
  static constexpr std::string_view kPlain = "%+,-./:=@_";
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         kPlain.find(c) != std::string_view::npos;
}

}  // namespace

std::string ShellWord(std::string_view text) {
  if (!text.empty() && std::ranges::all_of(text, IsPlain)) return std::string(text);
  const bool escapes = std::ranges::any_of(text, IsControl);
  std::string word = escapes ? "$'" : "'";
  for (const char c : text) {
    if (IsControl(c))
      word += HexEscape(c);
    else if (escapes && (c == '\'' || c == '\\'))
      word += {'\\', c};
    else if (c == '\'')
      word += "'\\''";
    else
      word += c;
  }
  return word + "'";
}

}  // namespace addcow
