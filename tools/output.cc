// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See output.h.

#include "tools/output.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/base/printable.h"

namespace addcow {

namespace {

// The errno of the first write to standard output that failed.
int output_errno = 0;

// See NoteChange.
std::string change_made;

Error OutputError() { return Error::System(output_errno, "write", "standard output"); }

std::string Base64(std::string_view bytes) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (; !bytes.empty(); bytes.remove_prefix(std::min<size_t>(3, bytes.size()))) {
    uint32_t group = 0;  // three bytes, or what there is
    for (size_t i = 0; i < 3; i++)
      group = group << 8 | (i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u);
    for (size_t i = 0; i < 4; i++)
      text += i <= bytes.size() ? kDigits[group >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

}  // namespace

std::string AsUtf8(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace))
      .get<std::string>();
}

bool PrintText(std::string_view text) {
  if (output_errno != 0) return false;
  if (std::fwrite(text.data(), 1, text.size(), stdout) < text.size())
    output_errno = errno != 0 ? errno : EIO;
  return output_errno == 0;
}

void PrintJson(const Json& json) {
  PrintText(json.dump(4, ' ', false, Json::error_handler_t::replace) + "\n");
}

void AddName(Json& json, const std::string& key, const std::string& name) {
  json[key] = AsUtf8(name);
  if (json[key] != name) json[key + "-base64"] = Base64(name);
}

void AddNames(Json& json, const std::string& key, const std::vector<std::string>& names) {
  Json texts = Json::array();
  Json bytes = Json::array();
  bool all_text = true;
  for (const std::string& name : names) {
    texts.push_back(AsUtf8(name));
    bytes.push_back(Base64(name));
    all_text = all_text && texts.back() == name;
  }
  json[key] = std::move(texts);
  if (!all_text) json[key + "-base64"] = std::move(bytes);
}

void PrintError(std::string_view message) {
  // One write, so that lines of several processes do not mix.
  const std::string line = fmt::format("addcow: {}\n", message);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void PrintError(const Error& error) { PrintError(error.Message()); }

void PrintNote(std::string_view message) { PrintError(fmt::format("note: {}", message)); }

void LogToStderr(LogLevel level, const std::string& message) {
  if (level == LogLevel::kError) PrintError(message);
  if (level == LogLevel::kNote) PrintNote(message);
}

LogSink NotesOnly(bool quiet) {
  return [quiet](LogLevel level, const std::string& message) {
    if (level == LogLevel::kNote && !quiet) PrintNote(message);
  };
}

void FlushOutput() {
  if (std::fflush(stdout) != 0 && output_errno == 0) output_errno = errno != 0 ? errno : EIO;
}

bool OutputFailed() { return output_errno != 0; }

bool OutputPipeClosed() { return output_errno == EPIPE; }

void NoteChange(const std::string& file, const char* what) {
  change_made = fmt::format("{} {}", Printable(file), what);
}

void SayWhatWasChanged() {
  if (change_made.empty()) return;
  PrintError(fmt::format("{}, but this could not be printed: {}", change_made,
                         OutputError().Message()));
}

bool FinishOutput() {
  FlushOutput();
  if (output_errno == 0) return true;
  if (change_made.empty()) PrintError(OutputError());
  SayWhatWasChanged();
  return false;
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

std::string PercentOf(uint64_t bytes, uint64_t total) {
  const long percent =
      std::lround(100 * static_cast<double>(bytes) / static_cast<double>(total));
  if (percent == 0 && bytes > 0) return "<1%";
  if (percent == 100 && bytes < total) return ">99%";
  return fmt::format("{}%", percent);
}

}  // namespace addcow
