// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the tool prints: results to standard output, everything else to
// standard error. A result that did not arrive (full disk, closed pipe) is a
// failure of the tool; FinishOutput, called last, sees to it, and says where something
// was changed all the same.
//
// Threads: for the main thread, but LogToStderr, which any may call.

#ifndef ADDCOW_TOOLS_OUTPUT_H
#define ADDCOW_TOOLS_OUTPUT_H

#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/base/log.h"

namespace addcow {

// Keeps the keys in the order in which they were added.
using Json = nlohmann::ordered_json;

// Writes to standard output. False: it takes no more, so do not go on.
bool PrintText(std::string_view text);

template <typename... Args>
bool Print(fmt::format_string<Args...> text, Args&&... args) {
  return PrintText(fmt::format(text, std::forward<Args>(args)...));
}

// As qemu-img lays it out.
void PrintJson(const Json& json);

// With replacement characters for what is not UTF-8.
std::string AsUtf8(const std::string& text);

// Adds the file name `name` under `key`, as text. JSON is UTF-8; a name that is
// not gets replacement characters there, and is itself under `key`-base64.
void AddName(Json& json, const std::string& key, const std::string& name);

// The same of several names, in an array. Where any is not UTF-8, `key`-base64 has all of them.
void AddNames(Json& json, const std::string& key, const std::vector<std::string>& names);

// "addcow: MESSAGE" on standard error.
void PrintError(std::string_view message);
void PrintError(const Error& error);

// "addcow: note: MESSAGE", for what did not fail.
void PrintNote(std::string_view message);

// For the engine: errors and notes to standard error, the rest nowhere.
void LogToStderr(LogLevel level, const std::string& message);

// The same without the errors, for who gets them back as a result: one line, not two. And
// without notes, if it is `quiet`.
LogSink NotesOnly(bool quiet);

// Something was changed, and stays so: "x.add-cow was resized". If the message about it cannot
// be printed, the error says that, lest it be done a second time.
void NoteChange(const std::string& file, const char* what);

// Brings to standard output what has been printed so far.
void FlushOutput();

// Whether something of it did not arrive, as FinishOutput will say: nobody is to go on
// printing for ever.
bool OutputFailed();

// Whether standard output is a pipe that nobody reads any more.
bool OutputPipeClosed();

// Says what was changed, where anything was, and that it could not be printed.
void SayWhatWasChanged();

// Flushes standard output and says whether all of it was written, with a
// message if not.
bool FinishOutput();

// 1.5 GiB: three digits, units of 1024, as qemu-img shows sizes.
std::string HumanSize(uint64_t bytes);

// 38%, without a fraction. Some is never 0 % but "<1%", and not all is ">99%" at most.
std::string PercentOf(uint64_t bytes, uint64_t total);

}  // namespace addcow

#endif  // ADDCOW_TOOLS_OUTPUT_H
