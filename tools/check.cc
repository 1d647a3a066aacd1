// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow check. Keys, words and exit status are those of qemu-img check; but
// the JSON has the counts also where they are 0.

#include "common/ops/check.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/printable.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

constexpr int kExitCorrupt = 2;
constexpr int kExitLeaks = 3;

struct Arguments {
  ImageSource source;
  std::string repair;
  Wait wait;
  bool force = false;
  bool json = false;
  bool quiet = false;
};

constexpr const char* kUsage =
    "[-r leaks|all [--force]] [-q] [--output=human|json] [-U]\n"
    "           [--lock=on|off] [--wait[=SECONDS]] [--image=FILE]\n"
    "           [--backing=FILE] [--confine=DIR] [--allow=uri,formats]\n"
    "           [--identity=check|ignore] [--timeout=SECONDS] X.add-cow";

constexpr const char* kFooter =
    "Looks for what breaks the format, and for leaks: data that the image file has\n"
    "where nothing is allocated, which wastes space and harms nothing. The backing\n"
    "file need not be there.\n\n"
    "  -r leaks   give leaked storage back (punches holes into the image file)\n"
    "  -r all     and mend the bitmap: set the bits that ALL_ALLOCATED promises,\n"
    "             clear those past the end of the disk\n"
    "  --force    repair also where the image file may be another disk's: it holds\n"
    "             data, but nothing is allocated; or --image names another file than\n"
    "             the header, whose file is there\n\n"
    "An image that another program has open for writing is refused. With -U it is\n"
    "checked all the same, but not for leaks: what its server has not flushed yet\n"
    "would look like one.\n\n"
    "Exit status: 0 sound, or all was repaired; 1 could not be checked; 2 corrupt;\n"
    "3 leaks, but not corrupt; 64 wrong usage; 130 or 143 stopped by Ctrl-C or\n"
    "SIGTERM.\n\n"
    "Examples:\n"
    "  addcow check x.add-cow\n"
    "  addcow check -r leaks --output=json x.add-cow";

void PrintReportJson(const Arguments& arguments, const CheckReport& report) {
  Json json;
  AddName(json, "filename", arguments.source.add_cow_path);
  json.update({{"format", "add-cow"},
               {"check-errors", report.check_errors},
               {"corruptions", report.corruptions()}});
  if (report.leaks_unknown)
    json["leaks-unknown"] = true;
  else
    json["leaks"] = report.leaked_clusters;
  if (report.subclusters && !report.leaks_unknown)
    json["leaked-subclusters"] = report.leaked_subclusters;
  if (!arguments.repair.empty()) {
    json["corruptions-fixed"] = report.fixed_bits;
    json["leaks-fixed"] = report.fixed_leaks;
  }
  json["total-clusters"] = report.total_clusters;
  json["allocated-clusters"] = report.allocated_clusters;
  json["partial-clusters"] = report.partial_clusters;
  PrintJson(json);
}

void PrintReport(const CheckReport& report) {
  if (report.fixed_leaks > 0 || report.fixed_bits > 0)
    Print(
        "The following inconsistencies were found and repaired:\n\n"
        "    {} leaked clusters\n"
        "    {} corruptions\n\n"
        "Double checking the fixed image now...\n",
        report.fixed_leaks, report.fixed_bits);
  if (report.stray_bits > 0)
    Print(
        "note: {} bits past the end of the disk are 1; they are ignored, -r all clears them\n",
        report.stray_bits);
  if (report.grown_clusters > 0)
    Print(
        "note: the image file has grown: ALL_ALLOCATED is set, and the bits of the last {}\n"
        "clusters are 0; they are read from it, -r all sets the bits\n",
        report.grown_clusters);
  if (report.corruptions() > 0)
    Print(
        "\n{} errors were found on the image.\n"
        "Data may be corrupted, or further writes to the image may corrupt it.\n",
        report.corruptions());
  if (report.leaked_clusters > 0)
    Print(
        "\n{} leaked clusters were found on the image{}.\n"
        "This means waste of disk space, but no harm to data.\n",
        report.leaked_clusters,
        report.subclusters ? fmt::format(" ({} subclusters of {} bytes)",
                                         report.leaked_subclusters, kSubclusterSize)
                           : "");
  if (report.leaks_unknown)
    Print(
        "The image is in use by a program that may write to it. Whether it has leaks\n"
        "cannot be told: what that program has not flushed yet would look like one.\n");
  if (report.check_errors > 0)
    Print("\n{} internal errors have occurred during the check.\n", report.check_errors);
  if (report.corruptions() + report.leaked_clusters + report.check_errors == 0)
    Print("No errors were found on the image.\n");
  if (report.total_clusters > 0)
    Print("{}/{} = {:.2f}% allocated{}\n", report.allocated_clusters, report.total_clusters,
          100 * static_cast<double>(report.allocated_clusters) /
              static_cast<double>(report.total_clusters),
          report.partial_clusters > 0
              ? fmt::format(", {} more in part", report.partial_clusters)
              : "");
}

