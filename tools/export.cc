// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow export.

#include "common/ops/export.h"

#include <CLI/CLI.hpp>
#include <bit>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/parse_size.h"
#include "common/base/printable.h"
#include "common/base/units.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

struct Arguments {
  ExportOptions options;
  std::string cluster_size;
  Wait wait;
  bool json = false;
  bool progress = false;
  bool quiet = false;
};

constexpr const char* kUsage =
    "[--cluster-size=SIZE] [--force] [-p] [-q]\n"
    "           [--output=human|json] [--lock=on|off] [--wait[=SECONDS]]\n"
    "           [--image=FILE] [--backing=FILE] [--confine=DIR]\n"
    "           [--allow=uri,formats] [--identity=check|ignore] [--timeout=SECONDS]\n"
    "           X.add-cow FILE.qcow2";

constexpr const char* kFooter =
    "What the image file has is written into a new qcow2, zeroes as zeroes, and\n"
    "nothing of the backing file, which becomes that of the qcow2: the same file,\n"
    "also where the qcow2 lies elsewhere. The image is only read, and stays as it\n"
    "is.\n\n"
    "Exit status: 0 made; 1 failed; 64 wrong usage; 130 or 143 stopped by Ctrl-C or\n"
    "SIGTERM. What failed or was stopped leaves nothing behind.\n\n"
    "Example:\n"
    "  addcow export x.add-cow overlay.qcow2";

void PrintResultJson(const ExportOptions& options, const ExportResult& result) {
  Json json;
  AddName(json, "filename", options.qcow2_path);
  if (result.backing) {
    AddName(json, "backing-filename", result.backing->name);
    json["backing-filename-format"] = result.backing->format;
  }
  json["virtual-size"] = result.virtual_size;
  json["cluster-size"] = options.cluster_size;
  json["data"] = result.data;
  json["zeroes"] = result.zeroes;
  PrintJson(json);
}

void PrintResult(const ExportOptions& options, const ExportResult& result) {
  std::string text =
      fmt::format("Exported '{}' as '{}', fmt=qcow2 size={} cluster_size={}",
                  Printable(options.source.add_cow_path), Printable(options.qcow2_path),
                  result.virtual_size, options.cluster_size);
  if (result.backing)
    text += fmt::format(" backing_file={} backing_fmt={}", Printable(result.backing->name),
                        Printable(result.backing->format));
  Print("{}; {} of data and {} of zeroes\n", text, HumanSize(result.data),
        HumanSize(result.zeroes));
}

int RunExport(const Arguments& arguments) {
  ExportOptions options = arguments.options;
  if (!arguments.cluster_size.empty()) {
    const auto size = ParseSize(arguments.cluster_size);
    if (!size || !std::has_single_bit(*size) || *size < kSectorSize || *size > 2 * kMiB)
      return UsageError("export",
                        fmt::format("--cluster-size is '{}', must be a power of two, 512 to 2M",
                                    arguments.cluster_size));
    options.cluster_size = *size;
  }
  Progress progress(arguments.progress && !arguments.quiet);
  options.progress = [&](uint64_t done, uint64_t total) { progress.Show(done, total); };
  CatchInterrupts();
  options.source.access.interrupted = InterruptCame;
  const auto exported =
      arguments.wait.WhileBusy([&] { return ExportQcow2(PosixFileSystem(), options); });
  progress.Finish();
  if (!exported && InterruptCame())
    return StoppedEarly(
        fmt::format("{}: interrupted: nothing was made", Printable(options.qcow2_path)));
  if (!exported) return Failed(exported.error());
  NoteChange(options.qcow2_path, "was made");
  if (!arguments.quiet)
    for (const std::string& note : exported->notes) PrintNote(note);
  if (arguments.json)
    PrintResultJson(options, *exported);
  else if (!arguments.quiet)
    PrintResult(options, *exported);
  return kExitOk;
}

}  // namespace

Verb AddExport(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "export", kUsage, "Make a qcow2 overlay out of an image, on its base");
  auto arguments = std::make_shared<Arguments>();
  ExportOptions& options = arguments->options;
  AddFileArgument(*app, options.source.add_cow_path);
  app->add_option("FILE.qcow2", options.qcow2_path, "The qcow2, which is made")
      ->required()
      ->option_text(" ");
  app->add_option("--cluster-size", arguments->cluster_size,
                  "Of the qcow2: 512 to 2M, a power of two (default:\n64k)")
      ->type_name("SIZE")
      ->option_text("SIZE");
  app->add_flag("--force", options.force, "Replace a qcow2 that is there; its data is lost");
  app->add_flag("-p,--progress", arguments->progress, "Show how far it is");
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  AddOutputOption(*app, arguments->json);
  AddLockOption(*app, options.source.access.lock);
  arguments->wait.AddOption(*app);
  AddPlaceOptions(*app, options.source);
  app->footer(kFooter);
  return {app, [arguments] { return RunExport(*arguments); }};
}

}  // namespace addcow
