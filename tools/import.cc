// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow import.

#include "common/ops/import.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/printable.h"
#include "tools/geometry.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

struct Arguments {
  ImportOptions options;
  GeometryOptions geometry;
  Wait wait;
  bool json = false;
  bool progress = false;
  bool quiet = false;
};

constexpr const char* kUsage =
    "-i IMAGE [-F FORMAT] [--force [--discard]]\n"
    "           [--revision=1|20] [--cluster-size=SIZE] [--subclusters=on|off]\n"
    "           [-p] [-q] [--output=human|json] [--lock=on|off]\n"
    "           [--wait[=SECONDS]] [--timeout=SECONDS] FILE.qcow2 X.add-cow";

constexpr const char* kFooter =
    "What the qcow2 holds itself is copied into a new image file, sparsely; its\n"
    "backing file, if it has one, becomes that of X.add-cow, and is the same file\n"
    "also where X.add-cow lies elsewhere. The qcow2 is only read, and stays as it\n"
    "is.\n\n"
    "The format of the backing file is the one that the qcow2 says, else that of -F.\n"
    "Internal snapshots, bitmaps and a data file have no place in an add-cow image,\n"
    "and what is compressed takes more storage there: such a qcow2 is refused\n"
    "without --force. An encrypted one cannot be read.\n\n"
    "Exit status: 0 made; 1 failed; 64 wrong usage; 130 or 143 stopped by Ctrl-C or\n"
    "SIGTERM. What failed or was stopped leaves nothing behind.\n\n"
    "Example:\n"
    "  addcow import -i disk.raw overlay.qcow2 x.add-cow";

void PrintResultJson(const Arguments& arguments, const ImportResult& result) {
  Json json;
  AddName(json, "filename", arguments.options.create.add_cow_path);
  AddName(json, "image-filename", arguments.options.create.image_name);
  if (result.backing) {
    AddName(json, "backing-filename", result.backing->name);
    json["backing-filename-format"] = result.backing->format;
  }
  json["virtual-size"] = result.created.virtual_size;
  json["data"] = result.data;
  json["zeroes"] = result.zeroes;
  json["left-out"] = result.lost;
  json["uncompressed"] = result.compressed;
  PrintJson(json);
}

void PrintResult(const Arguments& arguments, const ImportResult& result) {
  std::string text = fmt::format(
      "Imported '{}' as '{}', size={} image_file={}", Printable(arguments.options.qcow2_path),
      Printable(arguments.options.create.add_cow_path), result.created.virtual_size,
      Printable(arguments.options.create.image_name));
  if (result.backing)
    text += fmt::format(" backing_file={} backing_fmt={}", Printable(result.backing->name),
                        Printable(result.backing->format));
  Print("{}; {} of data and {} of zeroes\n", text, HumanSize(result.data),
        HumanSize(result.zeroes));
}

int RunImport(const Arguments& arguments) {
  ImportOptions options = arguments.options;
  CreateOptions& create = options.create;
  const auto usage = [](const std::string& message) { return UsageError("import", message); };
  if (create.image_name.empty()) return usage("-i IMAGE is required");
  if (create.discard && !options.force) return usage("--discard needs --force");
  create.force = options.force;
  if (const auto set = arguments.geometry.Set(create); !set)
    return usage(set.error().Message());
  Progress progress(arguments.progress && !arguments.quiet);
  create.progress = [&](uint64_t done, uint64_t total) { progress.Show(done, total); };
  CatchInterrupts();
  create.interrupted = InterruptCame;
  const auto imported =
      arguments.wait.WhileBusy([&] { return ImportQcow2(PosixFileSystem(), options); });
  progress.Finish();
  if (!imported && InterruptCame())
    return StoppedEarly(
        fmt::format("{}: interrupted: nothing was made", Printable(create.add_cow_path)));
  if (!imported) return Failed(imported.error());
  NoteChange(create.add_cow_path, "was made");
  if (!arguments.quiet) {
    for (const std::string& note : imported->created.notes) PrintNote(note);
    for (const std::string& lost : imported->lost)
      PrintNote(fmt::format("{}: left out: {}", Printable(options.qcow2_path), lost));
    if (imported->compressed > 0)
      PrintNote(
          fmt::format("{}: {} bytes that are compressed there take their whole size in the "
                      "image file",
                      Printable(options.qcow2_path), imported->compressed));
  }
  if (arguments.json)
    PrintResultJson(arguments, *imported);
  else if (!arguments.quiet)
    PrintResult(arguments, *imported);
  return kExitOk;
}

}  // namespace

Verb AddImport(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "import", kUsage, "Make an image out of a qcow2 overlay, on its base");
  auto arguments = std::make_shared<Arguments>();
  ImportOptions& options = arguments->options;
  app->add_option("FILE.qcow2", options.qcow2_path, "The qcow2, which is only read")
      ->required()
      ->option_text(" ");
  AddFileArgument(*app, options.create.add_cow_path);
  app->add_option("-i,--image", options.create.image_name,
                  "The image file, which is made (required)")
      ->type_name("IMAGE")
      ->option_text("IMAGE");
  AddStringOption(*app, "-F,--backing-format", "FORMAT", options.backing_format,
                  "The format of the backing file, where the qcow2\ndoes not say it");
  app->add_flag("--force", options.force,
                "Leave out what has no place in an add-cow image;\nand replace X.add-cow if it "
                "is an add-cow file and\nnothing is allocated");
  app->add_flag("--discard", options.create.discard,
                "With --force: also where something is allocated;\nits data is lost");
  arguments->geometry.AddTo(*app);
  app->add_flag("-p,--progress", arguments->progress, "Show how far it is");
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  AddOutputOption(*app, arguments->json);
  AddLockOption(*app, options.create.lock);
  arguments->wait.AddOption(*app);
  AddTimeoutOption(*app, options.create.timeout);
  app->footer(kFooter);
  return {app, [arguments] { return RunImport(*arguments); }};
}

}  // namespace addcow
