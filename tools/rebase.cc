// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow rebase. Only the unsafe kind so far, by the names of qemu-img: what
// changes are the names, not the data.

#include "common/ops/rebase.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "common/base/printable.h"
#include "tools/file_names.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

struct Arguments {
  std::string file;
  FileNames names;
  AccessOptions access = {.lock = true, .confine = std::nullopt, .option_prefix = "--"};
  bool unsafe = false;
  bool quiet = false;
  Wait wait;
};

constexpr const char* kUsage =
    "-u [-b BACKING -F FORMAT] [-i IMAGE] [-q] [--lock=on|off]\n"
    "           [--wait[=SECONDS]] [--confine=DIR] [--identity=check|ignore]\n"
    "           [--timeout=SECONDS] X.add-cow";

constexpr const char* kFooter =
    "Only the names change, and what is noted of the backing file: no data is\n"
    "copied or compared. So the new files must hold what the old ones did; they may\n"
    "have been moved, or be copies. With the name that it has already, a backing\n"
    "file that has changed is accepted as it is.\n\n"
    "File names are stored as given. Relative ones start from the directory of\n"
    "X.add-cow, not from the working directory. The image must not be in use.\n\n"
    "Exit status: 0 done; 1 failed, and nothing was changed; 64 wrong usage.\n\n"
    "Examples:\n"
    "  addcow rebase -u -b ../bases/base.img -F raw x.add-cow\n"
    "  addcow rebase -u -i disk-moved.raw x.add-cow";

int RunRebase(const Arguments& arguments) {
  const auto usage = [](const std::string& message) { return UsageError("rebase", message); };
  const FileNames& names = arguments.names;
  if (!arguments.unsafe)
    return usage("-u is required: names can be changed, data not yet (flatten copies it)");
  if (const std::string problem = names.Problem(); !problem.empty()) return usage(problem);
  if (!names.backing && !names.image)
    return usage("-b BACKING -F FORMAT or -i IMAGE is required");

  RebaseOptions options{.add_cow_path = arguments.file,
                        .backing = names.Backing(),
                        .image_name = names.image,
                        .access = arguments.access};
  // It takes a moment: a signal that comes then finds it done, with nothing left
  // beside it.
  CatchInterrupts();
  options.access.interrupted = InterruptCame;
  const auto rebased =
      arguments.wait.WhileBusy([&] { return RebaseUnsafely(PosixFileSystem(), options); });
  if (!rebased) return FailedUnlessStopped(rebased.error());
  if (arguments.quiet) return kExitOk;
  for (const std::string& note : rebased->notes) PrintNote(note);
  std::string text =
      fmt::format("Rebased '{}', size={}", Printable(arguments.file), rebased->virtual_size);
  if (rebased->header.backing)
    text +=
        fmt::format(" backing_file={} backing_fmt={}", Printable(rebased->header.backing->name),
                    Printable(rebased->header.backing->format));
  Print("{} image_file={}\n", text, Printable(rebased->header.image.name));
  return kExitOk;
}

}  // namespace

Verb AddRebase(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "rebase", kUsage, "Give an image another backing file or image file");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->file);
  app->add_flag("-u,--unsafe", arguments->unsafe,
                "Change the names only, not the data (required)");
  AddFileNames(*app, arguments->names, "The new name of the backing file",
               "The new name of the image file");
  AddLockOption(*app, arguments->access.lock);
  arguments->wait.AddOption(*app);
  app->add_option_function<std::string>(
         "--confine",
         [arguments](const std::string& value) { arguments->access.confine = value; },
         "Refuse files that the header names outside of DIR")
      ->type_name("DIR")
      ->option_text("DIR");
  AddIdentityOption(*app, arguments->access.check_identity);
  AddTimeoutOption(*app, arguments->access.timeout);
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  app->footer(kFooter);
  return {app, [arguments] { return RunRebase(*arguments); }};
}

}  // namespace addcow
