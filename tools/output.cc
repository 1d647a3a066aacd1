// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See output.h.

#include "tools/output.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace addcow {

namespace {

// The errno of the first write to standard output that failed.
int output_errno = 0;

}  // namespace

bool PrintText(std::string_view text) {
  if (output_errno != 0) return false;
  if (std::fwrite(text.data(), 1, text.size(), stdout) < text.size())
    output_errno = errno != 0 ? errno : EIO;
  return output_errno == 0;
}

void PrintJson(const Json& json) {
  PrintText(json.dump(4, ' ', false, Json::error_handler_t::replace) + "\n");
}

void PrintError(std::string_view message) {
  // One write, so that lines of several processes do not mix.
  const std::string line = fmt::format("addcow: {}\n", message);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void PrintError(const Error& error) { PrintError(error.Message()); }

void LogToStderr(LogLevel level, const std::string& message) {
  if (level == LogLevel::kError) PrintError(message);
}

bool FinishOutput() {
  if (std::fflush(stdout) != 0 && output_errno == 0) output_errno = errno;
  if (output_errno == 0) return true;
  PrintError(Error::System(output_errno, "write", "standard output"));
  return false;
}

std::string Printable(std::string_view name) {
  std::string text;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      text += fmt::format("\\x{:02x}", byte);
    else
      text += c;
  }
  return text;
}

std::string HumanSize(uint64_t bytes) {
  static constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  // From 1000 on, so that three digits are enough: 0.977 MiB.
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    unit++;
  }
  return fmt::format("{:.3g} {}", value, kUnits[unit]);
}

}  // namespace addcow
