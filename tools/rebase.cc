// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow rebase, by the options of qemu-img rebase.

#include "common/ops/rebase_data.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "common/base/printable.h"
#include "tools/file_names.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
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
  bool progress = false;
  Wait wait;
};

constexpr const char* kUsage =
    "[-u] [-p] [-b BACKING -F FORMAT] [-i IMAGE] [-q]\n"
    "           [--lock=on|off] [--wait[=SECONDS]] [--confine=DIR]\n"
    "           [--allow=uri,formats]\n"
    "           [--identity=check|ignore] [--timeout=SECONDS] X.add-cow";

constexpr const char* kFooter =
    "The disk reads the same afterwards: what the old and the new backing file differ\n"
    "in is copied into the image file first. With -b '' there is none any more. It\n"
    "may be killed at any time: then the disk is still on the old one, and the same\n"
    "command again goes on.\n\n"
    "With -u only the names change, and what is noted of the backing file: no data is\n"
    "copied or compared. So the new files must hold what the old ones did; they may\n"
    "have been moved, or be copies. With the name that it has already, a backing\n"
    "file that has changed is accepted as it is.\n\n"
    "File names are stored as given. Relative ones start from the directory of\n"
    "X.add-cow, not from the working directory. The image must not be in use.\n\n"
    "Exit status: 0 done; 1 failed, and the names were not changed; 64 wrong usage;\n"
    "130 or 143 stopped by Ctrl-C or SIGTERM.\n\n"
    "Examples:\n"
    "  addcow rebase -p -b newer.img -F raw x.add-cow\n"
    "  addcow rebase -u -b ../bases/base.img -F raw x.add-cow\n"
    "  addcow rebase -u -i disk-moved.raw x.add-cow";

int RunRebase(const Arguments& arguments) {
  const auto usage = [](const std::string& message) { return UsageError("rebase", message); };
  const FileNames& names = arguments.names;
  const bool no_backing = names.backing && names.backing->empty();
  if (no_backing && names.backing_format)
    return usage("-F FORMAT needs the name of a file in -b");
  if (const std::string problem = names.Problem(); !no_backing && !problem.empty())
    return usage(problem);
  if (!names.backing && !names.image)
    return usage("-b BACKING -F FORMAT or -i IMAGE is required");
  if (!arguments.unsafe && names.image)
    return usage("-i changes a name only, no data: it needs -u");

  RebaseOptions options{.add_cow_path = arguments.file,
                        .backing = no_backing ? std::nullopt : names.Backing(),
                        .no_backing = no_backing,
                        .image_name = names.image,
                        .access = arguments.access};
  CatchInterrupts();
  options.access.interrupted = InterruptCame;
  Progress progress(arguments.progress && !arguments.quiet && !arguments.unsafe);
  const auto show = [&](uint64_t done, uint64_t total) { progress.Show(done, total); };
  const auto rebased = arguments.wait.WhileBusy([&] {
    return arguments.unsafe
               ? RebaseUnsafely(PosixFileSystem(), options)
               : RebaseSafely(PosixFileSystem(), options, NotesOnly(arguments.quiet), show);
  });
  progress.Finish();
  if (!rebased) return FailedUnlessStopped(rebased.error());
  NoteChange(arguments.file, "was rebased");
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
  app->add_flag("-u,--unsafe,--backing-unsafe", arguments->unsafe,
                "Change the names only, and look at no data");
  app->add_flag("-p,--progress", arguments->progress,
                "Show the progress: a bar on a terminal, else a\nline for each 10 percent");
  AddFileNames(*app, arguments->names, "The new name of the backing file; '': none",
               "The new name of the image file");
  AddLockOption(*app, arguments->access.lock);
  arguments->wait.AddOption(*app);
  app->add_option_function<std::string>(
         "--confine",
         [arguments](const std::string& value) { arguments->access.confine = value; },
         "Refuse files that the header names outside of DIR")
      ->type_name("DIR")
      ->option_text("DIR");
  AddAllowOption(*app, arguments->access);
  AddIdentityOption(*app, arguments->access.check_identity);
  AddTimeoutOption(*app, arguments->access.timeout);
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  app->footer(kFooter);
  return {app, [arguments] { return RunRebase(*arguments); }};
}

}  // namespace addcow
