// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow flatten.

#include "common/ops/flatten.h"

#include <memory>

#include "tools/output.h"
#include "tools/progress.h"
#include "tools/verbs.h"

namespace addcow {

namespace {

struct Arguments {
  std::string file;
  AccessOptions access;
  bool progress = false;
  bool quiet = false;
};

constexpr const char* kFooter =
    "The image file is then the whole disk, and can be used alone. It may be stopped at\n"
    "any time and run again: it goes on about where it was. The image must not be in use.\n\n"
    "Exit status: 0 done; 1 failed; 2 wrong usage.\n\n"
    "Example:\n"
    "  addcow flatten -p x.add-cow";

int RunFlatten(const Arguments& arguments) {
  Progress progress(arguments.progress && !arguments.quiet);
  // What the engine would log, a failed sync, is the error that comes back: one
  // line, not two.
  const LogSink no_log = [](LogLevel, const std::string&) {};
  const auto flattened = FlattenImage(
      PosixFileSystem(), arguments.file, no_log,
      [&](uint64_t done, uint64_t total) { progress.Show(done, total); }, arguments.access);
  progress.Finish();
  if (!flattened) return Failed(flattened.error());
  if (arguments.quiet) return kExitOk;
  Print("The image file {} can now be used alone; {} {} no longer needed.\n",
        Printable(flattened->image_path), Printable(arguments.file),
        flattened->backing_path.empty()
            ? "is"
            : fmt::format("and the backing file {} are", Printable(flattened->backing_path)));
  return kExitOk;
}

}  // namespace

Verb AddFlatten(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "flatten", "Copy what is still in the backing file into the image file");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->file);
  app->add_flag("-p,--progress", arguments->progress,
                "Show the progress: a bar on a terminal, else a line each 10 percent");
  AddLockOption(*app, arguments->access.lock);
  AddConfineOption(*app, arguments->access.confine);
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  app->footer(kFooter);
  return {app, [arguments] { return RunFlatten(*arguments); }};
}

}  // namespace addcow
