// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow flatten.

#include "common/ops/flatten.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "common/base/printable.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

struct Arguments {
  ImageSource source;
  Wait wait;
  bool progress = false;
  bool quiet = false;
};

constexpr const char* kUsage =
    "[-p] [-q] [--lock=on|off] [--wait[=SECONDS]]\n"
    "           [--image=FILE] [--backing=FILE] [--confine=DIR] [--allow=uri,formats]\n"
    "           [--identity=check|ignore] [--timeout=SECONDS] X.add-cow";

constexpr const char* kFooter =
    "The image file is then the whole disk and can be used alone. The image must not\n"
    "be in use. Ctrl-C or SIGTERM stops the command, and what it has copied is kept:\n"
    "run it again to copy the rest. After SIGKILL too, but for the last moments.\n\n"
    "Exit status: 0 done; 1 failed; 64 wrong usage; 130 or 143 stopped by Ctrl-C or\n"
    "SIGTERM.\n\n"
    "Example:\n"
    "  addcow flatten -p x.add-cow";

int RunFlatten(const Arguments& arguments) {
  CatchInterrupts();
  Progress progress(arguments.progress && !arguments.quiet);
  uint64_t copied = 0;
  uint64_t to_copy = 0;
  const auto show = [&](uint64_t done, uint64_t total) {
    copied = done;
    to_copy = total;
    progress.Show(done, total);
  };
  const auto flattened = arguments.wait.WhileBusy([&] {
    return FlattenImage(PosixFileSystem(), arguments.source, NotesOnly(arguments.quiet), show,
                        InterruptCame);
  });
  progress.Finish();
  const std::string& file = arguments.source.add_cow_path;
  if (!flattened && flattened.error().code() == kErrInterrupted)
    return StoppedEarly(
        fmt::format("{}: interrupted: {} of {} are copied and kept; run it again for the rest",
                    Printable(file), HumanSize(copied), HumanSize(to_copy)));
  if (!flattened) return FailedUnlessStopped(flattened.error());
  NoteChange(file, "was flattened");
  if (arguments.quiet) return kExitOk;
  Print("The image file {} can now be used alone; {} {} no longer needed.\n",
        Printable(flattened->image_path), Printable(file),
        flattened->backing_path.empty()
            ? "is"
            : fmt::format("and the backing file {} are", Printable(flattened->backing_path)));
  return kExitOk;
}

}  // namespace

Verb AddFlatten(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "flatten", kUsage, "Copy the rest of the backing file to the image file");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->source.add_cow_path);
  app->add_flag("-p,--progress", arguments->progress,
                "Show the progress: a bar on a terminal, else a\nline for each 10 percent");
  AddLockOption(*app, arguments->source.access.lock);
  arguments->wait.AddOption(*app);
  AddPlaceOptions(*app, arguments->source);
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  app->footer(kFooter);
  return {app, [arguments] { return RunFlatten(*arguments); }};
}

}  // namespace addcow
