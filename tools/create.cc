// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow create.

#include "common/ops/create.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "common/base/parse_size.h"
#include "common/base/printable.h"
#include "tools/file_names.h"
#include "tools/geometry.h"
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
  std::string size;
  std::string preallocation = "off";
  bool force = false;
  bool discard = false;
  bool reuse_image = false;
  GeometryOptions geometry;
  bool lock = true;
  bool check_identity = true;
  std::chrono::seconds timeout{60};
  bool progress = false;
  bool quiet = false;
  Wait wait;
};

constexpr const char* kUsage =
    "[-b BACKING -F FORMAT] -i IMAGE [-s SIZE]\n"
    "           [--preallocation=off|falloc|full] [--reuse-image]\n"
    "           [--force [--discard]] [--revision=1|20] [--cluster-size=SIZE]\n"
    "           [--subclusters=on|off] [-p] [-q] [--lock=on|off]\n"
    "           [--wait[=SECONDS]] [--identity=check|ignore]\n"
    "           [--timeout=SECONDS] X.add-cow";

constexpr const char* kFooter =
    "The image file is made, sparse, if it does not exist; one that exists is taken\n"
    "as it is. Its size is the disk's: -s SIZE, else the backing file's.\n\n"
    "File names are stored as given. Relative ones start from the directory of\n"
    "X.add-cow, not from the working directory.\n\n"
    "SIZE is a number of bytes, or a number with a suffix k, M, G, T, P or E (powers\n"
    "of 1024), for example 10G or 1.5T.\n\n"
    "Without a backing file everything is allocated: what the image file holds is\n"
    "the disk. With one, an image file that holds data is refused: it may be another\n"
    "disk's. --reuse-image takes it; its old bytes are ignored then.\n\n"
    "Exit status: 0 made; 1 failed; 64 wrong usage; 130 or 143 stopped by Ctrl-C or\n"
    "SIGTERM. What failed or was stopped leaves nothing behind (unless it was only\n"
    "the message at the end that could not be printed).\n\n"
    "Examples:\n"
    "  addcow create -b base.img -F raw -i disk.raw x.add-cow\n"
    "  addcow create -b base.img -F raw -i disk.raw -s 20G x.add-cow\n"
    "  addcow create -i disk.raw -s 1.5T x.add-cow";

int RunCreate(const CLI::App& app, const Arguments& arguments) {
  const auto usage = [](const std::string& message) { return UsageError("create", message); };
  const FileNames& names = arguments.names;
  if (!names.image) return usage("-i IMAGE is required");
  if (const std::string problem = names.Problem(); !problem.empty()) return usage(problem);
  if (arguments.discard && !arguments.force) return usage("--discard needs --force");

  CreateOptions options{.add_cow_path = arguments.file,
                        .image_name = *names.image,
                        .backing = names.Backing(),
                        .size = {},
                        .force = arguments.force,
                        .discard = arguments.discard,
                        .reuse_image = arguments.reuse_image,
                        .lock = arguments.lock,
                        .check_identity = arguments.check_identity,
                        .timeout = arguments.timeout};
  if (arguments.preallocation == "falloc") options.preallocation = Preallocation::kFalloc;
  if (arguments.preallocation == "full") options.preallocation = Preallocation::kFull;
  if (app.count("--size") > 0) {
    auto size = ParseSize(arguments.size);
    if (!size) return usage(size.error().Message());
    options.size = *size;
  }
  if (const auto set = arguments.geometry.Set(options); !set)
    return usage(set.error().Message());
  Progress progress(arguments.progress && !arguments.quiet);
  options.progress = [&](uint64_t done, uint64_t total) { progress.Show(done, total); };
  CatchInterrupts();
  options.interrupted = InterruptCame;
  const auto created =
      arguments.wait.WhileBusy([&] { return CreateImage(PosixFileSystem(), options); });
  progress.Finish();
  if (!created && created.error().code() == kErrInterrupted)
    return StoppedEarly(
        fmt::format("{}: interrupted: nothing was made", Printable(arguments.file)));
  if (!created) return FailedUnlessStopped(created.error());
  NoteChange(arguments.file, "was made");
  if (arguments.quiet) return kExitOk;
  if (created->old_data_ignored)
    PrintNote(fmt::format("{}: already existed, its old bytes are ignored",
                          Printable(created->image_path)));
  if (created->old_data_shown)
    PrintNote(fmt::format("{}: already existed, what it holds becomes the disk",
                          Printable(created->image_path)));
  for (const std::string& note : created->notes) PrintNote(note);
  std::string text =
      fmt::format("Formatting '{}', fmt=add-cow size={} cluster_size={}",
                  Printable(arguments.file), created->virtual_size, options.cluster_size);
  if (names.backing)
    text += fmt::format(" backing_file={} backing_fmt={}", Printable(*names.backing),
                        Printable(*names.backing_format));
  Print("{} image_file={}\n", text, Printable(*names.image));
  return kExitOk;
}

}  // namespace

Verb AddCreate(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "create", kUsage, "Make an add-cow file, and its image file if need be");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->file);
  const auto add = [&app](const char* name, std::string& value, const char* what,
                          const char* type) {
    return app->add_option(name, value, what)->type_name(type)->option_text(type);
  };
  AddFileNames(*app, arguments->names,
               "The backing file, which supplies what the image\nfile does not hold",
               "The image file (required)");
  add("-s,--size", arguments->size, "The size of a new image file", "SIZE");
  add("--preallocation", arguments->preallocation,
      "Storage of a new image file: none (the default),\nreserved, or written with zeroes",
      "off|falloc|full")
      ->check(CLI::IsMember({"off", "falloc", "full"}));
  app->add_flag("-p,--progress", arguments->progress,
                "Show the progress of --preallocation=full");
  app->add_flag("--reuse-image", arguments->reuse_image,
                "Take an image file that holds data, and ignore\nits data");
  app->add_flag("--force", arguments->force,
                "Replace X.add-cow if it is an add-cow file and\nnothing is allocated");
  app->add_flag("--discard", arguments->discard,
                "With --force: also where something is allocated;\nits data is lost");
  arguments->geometry.AddTo(*app);
  AddLockOption(*app, arguments->lock);
  arguments->wait.AddOption(*app);
  AddIdentityOption(*app, arguments->check_identity);
  AddTimeoutOption(*app, arguments->timeout);
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  app->footer(kFooter);
  return {app, [app, arguments] { return RunCreate(*app, *arguments); }};
}

}  // namespace addcow
