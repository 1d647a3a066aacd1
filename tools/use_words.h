// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What other programs do with an image, in words.

#ifndef ADDCOW_TOOLS_USE_WORDS_H
#define ADDCOW_TOOLS_USE_WORDS_H

#include <optional>

#include "common/io/file_info.h"

namespace addcow {

// How other programs use the image: the word for JSON, and for people.
struct UseWords {
  const char* json;
  const char* human;
};

inline UseWords WordsOf(const std::optional<FileUse>& use) {
  if (!use) return {"unknown", "unknown (the files cannot be locked)"};
  switch (*use) {
    case FileUse::kNone:
      return {"no", "no"};
    case FileUse::kRead:
      return {"reading", "yes, by programs that only read it"};
    case FileUse::kWrite:
      return {"writing", "yes, by a program that may write to it"};
  }
  return {"unknown", "unknown"};
}

}  // namespace addcow

#endif  // ADDCOW_TOOLS_USE_WORDS_H
