// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow commit, by the options of qemu-img commit; with several images.

#include "common/ops/commit.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/parse_size.h"
#include "common/base/printable.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

struct Arguments {
  CommitOptions options;
  std::string rate;
  Wait wait;
  bool progress = false;
  bool json = false;
  bool quiet = false;
};

constexpr const char* kUsage =
    "[-p] [-q] [-d] [-r SIZE] [--dry-run] [--output=human|json]\n"
    "           [--lock=on|off] [--wait[=SECONDS]] [--confine=DIR]\n"
    "           [--allow=uri,formats] [--identity=check|ignore] [--timeout=SECONDS]\n"
    "           X.add-cow...";

constexpr const char* kFooter =
    "What the images hold is written into the files that they stand on, and they are\n"
    "empty then. Several images, as the disks of one guest, are one unit: all of them\n"
    "are written before the first is emptied. Neither the images nor what they stand\n"
    "on may be in use, and nothing else may stand on that: an overlay that is not\n"
    "open is not seen here, and shows other data afterwards, with a note at most.\n"
    "Look for such before: addcow ls --bases DIR.\n\n"
    "Ctrl-C, SIGTERM or SIGKILL may stop the command at any time: every image reads\n"
    "as before, and the same command again goes on to the end.\n\n"
    "Exit status: 0 done; 1 failed; 64 wrong usage; 130 or 143 stopped by Ctrl-C or\n"
    "SIGTERM.\n\n"
    "Examples:\n"
    "  addcow commit --dry-run root.add-cow data.add-cow\n"
    "  addcow commit -p root.add-cow data.add-cow";

void PrintResultJson(const CommitResult& result, bool dry_run) {
  Json json = Json::array();
  for (const CommitResult::One& image : result.images) {
    Json one;
    AddName(one, "filename", image.add_cow_path);
    AddName(one, "full-backing-filename", image.backing_path);
    one["committed"] = !dry_run;
    one["data"] = image.data;
    one["zeroes"] = image.zeroes;
    one["backing-size"] = image.backing_size;
    if (image.grown_to != 0) one["backing-grows-to"] = image.grown_to;
    json.push_back(std::move(one));
  }
  PrintJson(json);
}

void PrintPlan(const CommitResult& result) {
  for (const CommitResult::One& image : result.images) {
    std::string text = fmt::format("{}: {} of data and {} of zeroes would be written to {}",
                                   Printable(image.add_cow_path), HumanSize(image.data),
                                   HumanSize(image.zeroes), Printable(image.backing_path));
    if (image.grown_to != 0)
      text += fmt::format(", which would grow from {} to {} bytes", image.backing_size,
                          image.grown_to);
    Print("{}\n", text);
  }
}

int RunCommit(const Arguments& arguments) {
  CommitOptions options = arguments.options;
  if (!arguments.rate.empty()) {
    const auto rate = ParseSize(arguments.rate);
    if (!rate) return UsageError("commit", fmt::format("--rate: {}", rate.error().Message()));
    options.rate = *rate;
  }
  CatchInterrupts();
  Progress progress(arguments.progress && !arguments.quiet && !options.dry_run);
  options.access.interrupted = InterruptCame;
  options.progress = [&](uint64_t done, uint64_t total) { progress.Show(done, total); };
  const auto result =
      arguments.wait.WhileBusy([&] { return CommitImages(PosixFileSystem(), options); });
  progress.Finish();
  if (!result) return FailedUnlessStopped(result.error());
  if (!options.dry_run)
    NoteChange(fmt::format("{}", fmt::join(options.add_cow_paths, ", ")),
               options.add_cow_paths.size() == 1 ? "was committed" : "were committed");
  if (!arguments.quiet)
    for (const CommitResult::One& image : result->images)
      for (const std::string& note : image.notes) PrintNote(note);
  if (arguments.json) {
    PrintResultJson(*result, options.dry_run);
  } else if (options.dry_run) {
    PrintPlan(*result);
  } else if (!arguments.quiet) {
    Print("{}\n", result->images.size() == 1
                      ? "Image committed."
                      : fmt::format("{} images committed.", result->images.size()));
  }
  return kExitOk;
}

}  // namespace

Verb AddCommit(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "commit", kUsage, "Write what images hold into their backing files");
  auto arguments = std::make_shared<Arguments>();
  CommitOptions& options = arguments->options;
  options.access.option_prefix = "--";
  app->add_option("X.add-cow", options.add_cow_paths, "The images: their add-cow files")
      ->required()
      ->option_text(" ");
  app->add_flag("-d,--drop", options.drop, "Do not empty the images: they are to be deleted");
  app->add_option("-r,--rate,--rate-limit", arguments->rate,
                  "Write no more than so many bytes a second")
      ->type_name("SIZE")
      ->option_text("SIZE");
  app->add_flag("--dry-run", options.dry_run,
                "Only say how much would be written, and\nwhether it can be");
  app->add_flag("-p,--progress", arguments->progress,
                "Show the progress: a bar on a terminal, else a\nline for each 10 percent");
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  AddOutputOption(*app, arguments->json);
  AddLockOption(*app, options.access.lock);
  arguments->wait.AddOption(*app);
  app->add_option_function<std::string>(
         "--confine",
         [arguments](const std::string& value) { arguments->options.access.confine = value; },
         "Refuse files that a header names outside of DIR")
      ->type_name("DIR")
      ->option_text("DIR");
  AddAllowOption(*app, options.access);
  AddIdentityOption(*app, options.access.check_identity);
  AddTimeoutOption(*app, options.access.timeout);
  app->footer(kFooter);
  return {app, [arguments] { return RunCommit(*arguments); }};
}

}  // namespace addcow
