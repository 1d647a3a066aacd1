// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The tool's verbs. Each is one file with one function that adds the verb's
// options to the command line and returns how to run it; the work itself is
// in common/ops.

#ifndef ADDCOW_TOOLS_VERBS_H
#define ADDCOW_TOOLS_VERBS_H

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/error.h"
#include "common/image/image_files.h"

namespace CLI {
class App;
}

namespace addcow {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitCannotCompare = 2;  // 1: different
inline constexpr int kExitUsage = 64;         // EX_USAGE of sysexits.h

// That of a failure by the verb's name: of an exception, too, and of an answer that could not
// be printed.
constexpr int ExitFailedOf(std::string_view verb) {
  return verb == "compare" ? kExitCannotCompare : kExitFailed;
}

struct Verb {
  CLI::App* app = nullptr;
  std::function<int()> run;  // returns the exit status
};

Verb AddCreate(CLI::App& tool);
Verb AddInfo(CLI::App& tool);
Verb AddMap(CLI::App& tool);
Verb AddCheck(CLI::App& tool);
Verb AddCommit(CLI::App& tool);
Verb AddCompare(CLI::App& tool);
Verb AddExport(CLI::App& tool);
Verb AddFlatten(CLI::App& tool);
Verb AddImport(CLI::App& tool);
Verb AddLs(CLI::App& tool);
Verb AddMeasure(CLI::App& tool);
Verb AddRebase(CLI::App& tool);
Verb AddResize(CLI::App& tool);
Verb AddUpgrade(CLI::App& tool);
Verb AddDowngrade(CLI::App& tool);
Verb AddStatus(CLI::App& tool);
Verb AddFill(CLI::App& tool);

// A subcommand with what all of them have: --help and --version. `usage` is what
// follows the name in the usage line, with line breaks where it is long.
CLI::App* AddVerb(CLI::App& tool, const std::string& name, const std::string& usage,
                  const std::string& description);
void AddHelpAndVersion(CLI::App& app, const std::string& usage);

// An option `name` that takes a string; `type` is what it is called in the help.
void AddStringOption(CLI::App& app, const char* name, const char* type,
                     std::optional<std::string>& value, const char* what);

// The positional X.add-cow, which is required.
void AddFileArgument(CLI::App& app, std::string& path);

// The positional SOCKET, which is required.
void AddSocketArgument(CLI::App& app, std::string& path);

// --output=human|json; `json` says which.
void AddOutputOption(CLI::App& app, bool& json);

// --lock=on|off.
void AddLockOption(CLI::App& app, bool& lock);
// --identity=check|ignore; `check` says which.
void AddIdentityOption(CLI::App& app, bool& check);
// --allow=uri,formats.
void AddAllowOption(CLI::App& app, AccessOptions& access);
// --timeout=SECONDS.
void AddTimeoutOption(CLI::App& app, std::chrono::seconds& timeout);
// --image, --backing, --confine, --allow, --identity and --timeout: where the files are
// that the header names, whether they are those that it was given, and how to read them.
// Messages name these options from then on.
void AddPlaceOptions(CLI::App& app, ImageSource& source);
// -U: look at files although another program has them open for writing. For
// verbs that only read; it is the same as --lock=off.
void AddForceShareFlag(CLI::App& app, bool& lock);

// Reports and returns kExitFailed.
int Failed(const Error& error);
// The same for a verb that has -U, of which it tells where that would help.
int FailedToShare(const Error& error);

// Says on one line what is wrong with the command line and where to read on,
// and returns kExitUsage. `verb` is empty where none was given.
int UsageError(const std::string& verb, const std::string& message);

}  // namespace addcow

#endif  // ADDCOW_TOOLS_VERBS_H
