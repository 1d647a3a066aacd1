// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See wait.h.

#include "tools/wait.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <optional>
#include <thread>

#include "tools/interrupt.h"

namespace addcow {

namespace {

// Locks cannot be waited for (they are tests of other locks), so they are
// looked at again.
constexpr std::chrono::milliseconds kPause(100);

// 0 .. about 30 years, so that no sum of times overflows.
constexpr unsigned kMaxSeconds = 1'000'000'000;

std::optional<std::chrono::seconds> ParseSeconds(const std::string& text) {
  unsigned seconds = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, seconds);
  if (parsed.ec != std::errc() || parsed.ptr != end || seconds > kMaxSeconds)
    return std::nullopt;
  return std::chrono::seconds(seconds);
}

// What a flag without a value has.
constexpr const char* kForEver = "true";

}  // namespace

// A flag, which takes a value only after "=": an option would take the word
// that follows, the image's name.
void Wait::AddOption(CLI::App& app) {
  app.add_flag("--wait", asked_, "Wait until nobody else uses the image")
      ->option_text("[=SECONDS]")
      ->check(
          [](const std::string& text) {
            return text == kForEver || ParseSeconds(text)
                       ? std::string()
                       : fmt::format("is '{}', must be whole seconds, 0 to {}", text,
                                     kMaxSeconds);
          },
          "SECONDS");
}

bool Wait::Pause(Clock::time_point start) const {
  if (asked_.empty() || InterruptCame()) return false;
  const auto limit = ParseSeconds(asked_);  // none: for ever
  if (limit && Clock::now() - start >= *limit) return false;
  std::this_thread::sleep_for(kPause);
  return !InterruptCame();
}

}  // namespace addcow
