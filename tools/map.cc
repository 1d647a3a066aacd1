// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow map, as qemu-img map prints it. Entries are printed as they come: a
// large image has more of them than should be held.

#include "common/ops/map.h"

#include <memory>

#include "tools/output.h"
#include "tools/verbs.h"

namespace addcow {

namespace {

struct Arguments {
  std::string file;
  AccessOptions access;
  bool json = false;
};

constexpr const char* kFooter =
    "human: the stretches that hold data, with the file each comes from.\n"
    "json: all of the disk, as an array of objects with the keys\n"
    "  start, length  bytes of the disk\n"
    "  depth          0: allocated, the image file has it, as data or as a hole;\n"
    "                 1: the backing file supplies it\n"
    "  present        false: neither does, it reads as zeroes (depth is 0 then)\n"
    "  zero, data     a hole, reads as zeroes; or data\n"
    "  offset         where it is in that file, if it is present\n\n"
    "Exit status: 0 printed; 1 failed; 2 wrong usage.\n\n"
    "Examples:\n"
    "  addcow map x.add-cow\n"
    "  addcow map --output=json x.add-cow | jq '[.[] | select(.depth == 0)]'";

int RunMap(const Arguments& arguments) {
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
    return arguments.json ? print_json(entry) : print_human(entry);
  };
  const Status mapped =
      MapImage(PosixFileSystem(), arguments.file, LogToStderr, visit, arguments.access);
  if (!mapped) return FailedToShare(mapped.error());
  if (arguments.json) PrintText("]\n");
  return kExitOk;
}

}  // namespace

Verb AddMap(CLI::App& tool) {
  CLI::App* app = AddVerb(tool, "map", "Show which file each part of the disk comes from");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->file);
  AddOutputOption(*app, arguments->json);
  AddLockOption(*app, arguments->access.lock);
  AddConfineOption(*app, arguments->access.confine);
  AddForceShareFlag(*app, arguments->access.lock);
  app->footer(kFooter);
  return {app, [arguments] { return RunMap(*arguments); }};
}

}  // namespace addcow
