// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How a fuzzer says that a property does not hold: it prints what and why and
// aborts, which every fuzzing engine takes for a crash.

#ifndef ADDCOW_FUZZ_MUST_H
#define ADDCOW_FUZZ_MUST_H

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/base/error.h"

namespace addcow::fuzz {

// How many inputs got past the first door (a header that was accepted, files
// that were opened), of either revision of the format. The replay of the corpus fails
// if none did: then the corpus and the encoding have grown apart. Each fuzzer counts its own.
struct AcceptedInputs {
  unsigned long version1 = 0;
  unsigned long revision20 = 0;

  void Count(uint64_t revision) { (revision == 20 ? revision20 : version1)++; }
};
extern AcceptedInputs accepted_inputs;

[[noreturn]] inline void Violated(const char* property, const char* file, int line,
                                  const std::string& details) {
  std::fprintf(stderr, "\n%s:%d: property violated: %s\n%s\n", file, line, property,
               details.c_str());
  std::fflush(stderr);
  std::abort();
}

// An error is for people to read: it says something, in one line, and has a
// code that is an errno.
inline void MustBeSound(const Error& error) {
  const std::string message = error.Message();
  const bool one_line = std::all_of(message.begin(), message.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
  });
  if (message.empty() || !one_line || error.code() <= 0)
    Violated("an error is one line of text and has a code", __FILE__, __LINE__, message);
}

}  // namespace addcow::fuzz

// FUZZ_MUST(condition, "format", arguments...): the property, in words.
#define FUZZ_MUST(condition, ...)                                                           \
  do {                                                                                      \
    if (!(condition))                                                                       \
      ::addcow::fuzz::Violated(#condition, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__)); \
  } while (false)

// The same for a Status or Result, whose error is shown.
#define FUZZ_MUST_SUCCEED(result, what) \
  FUZZ_MUST(result, "{}: {}", what, (result) ? std::string() : (result).error().Message())

#endif  // ADDCOW_FUZZ_MUST_H
