// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow map, as qemu-img map prints it. Entries are printed as they come: a
// large image has more of them than should be held. A picture is printed when all of it
// is known, so that there is no half of one.

#include "common/ops/map.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/printable.h"
#include "tools/disk_svg.h"
#include "tools/output.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

struct Arguments {
  ImageSource source;
  Wait wait;
  std::string output = "human";
};

constexpr const char* kFooter =
    "human: the parts that hold data, with the file that each comes from.\n"
    "json: all of the disk, as an array of objects with these keys:\n"
    "  start, length  the part, in bytes\n"
    "  depth          0: the image file has it (it is allocated), as data or as a\n"
    "                 hole; 1: the backing file supplies it, or its image file; 2:\n"
    "                 what that stands on, and so on\n"
    "  present        false: none does, and it reads as zeroes; depth is that of the\n"
    "                 image whose backing file has ended, as in qemu-img map\n"
    "  zero, data     one is true: it is a hole and reads as zeroes, or it is data\n"
    "  offset         where it is in that file, if it is present\n"
    "svg: a picture of the disk, of 200 KiB at most, for a browser.\n\n"
    "Exit status: 0 printed; 1 failed; 64 wrong usage.\n\n"
    "Examples, the second for what has been changed:\n"
    "  addcow map x.add-cow\n"
    "  addcow map --output=json x.add-cow |\n"
    "      jq '[.[] | select(.depth == 0 and .present)]'\n"
    "  addcow map --output=svg x.add-cow >x.svg";

constexpr const char* kUsage =
    "[--output=human|json|svg] [-U] [--lock=on|off]\n"
    "           [--wait[=SECONDS]] [--image=FILE] [--backing=FILE]\n"
    "           [--confine=DIR] [--allow=uri,formats] [--identity=check|ignore]\n"
    "           [--timeout=SECONDS] X.add-cow";

int RunSvg(const Arguments& arguments) {
  const auto summary = arguments.wait.WhileBusy([&] {
    return SummarizeImage(PosixFileSystem(), arguments.source, LogToStderr, SvgPartSize);
  });
  if (!summary) return FailedToShare(summary.error());
  PrintText(DiskSvg(arguments.source.add_cow_path, *summary));
  return kExitOk;
}

int RunMap(const Arguments& arguments) {
  if (arguments.output == "svg") return RunSvg(arguments);
  const bool json = arguments.output == "json";
  bool first = true;
  const auto print_json = [&](const MapEntry& entry) {
    const char* separator = first ? "[" : ",\n";
    first = false;
    return Print(
               R"({}{{ "start": {}, "length": {}, "depth": {}, "present": {}, "zero": {}, "data": {})",
               separator, entry.start, entry.length, entry.depth, entry.present, entry.zero,
               entry.data) &&
           (entry.present ? Print(R"(, "offset": {}}})", entry.start) : PrintText("}"));
  };
  const auto print_human = [&](const MapEntry& entry) {
    if (first) Print("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File");
    first = false;
    if (!entry.data || !entry.present) return true;
    const std::string start = entry.start == 0 ? "0" : fmt::format("{:#x}", entry.start);
    return Print("{:<16}{:<#16x}{:<16}{}\n", start, entry.length, start,
                 Printable(*entry.file));
  };
  const auto visit = [&](const MapEntry& entry) {
    return json ? print_json(entry) : print_human(entry);
  };
  const Status mapped = arguments.wait.WhileBusy(
      [&] { return MapImage(PosixFileSystem(), arguments.source, LogToStderr, visit); });
  if (!mapped) return FailedToShare(mapped.error());
  if (json) PrintText("]\n");
  return kExitOk;
}

}  // namespace

Verb AddMap(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "map", kUsage, "Show which file each part of the disk comes from");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->source.add_cow_path);
  app->add_option("--output", arguments->output, "How to print (default: human)")
      ->type_name("human|json|svg")
      ->option_text("human|json|svg")
      ->check(CLI::IsMember({"human", "json", "svg"}));
  AddForceShareFlag(*app, arguments->source.access.lock);
  AddLockOption(*app, arguments->source.access.lock);
  arguments->wait.AddOption(*app);
  AddPlaceOptions(*app, arguments->source);
  app->footer(kFooter);
  return {app, [arguments] { return RunMap(*arguments); }};
}

}  // namespace addcow
