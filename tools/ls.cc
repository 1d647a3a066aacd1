// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow ls.

#include <fmt/ranges.h>

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
    "With --bases, the tree of what stands on what, and which images nothing below\n"
    "DIR needs: nothing stands on them, nor on their image files, and no other\n"
    "add-cow file has the same image file. Overlays elsewhere are not seen, so look\n"
    "there before you delete anything.\n\n"
    "Exit status: 0 printed; 1 failed, or an image, a base or a directory could not\n"
    "be looked at, which is said, and the rest printed; 64 wrong usage.\n\n"
    "Examples:\n"
    "  addcow ls /srv/vm\n"
    "  addcow ls --bases --output=json /srv |\n"
    "      jq -r '.[] | select(.free) | .filename'";

// Its file, with all names that it has: what changes under one changes under all.
std::string NamesOf(const ListedDisk& disk) {
  std::string text = Printable(disk.path);
  for (const std::string& name : disk.other_names) text += " = " + Printable(name);
  return text;
}

std::vector<std::string> PathsOf(const Listing& listing, const std::vector<size_t>& disks) {
  std::vector<std::string> paths;
  for (const size_t disk : disks) paths.push_back(listing.disks[disk].path);
  return paths;
}

std::string PathsInWords(const Listing& listing, const std::vector<size_t>& disks) {
  return Printable(fmt::format("{}", fmt::join(PathsOf(listing, disks), ", ")));
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
  const auto add = [&](const char* key, const std::vector<size_t>& disks) {
    AddNames(json, key, PathsOf(listing, disks));
  };
  std::vector<size_t> overlays = disk.overlays;
  overlays.insert(overlays.end(), disk.image_overlays.begin(), disk.image_overlays.end());
  // What could not be looked at may stand on it.
  if (overlays.empty() && !all_read)
    json["overlays"] = nullptr;
  else
    add("overlays", overlays);
  if (!disk.image_overlays.empty()) add("image-overlays", disk.image_overlays);
  if (!disk.image_shared.empty()) add("image-shared-with", disk.image_shared);
  if (!disk.image_of.empty()) add("image-of", disk.image_of);
  if (!disk.info) return json;
  json["free"] = disk.IsFree();
  if (disk.IsFree() && !all_read) json["free"] = nullptr;
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
  if (!disk.image_of.empty())
    text += ", the image file of " + PathsInWords(listing, disk.image_of);
  Print("{}{}\n", indent, text);
  for (const size_t overlay : disk.overlays)
    PrintTree(listing, listing.disks[overlay], indent + "    ");
}

// Why one on which nothing stands is needed all the same. With all allocated the add-cow file
// says nothing that its image file alone does not.
std::string WhatNeedsImage(const Listing& listing, const ListedDisk& disk) {
  std::string text = fmt::format("    {}: its image file {} ", Printable(disk.path),
                                 Printable(disk.info->image_path));
  if (!disk.image_shared.empty())
    text += "is also that of " + PathsInWords(listing, disk.image_shared);
  if (disk.image_overlays.empty()) return text + "\n";
  if (!disk.image_shared.empty()) text += ", and ";
  text += "is what " + PathsInWords(listing, disk.image_overlays) + " stands on";
  if (!disk.info->header.all_allocated) text += ", and has a part of the disk only";
  return text + "\n";
}

void PrintBases(const Listing& listing, const std::string& directory, bool all_read) {
  for (const ListedDisk& disk : listing.disks)
    if (!disk.base) PrintTree(listing, disk, "");
  std::string free;
  std::string needed;
  for (const ListedDisk& disk : listing.disks) {
    if (disk.IsFree())
      free += "    " + Printable(disk.path) + "\n";
    else if (disk.overlays.empty() && disk.info)
      needed += WhatNeedsImage(listing, disk);
  }
  if (!needed.empty())
    Print("\nNothing stands on these, but their image files are needed:\n{}", needed);
  const std::string where = Printable(directory);
  if (!all_read)
    Print("\nNot all below {} could be looked at, so nothing is said to be free.\n", where);
  else if (!free.empty())
    Print("\nNothing below {} needs these; overlays elsewhere are not seen:\n{}", where, free);
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
