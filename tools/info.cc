// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow info. Keys and layout are those of qemu-img info, where it has them.

#include "common/ops/info.h"

#include <fmt/ranges.h>

#include <memory>
#include <vector>

#include "tools/output.h"
#include "tools/verbs.h"

namespace addcow {

namespace {

struct Arguments {
  std::string file;
  std::optional<std::string> confine;
  bool json = false;
};

constexpr const char* kFooter =
    "The backing file need not be there.\n\n"
    "Exit status: 0 printed; 1 failed; 2 wrong usage.\n\n"
    "Examples:\n"
    "  addcow info x.add-cow\n"
    "  addcow info --output=json x.add-cow | jq '.\"virtual-size\"'";

std::vector<std::string> FeatureNames(const Header& header) {
  std::vector<std::string> names;
  if (header.features() & kFeatureBackingFile) names.emplace_back("backing-file");
  if (header.features() & kFeatureImageFile) names.emplace_back("image-file");
  if (header.features() & kFeatureAllAllocated) names.emplace_back("all-allocated");
  return names;
}

void PrintInfoJson(const std::string& file, const ImageInfo& info) {
  const Header& header = info.header;
  Json json = {{"filename", file},
               {"format", "add-cow"},
               {"version", info.version},
               {"virtual-size", info.virtual_size},
               {"actual-size", info.actual_size},
               {"cluster-size", kClusterSize}};
  if (header.backing) {
    json["backing-filename"] = header.backing->name;
    json["full-backing-filename"] = info.backing_path;
    json["backing-filename-format"] = header.backing->format;
  }
  json["image-filename"] = header.image.name;
  json["full-image-filename"] = info.image_path;
  json["image-filename-format"] = header.image.format;
  json["all-allocated"] = header.all_allocated;
  json["features"] = FeatureNames(header);
  PrintJson(json);
}

std::string NameAndPath(const std::string& name, const std::string& path) {
  if (name == path) return Printable(name);
  return fmt::format("{} (actual path: {})", Printable(name), Printable(path));
}

void PrintInfo(const std::string& file, const ImageInfo& info) {
  const Header& header = info.header;
  Print("image: {}\n", Printable(file));
  Print("file format: add-cow\n");
  Print("virtual size: {} ({} bytes)\n", HumanSize(info.virtual_size), info.virtual_size);
  Print("disk size: {}\n", HumanSize(info.actual_size));
  Print("cluster_size: {}\n", kClusterSize);
  if (header.backing) {
    Print("backing file: {}\n", NameAndPath(header.backing->name, info.backing_path));
    Print("backing file format: {}\n", header.backing->format);
  }
  Print("Format specific information:\n");
  Print("    version: {}\n", info.version);
  Print("    image file: {}\n", NameAndPath(header.image.name, info.image_path));
  Print("    image file format: {}\n", header.image.format);
  Print("    all allocated: {}\n", header.all_allocated);
  Print("    features: {}\n", fmt::join(FeatureNames(header), " "));
}

int RunInfo(const Arguments& arguments) {
  const auto info = GetInfo(PosixFileSystem(), arguments.file, arguments.confine);
  if (!info) return Failed(info.error());
  if (arguments.json)
    PrintInfoJson(arguments.file, *info);
  else
    PrintInfo(arguments.file, *info);
  return kExitOk;
}

}  // namespace

Verb AddInfo(CLI::App& tool) {
  CLI::App* app = AddVerb(tool, "info", "Show what an image is made of");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->file);
  AddOutputOption(*app, arguments->json);
  AddConfineOption(*app, arguments->confine);
  app->add_flag_callback(
      "-U,--force-share", [] {}, "As in qemu-img; nothing is locked here in any case");
  app->footer(kFooter);
  return {app, [arguments] { return RunInfo(*arguments); }};
}

}  // namespace addcow
