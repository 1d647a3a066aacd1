// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow resize, with the arguments of qemu-img resize.

#include "common/ops/resize.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "common/base/parse_size.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

struct Arguments {
  ResizeOptions options;
  std::string size;
  Wait wait;
  bool progress = false;
  bool quiet = false;
};

constexpr const char* kUsage =
    "[--shrink] [-p] [-q] [--lock=on|off]\n"
    "           [--wait[=SECONDS]] [--image=FILE] [--backing=FILE]\n"
    "           [--confine=DIR] [--allow=uri,formats]\n"
    "           [--identity=check|ignore] [--timeout=SECONDS]\n"
    "           X.add-cow [+|-]SIZE";

constexpr const char* kFooter =
    "SIZE is a number of bytes, or a number with a suffix k, M, G, T, P or E (powers\n"
    "of 1024). With + or - before it, it is by how much the disk changes.\n\n"
    "What is new reads as zeroes, also where the backing file goes on. What is cut\n"
    "off is lost: make file systems and partitions on the disk smaller before, or\n"
    "larger after. The image must not be in use. Stopped or killed at any time, the\n"
    "disk has the old size or the new one: run it again, with SIZE and no sign.\n\n"
    "Exit status: 0 done; 1 failed; 64 wrong usage; 130 or 143 stopped by Ctrl-C or\n"
    "SIGTERM.\n\n"
    "Examples:\n"
    "  addcow resize x.add-cow +10G\n"
    "  addcow resize --shrink x.add-cow 20G";

Result<SizeChange> ParseChange(const std::string& text) {
  SizeChange change;
  if (text.starts_with('+')) change.kind = SizeChange::Kind::kGrowBy;
  if (text.starts_with('-')) change.kind = SizeChange::Kind::kShrinkBy;
  const bool sign = change.kind != SizeChange::Kind::kTo;
  // A change of nothing is none; a disk of nothing cannot be.
  if (sign && text.substr(1) == "0") return change;
  ADDCOW_TRY_ASSIGN(change.bytes, ParseSize(text.substr(sign ? 1 : 0)));
  return change;
}

int RunResize(const Arguments& arguments) {
  ResizeOptions options = arguments.options;
  const auto size = ParseChange(arguments.size);
  if (!size) return UsageError("resize", size.error().Message());
  options.size = *size;
  Progress progress(arguments.progress && !arguments.quiet);
  options.progress = [&](uint64_t done, uint64_t total) { progress.Show(done, total); };
  CatchInterrupts();
  options.interrupted = options.source.access.interrupted = InterruptCame;
  const auto resized = arguments.wait.WhileBusy(
      [&] { return ResizeImage(PosixFileSystem(), options, NotesOnly(arguments.quiet)); });
  progress.Finish();
  if (!resized) return FailedAsBefore(resized.error(), options.source.add_cow_path, "the disk");
  if (resized->old_size != resized->new_size)
    NoteChange(options.source.add_cow_path, "was resized");
  if (arguments.quiet) return kExitOk;
  if (resized->copied > 0)
    Print("{} were completed from the backing file.\n", HumanSize(resized->copied));
  if (resized->old_size == resized->new_size)
    Print("The disk has {} bytes already.\n", resized->new_size);
  else
    Print("Image resized.\n");
  return kExitOk;
}

}  // namespace

Verb AddResize(CLI::App& tool) {
  CLI::App* app = AddVerb(tool, "resize", kUsage, "Make the disk larger or smaller");
  auto arguments = std::make_shared<Arguments>();
  ImageSource& source = arguments->options.source;
  AddFileArgument(*app, source.add_cow_path);
  // A word that begins with "-" and a digit is no option of CLI11's, unless there is one.
  app->add_option("SIZE", arguments->size, "The new size, or the change: +SIZE or -SIZE")
      ->required()
      ->option_text(" ");
  app->add_flag("--shrink", arguments->options.shrink,
                "Make it smaller, and lose what is past its new end");
  app->add_flag("-p,--progress", arguments->progress,
                "Show the progress of copying up, where there is any");
  AddLockOption(*app, source.access.lock);
  arguments->wait.AddOption(*app);
  AddPlaceOptions(*app, source);
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  app->footer(kFooter);
  return {app, [arguments] { return RunResize(*arguments); }};
}

}  // namespace addcow
