// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow ls.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/base/printable.h"
#include "common/image/base.h"
#include "common/ops/list.h"
#include "tools/output.h"
#include "tools/use_words.h"
#include "tools/verbs.h"

namespace addcow {

namespace {

struct Arguments {
  std::string directory = ".";
  bool bases = false;
  bool json = false;
};

constexpr const char* kUsage = "[--bases] [--output=human|json] [DIR]";

constexpr const char* kFooter =
    "Every add-cow image below DIR (default: the working directory), whatever its\n"
    "file is called: the disk's size, the storage that the add-cow file and the\n"
    "image file take, whether another program has it open, its file, and what it\n"
    "stands on. Symbolic links are not followed.\n\n"
    "With --bases, the tree of what stands on what. On what has nothing below it in\n"
    "the tree nothing below DIR stands; overlays elsewhere are not seen, so look\n"
    "there before you delete a base.\n\n"
    "Exit status: 0 printed; 1 failed, or an image, a base or a directory could not\n"
    "be looked at, which is said, and the rest printed; 64 wrong usage.\n\n"
    "Examples:\n"
    "  addcow ls /srv/vm\n"
    "  addcow ls --bases --output=json /srv |\n"
    "      jq -r '.[] | select(.overlays == []) | .filename'";

// Its file, with all names that it has: what changes under one changes under all.
std::string NamesOf(const ListedDisk& disk) {
  std::string text = Printable(disk.path);
  for (const std::string& name : disk.other_names) text += " = " + Printable(name);
  return text;
}

Json DiskJson(const Listing& listing, const ListedDisk& disk, bool bases, bool all_read) {
  Json json;
  AddName(json, "filename", disk.path);
  json["format"] = disk.format;
  if (disk.info) {
    json["virtual-size"] = disk.info->virtual_size;
    json["actual-size"] = disk.info->actual_size;
    json["in-use"] = WordsOf(disk.info->use).json;
    AddName(json, "full-image-filename", disk.info->image_path);
    if (disk.info->header.backing) {
      AddName(json, "full-backing-filename", disk.info->backing_path);
      json["backing-filename-format"] = disk.info->header.backing->format;
    }
  }
  if (!disk.other_names.empty()) AddNames(json, "other-filenames", disk.other_names);
  if (disk.error) AddName(json, "error", Printable(disk.error->Message()));
  if (!bases) return json;
  json["below"] = disk.below;
  std::vector<std::string> overlays;
  for (const size_t overlay : disk.overlays) overlays.push_back(listing.disks[overlay].path);
  // What could not be looked at may stand on it.
  if (overlays.empty() && !all_read)
    json["overlays"] = nullptr;
  else
    AddNames(json, "overlays", overlays);
  return json;
}

void PrintListJson(const Listing& listing, bool bases, bool all_read) {
  Json json = Json::array();
  for (const ListedDisk& disk : listing.disks)
    if (bases || disk.below) json.push_back(DiskJson(listing, disk, bases, all_read));
  PrintJson(json);
}

std::string UseWord(const ListedDisk& disk) { return WordsOf(disk.info->use).json; }

void PrintTable(const Listing& listing) {
  Print("{:<11}{:<11}{:<9}{}\n", "Size", "Takes", "In use", "Image");
  for (const ListedDisk& disk : listing.disks) {
    if (!disk.below) continue;
    if (!disk.info) {
      Print("{:<11}{:<11}{:<9}{}\n", "?", "?", "?", NamesOf(disk));
      continue;
    }
    std::string text = NamesOf(disk);
    if (disk.info->header.backing)
      text += fmt::format(" on {} ({})", Printable(disk.info->backing_path),
                          Printable(disk.info->header.backing->format));
    Print("{:<11}{:<11}{:<9}{}\n", HumanSize(disk.info->virtual_size),
          HumanSize(disk.info->actual_size), UseWord(disk), text);
  }
}

// A disk, and what stands on it, further in. What stands on itself has no beginning, and is
// not printed here.
void PrintTree(const Listing& listing, const ListedDisk& disk, const std::string& indent) {
  std::string text = NamesOf(disk);
  if (disk.info)
    text += fmt::format(": {}, takes {}, in use: {}", HumanSize(disk.info->virtual_size),
                        HumanSize(disk.info->actual_size), UseWord(disk));
  else
    text += fmt::format(" ({}){}", Printable(disk.format), disk.error ? ": see below" : "");
  Print("{}{}\n", indent, text);
  for (const size_t overlay : disk.overlays)
    PrintTree(listing, listing.disks[overlay], indent + "    ");
}

void PrintBases(const Listing& listing, const std::string& directory, bool all_read) {
  for (const ListedDisk& disk : listing.disks)
    if (!disk.base) PrintTree(listing, disk, "");
  std::string free;
  for (const ListedDisk& disk : listing.disks)
    if (disk.overlays.empty() && disk.info) free += "    " + Printable(disk.path) + "\n";
  const std::string where = Printable(directory);
  if (!all_read)
    Print("\nNot all below {} could be looked at, so nothing is said to be free.\n", where);
  else if (!free.empty())
    Print("\nNothing below {} stands on these; overlays elsewhere are not seen:\n{}", where,
          free);
}

int RunLs(const Arguments& arguments) {
  const auto listing = ListImages(PosixFileSystem(), arguments.directory, {});
  if (!listing) return Failed(listing.error());
  const bool all_read =
      listing->unread.empty() && std::ranges::none_of(listing->disks, [](const auto& disk) {
        return disk.format == kAddCowFormat && disk.error;
      });
  if (arguments.json)
    PrintListJson(*listing, arguments.bases, all_read);
  else if (arguments.bases)
    PrintBases(*listing, arguments.directory, all_read);
  else
    PrintTable(*listing);
  for (const std::string& note : listing->notes) PrintNote(note);
  bool failed = !listing->unread.empty();
  for (const Error& error : listing->unread) PrintError(error);
  for (const ListedDisk& disk : listing->disks) {
    if (!disk.error || (!arguments.bases && !disk.below)) continue;
    PrintError(*disk.error);
    failed = true;
  }
  return failed ? kExitFailed : kExitOk;
}

}  // namespace

Verb AddLs(CLI::App& tool) {
  CLI::App* app = AddVerb(tool, "ls", kUsage, "List images, and what stands on what");
  auto arguments = std::make_shared<Arguments>();
  app->add_option("DIR", arguments->directory, "The directory")->option_text(" ");
  app->add_flag("--bases", arguments->bases,
                "Show what they stand on, and what stands on that");
  AddOutputOption(*app, arguments->json);
  app->footer(kFooter);
  return {app, [arguments] { return RunLs(*arguments); }};
}

}  // namespace addcow
