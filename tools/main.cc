// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow: the command line tool. Parses, runs one verb, and makes sure that
// whatever goes wrong is one line on standard error and an exit status:
// 0 done, 1 failed, 64 wrong usage (check and compare have others), 128
// and the number of a signal that stopped it. An answer that could not be printed is
// a failure, whatever it was: who sees the status only would take it for the answer.

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <exception>
#include <new>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "common/base/parse_size.h"
#include "tools/output.h"
#include "tools/verbs.h"

namespace addcow {
namespace {

// Were one of the standard descriptors closed, the next file opened would get
// its number, and progress lines would be written into an image.
void OpenStandardDescriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (::fcntl(fd, F_GETFD) == -1)
      // The wrong way round, so that using it is an error, as it was.
      (void)::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

bool IsOption(const std::string& word) { return word.size() > 1 && word.front() == '-'; }

// What is wrong with the words that no option and no argument has taken; the
// first option that is none is the likeliest mistake. Empty: there are no such words.
// `waits`: --wait was given, which takes its value in the same word.
std::string WhatIsUnexpected(const std::string& verb, const std::vector<std::string>& words,
                             bool waits) {
  if (words.empty()) return "";
  const auto option = std::ranges::find_if(words, IsOption);
  const std::string& word = option != words.end() ? *option : words.front();
  if (option != words.end()) return fmt::format("'{}' is not an option", word);
  if (verb.empty()) return fmt::format("'{}' is not a command", word);
  if (waits)
    return fmt::format("'{}' was not expected (--wait takes its seconds after '=': --wait=10)",
                       word);
  if (verb == "create" && ParseSize(word))
    return fmt::format("'{0}' was not expected (a size is given with -s {0})", word);
  if (verb == "status" || verb == "fill" || verb == "resize")
    return fmt::format("'{}' was not expected", word);
  const char* const enough = verb == "compare" ? "two disks are"
                             : verb == "ls"    ? "one directory is"
                                               : "one image is";
  return fmt::format("'{}' was not expected, {} enough", word, enough);
}

// The command line cannot be used: says why. What was not understood in it is
// a likelier mistake than `message`, that something is missing.
int WrongUsage(const CLI::App& tool, const std::string& message) {
  const auto verbs = tool.get_subcommands();
  const std::string verb = verbs.empty() ? "" : verbs.front()->get_name();
  const CLI::App& app = verbs.empty() ? tool : *verbs.front();
  const auto* const wait = app.get_option_no_throw("--wait");
  const std::string unexpected =
      WhatIsUnexpected(verb, app.remaining(), wait != nullptr && wait->count() > 0);
  return UsageError(verb, unexpected.empty() ? message : unexpected);
}

// CLI11 says "--image: 1 required IMAGE missing", or "... received 2".
std::string InOurWords(const std::string& message) {
  const std::string option = message.substr(0, message.find(':'));
  if (message.ends_with("missing")) return option + " needs a value";
  if (message.find("received") != std::string::npos) return option + " was given twice";
  return message;
}

constexpr const char* kNoCommand = "no command was given";

// The option of which a word has "=" and nothing after it. CLI11 would take the next
// word for its value.
std::string OptionWithoutValue(std::span<char* const> words) {
  for (const std::string_view word : words) {
    if (word == "--") break;
    if (word.starts_with("--") && word.find('=') == word.size() - 1) return std::string(word);
  }
  return "";
}

int Run(int argc, char** argv) {
  CLI::App tool(
      "Work with add-cow images: a raw image file, a backing file for what it does\n"
      "not hold yet, and the add-cow file, which says what it holds.");
  tool.name("addcow");
  AddHelpAndVersion(tool, "COMMAND [OPTION...] X.add-cow");
  tool.footer(
      "'addcow COMMAND --help' tells more of a command.\n\n"
      "Exit status: 0 done; 1 failed; 64 wrong usage ('check' and 'compare' have\n"
      "more). An error is one line on standard error.\n\n"
      "Example: an overlay over base.img, changed by a server, which is stopped, then\n"
      "made complete:\n"
      "  addcow create -b base.img -F raw -i disk.raw x.add-cow\n"
      "  nbdkit -f -U sock addcow x.add-cow\n"
      "  addcow flatten x.add-cow");
  tool.require_subcommand(1);
  const std::vector<Verb> verbs = {
      AddCreate(tool),  AddInfo(tool),   AddMap(tool),     AddCheck(tool),   AddCommit(tool),
      AddCompare(tool), AddExport(tool), AddFlatten(tool), AddImport(tool),  AddLs(tool),
      AddMeasure(tool), AddRebase(tool), AddResize(tool),  AddUpgrade(tool), AddDowngrade(tool),
      AddStatus(tool),  AddFill(tool)};
  const std::string no_value =
      OptionWithoutValue(std::span(argv, static_cast<size_t>(argc)).subspan(argc > 0 ? 1 : 0));
  if (!no_value.empty()) return UsageError("", fmt::format("'{}' has no value", no_value));
  try {
    tool.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const auto parsed = tool.get_subcommands();
    if (parsed.empty() && !tool.remaining().empty()) return WrongUsage(tool, "");
    PrintText(parsed.empty() ? tool.help() : parsed.front()->help("addcow"));
    return kExitOk;
  } catch (const CLI::CallForVersion& version) {
    PrintText(std::string(version.what()) + "\n");
    return kExitOk;
  } catch (const CLI::RequiredError& error) {
    return WrongUsage(tool, tool.get_subcommands().empty() ? kNoCommand : error.what());
  } catch (const CLI::ArgumentMismatch& error) {
    return WrongUsage(tool, InOurWords(error.what()));
  } catch (const CLI::ParseError& error) {
    return WrongUsage(tool, error.what());
  }
  for (const Verb& verb : verbs)
    if (verb.app->parsed()) return verb.run();
  return WrongUsage(tool, kNoCommand);
}

}  // namespace
}  // namespace addcow

int main(int argc, char** argv) {
  addcow::OpenStandardDescriptors();
  // A pipe that nobody reads any more is an error of write(2): a command that
  // writes to an image gets to an end first.
  const auto on_pipe = std::signal(SIGPIPE, SIG_IGN);
  // So is a file that would get larger than the process may make it (ulimit -f).
  (void)std::signal(SIGXFSZ, SIG_IGN);
  const int failed = addcow::ExitFailedOf(argc > 1 ? argv[1] : "");
  std::optional<int> status;
  try {
    status = addcow::Run(argc, argv);
  } catch (const std::bad_alloc&) {
    addcow::PrintError("out of memory");
  } catch (const std::exception& exception) {
    addcow::PrintError(exception.what());
  }
  addcow::FlushOutput();
  if (addcow::OutputPipeClosed() && on_pipe != SIG_IGN) {
    // As programs end that do not care: silently, but for what they have changed.
    addcow::SayWhatWasChanged();
    (void)std::signal(SIGPIPE, SIG_DFL);
    (void)std::raise(SIGPIPE);
  }
  if (!addcow::FinishOutput() && status < addcow::kExitUsage) return failed;
  return status.value_or(failed);
}
