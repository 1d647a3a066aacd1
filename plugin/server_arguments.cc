// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See server_arguments.h. The options that take a value must be known, so
// that a value is not taken for an option; they are those of nbdkit 1.32 to 1.48.

#include "plugin/server_arguments.h"

#include <algorithm>
#include <fstream>
#include <string_view>

namespace addcow {

namespace {

constexpr std::string_view kShortWithValue = "DegiPptUu";

constexpr std::string_view kLongWithValue[] = {
    "debug",          "export",        "export-name",      "exportname", "filter",
    "group",          "ip-addr",       "ipaddr",           "log",        "name",
    "mask-handshake", "pid-file",      "pidfile",          "port",       "run",
    "threads",        "selinux-label", "time-out",         "timeout",    "tls",
    "tls-psk",        "unix",          "tls-certificates", "user",       "tls-priority"};

enum class Meaning { kOther, kReadOnly, kWantsValue };

Meaning MeaningOfLong(std::string_view option) {
  if (option.find('=') != std::string_view::npos) return Meaning::kOther;
  const auto abbreviates = [&](std::string_view name) { return name.starts_with(option); };
  // "--r" alone could be --run: getopt_long refuses it.
  if (option.size() > 1 && (abbreviates("readonly") || abbreviates("read-only")))
    return Meaning::kReadOnly;
  if (std::ranges::any_of(kLongWithValue, abbreviates)) return Meaning::kWantsValue;
  return Meaning::kOther;
}

// Several options in one word: "fr", or "rUsocket".
Meaning MeaningOfShort(std::string_view options) {
  bool read_only = false;
  for (size_t i = 0; i < options.size(); i++) {
    if (kShortWithValue.find(options[i]) != std::string_view::npos) {
      // What follows in the word is its value.
      if (read_only || i + 1 < options.size()) break;
      return Meaning::kWantsValue;
    }
    if (options[i] == 'r') read_only = true;
  }
  return read_only ? Meaning::kReadOnly : Meaning::kOther;
}

}  // namespace

bool HasReadOnlyOption(std::span<const std::string> arguments) {
  for (size_t i = 0; i < arguments.size(); i++) {
    const std::string_view word = arguments[i];
    if (word == "--") return false;
    if (word.size() < 2 || word[0] != '-') continue;
    const Meaning meaning =
        word[1] == '-' ? MeaningOfLong(word.substr(2)) : MeaningOfShort(word.substr(1));
    if (meaning == Meaning::kReadOnly) return true;
    if (meaning == Meaning::kWantsValue) i++;
  }
  return false;
}

std::vector<std::string> OwnArguments() {
  std::vector<std::string> arguments;
  std::ifstream command_line("/proc/self/cmdline");
  for (std::string word; std::getline(command_line, word, '\0');) arguments.push_back(word);
  if (!arguments.empty()) arguments.erase(arguments.begin());  // the program's name
  return arguments;
}

}  // namespace addcow
