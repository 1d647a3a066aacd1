// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow: the command line tool. Parses, runs one verb, and makes sure that
// whatever goes wrong is one line on standard error and an exit status:
// 0 done, 1 failed, 2 wrong usage (check has more, see check.cc).

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <exception>
#include <new>
#include <vector>

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

// Something that is required is missing from the command line. What was not
// understood there is the likelier mistake.
int Incomplete(const CLI::App& tool, const std::string& message) {
  const auto verbs = tool.get_subcommands();
  if (verbs.empty()) {
    const auto words = tool.remaining();
    if (words.empty()) return UsageError("", "no verb was given");
    return UsageError("", fmt::format("'{}' is not a verb", words.front()));
  }
  const std::string verb = verbs.front()->get_name();
  const auto words = verbs.front()->remaining();
  if (words.empty()) return UsageError(verb, message);
  return UsageError(verb, fmt::format("'{}' was not expected", words.front()));
}

int Run(int argc, char** argv) {
  CLI::App tool(
      "Work with add-cow images: a raw image file, a backing file for what it does\n"
      "not hold yet, and the add-cow file, which says what it holds.");
  tool.name("addcow");
  AddHelpAndVersion(tool);
  tool.footer(
      "'addcow VERB --help' tells more of a verb.\n\n"
      "Exit status: 0 done; 1 failed; 2 wrong usage ('check' has more). Errors are one\n"
      "line on standard error.\n\n"
      "Example: an overlay over base.img, changed by a server, which is stopped, then\n"
      "made complete:\n"
      "  addcow create -b base.img -F raw -i disk.raw x.add-cow\n"
      "  nbdkit -f -U sock addcow x.add-cow\n"
      "  addcow flatten x.add-cow");
  tool.require_subcommand(1);
  const std::vector<Verb> verbs = {AddCreate(tool), AddInfo(tool), AddMap(tool), AddCheck(tool),
                                   AddFlatten(tool)};
  try {
    tool.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const auto parsed = tool.get_subcommands();
    PrintText(parsed.empty() ? tool.help() : parsed.front()->help("addcow"));
    return kExitOk;
  } catch (const CLI::CallForVersion& version) {
    PrintText(std::string(version.what()) + "\n");
    return kExitOk;
  } catch (const CLI::RequiredError& error) {
    return Incomplete(tool, error.what());
  } catch (const CLI::ParseError& error) {
    const auto parsed = tool.get_subcommands();
    return UsageError(parsed.empty() ? "" : parsed.front()->get_name(), error.what());
  }
  for (const Verb& verb : verbs)
    if (verb.app->parsed()) return verb.run();
  return Incomplete(tool, "no verb was given");
}

}  // namespace
}  // namespace addcow

int main(int argc, char** argv) {
  addcow::OpenStandardDescriptors();
  // A closed pipe is an error of write(2), which is reported.
  (void)std::signal(SIGPIPE, SIG_IGN);
  int status = addcow::kExitFailed;
  try {
    status = addcow::Run(argc, argv);
  } catch (const std::bad_alloc&) {
    addcow::PrintError("out of memory");
  } catch (const std::exception& exception) {
    addcow::PrintError(exception.what());
  }
  if (!addcow::FinishOutput() && status == addcow::kExitOk) status = addcow::kExitFailed;
  return status;
}
