// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow upgrade and downgrade: one verb for each way between the format's revisions.

#include "common/ops/convert.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "common/base/printable.h"
#include "common/ops/parse_cluster_size.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

struct Arguments {
  ConvertOptions options;
  std::string cluster_size;
  std::string subclusters = "on";
  Wait wait;
  bool progress = false;
  bool quiet = false;
};

constexpr const char* kUsage =
    "[--cluster-size=SIZE] [--subclusters=on|off] [-p] [-q]\n"
    "           [--lock=on|off] [--wait[=SECONDS]] [--image=FILE]\n"
    "           [--backing=FILE] [--confine=DIR] [--allow=uri,formats]\n"
    "           [--identity=check|ignore] [--timeout=SECONDS] X.add-cow";
constexpr const char* kUsageDown =
    "[--subclusters=on|off] [-p] [-q] [--lock=on|off]\n"
    "           [--wait[=SECONDS]] [--image=FILE] [--backing=FILE]\n"
    "           [--confine=DIR] [--allow=uri,formats]\n"
    "           [--identity=check|ignore] [--timeout=SECONDS] X.add-cow";

constexpr const char* kFooter =
    "Only X.add-cow is written anew, in one step: killed at any time, the image is as\n"
    "before or as after. The image must not be in use.\n\n"
    "Of clusters that the image file has in part, it is noted which 4 KiB. Where that\n"
    "may not be, with --subclusters=off or an image made so, they are copied up.\n\n"
    "Exit status: 0 done, or nothing was to be done; 1 failed; 64 wrong usage; 130 or\n"
    "143 stopped by Ctrl-C or SIGTERM. After 1, 130 and 143 the image is as before,\n"
    "but for clusters that were copied up.\n\n";

std::string Words(const Header& header) {
  return fmt::format("revision={} cluster_size={}", static_cast<uint32_t>(header.revision),
                     header.cluster_size);
}

int RunConvert(const Arguments& arguments) {
  ConvertOptions options = arguments.options;
  const std::string& file = options.source.add_cow_path;
  options.subclusters = arguments.subclusters == "on";
  if (!arguments.cluster_size.empty()) {
    const auto size = ParseClusterSize(arguments.cluster_size);
    if (!size) return UsageError("upgrade", size.error().Message());
    options.cluster_size = *size;
  }
  Progress progress(arguments.progress && !arguments.quiet);
  options.progress = [&](uint64_t done, uint64_t total) { progress.Show(done, total); };
  CatchInterrupts();
  options.interrupted = options.source.access.interrupted = InterruptCame;
  const auto converted = arguments.wait.WhileBusy(
      [&] { return ConvertImage(PosixFileSystem(), options, NotesOnly(arguments.quiet)); });
  progress.Finish();
  if (!converted) return FailedAsBefore(converted.error(), file, "the image");
  if (converted->before != converted->after) NoteChange(file, "was rewritten");
  if (arguments.quiet) return kExitOk;
  for (const std::string& note : converted->notes) PrintNote(note);
  const std::string before = Words(converted->before);
  const std::string after = Words(converted->after);
  if (converted->before == converted->after)
    Print("'{}' has {} already\n", Printable(file), after);
  else
    Print("Rewrote '{}', {}{}\n", Printable(file), after,
          before == after ? "" : fmt::format(" (was {})", before));
  if (converted->copied > 0)
    Print("{} were completed from the backing file.\n", HumanSize(converted->copied));
  return kExitOk;
}

Verb AddConvert(CLI::App* app, const std::shared_ptr<Arguments>& arguments,
                const std::string& example) {
  AddFileArgument(*app, arguments->options.source.add_cow_path);
  app->add_option("--subclusters", arguments->subclusters,
                  "off: for readers that do not know of subclusters,\n"
                  "now and when it is served (default: on)")
      ->type_name("on|off")
      ->option_text("on|off")
      ->check(CLI::IsMember({"on", "off"}));
  app->add_flag("-p,--progress", arguments->progress,
                "Show the progress of copying up, where there is any");
  AddLockOption(*app, arguments->options.source.access.lock);
  arguments->wait.AddOption(*app);
  AddPlaceOptions(*app, arguments->options.source);
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  app->footer(kFooter + example);
  return {app, [arguments] { return RunConvert(*arguments); }};
}

}  // namespace

Verb AddUpgrade(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "upgrade", kUsage, "Change to revision 20, or the size of clusters");
  auto arguments = std::make_shared<Arguments>();
  arguments->options.revision = Revision::kAcow;
  app->add_option("--cluster-size", arguments->cluster_size,
                  "4k to 2M, a power of two (default: 64k)")
      ->type_name("SIZE")
      ->option_text("SIZE");
  return AddConvert(app, arguments,
                    "Examples:\n"
                    "  addcow upgrade x.add-cow\n"
                    "  addcow upgrade --cluster-size=4k x.add-cow");
}

Verb AddDowngrade(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "downgrade", kUsageDown, "Change to revision 1, with clusters of 64 KiB");
  return AddConvert(app, std::make_shared<Arguments>(),
                    "Example:\n"
                    "  addcow downgrade x.add-cow");
}

}  // namespace addcow