int ExitStatus(const CheckReport& report) {
  // First, as in qemu-img: with an incomplete check no other status is certain.
  if (report.check_errors > 0) return kExitFailed;
  if (report.corruptions() > 0) return kExitCorrupt;
  return report.leaked_clusters > 0 ? kExitLeaks : kExitOk;
}

int RunCheck(const CLI::App& app, const Arguments& arguments) {
  if (!arguments.repair.empty() && app.count("--force-share") > 0)
    return UsageError("check", "-U is for looking only and does not go with -r");
  if (arguments.force && arguments.repair.empty())
    return UsageError("check", "--force is for -r");
  Repair repair = Repair::kNone;
  if (!arguments.repair.empty())
    repair = arguments.repair == "all" ? Repair::kAll : Repair::kLeaks;
  if (repair != Repair::kNone) CatchInterrupts();
  const std::string& file = arguments.source.add_cow_path;
  const auto report = arguments.wait.WhileBusy([&] {
    return CheckImage(PosixFileSystem(), arguments.source, repair, InterruptCame,
                      arguments.force);
  });
  if (!report)
    return repair == Repair::kNone ? FailedToShare(report.error())
                                   : FailedUnlessStopped(report.error());
  if (report->fixed_bits + report->fixed_leaks > 0) NoteChange(file, "was repaired");
  if (!arguments.quiet)
    for (const std::string& note : report->notes) PrintNote(note);
  if (report->interrupted && !report->error)
    return StoppedEarly(fmt::format(
        "{}: interrupted: {} leaked clusters were given back and {} corruptions repaired, "
        "which is kept; run it again for the rest",
        Printable(file), report->fixed_leaks, report->fixed_bits));
  // Where nothing could be counted, the error says it all.
  const bool counted = report->total_clusters > 0;
  if (arguments.json)
    PrintReportJson(arguments, *report);
  else if (counted && !arguments.quiet)
    PrintReport(*report);
  // Also with -q, and with JSON, which counts but does not say what is wrong.
  // One line: that it was not checked to the end says more.
  if (report->missing_bits > 0 && !report->error)
    PrintError(
        fmt::format("{}: ALL_ALLOCATED is set, but {} 0", Printable(file),
                    report->missing_bits == 1
                        ? std::string("the bit of 1 cluster is")
                        : fmt::format("the bits of {} clusters are", report->missing_bits)));
  if (report->unpadded && !report->error)
    PrintError(fmt::format("{}: the bitmap's length is no multiple of the cluster size",
                           Printable(file)));
  if (report->error) PrintError(*report->error);
  return ExitStatus(*report);
}

}  // namespace

Verb AddCheck(CLI::App& tool) {
  CLI::App* app = AddVerb(tool, "check", kUsage, "Check an image, and repair it if asked to");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->source.add_cow_path);
  AddOutputOption(*app, arguments->json);
  app->add_option("-r,--repair", arguments->repair, "Repair leaks, or all that can be")
      ->type_name("leaks|all")
      ->option_text("leaks|all")
      ->check(CLI::IsMember({"leaks", "all"}));
  app->add_flag("--force", arguments->force,
                "With -r: give storage back that may be\nanother disk's");
  AddForceShareFlag(*app, arguments->source.access.lock);
  AddLockOption(*app, arguments->source.access.lock);
  arguments->wait.AddOption(*app);
  AddPlaceOptions(*app, arguments->source);
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  app->footer(kFooter);
  return {app, [app, arguments] { return RunCheck(*app, *arguments); }};
}

}  // namespace addcow
