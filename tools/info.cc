// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow info. Keys and layout are those of qemu-img info, where it has them.

#include "common/ops/info.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/base/printable.h"
#include "tools/disk_strip.h"
#include "tools/output.h"
#include "tools/use_words.h"
#include "tools/verbs.h"

namespace addcow {

namespace {

struct Arguments {
  ImageSource source;
  bool json = false;
  bool chain = false;
  bool picture = false;
};

constexpr const char* kFooter =
    "The backing file need not be there, but for --picture. While a server writes to\n"
    "the image, what it has not flushed is not counted as allocated.\n\n"
    "--picture: a line for each kind of bytes, from the disk's beginning to its end;\n"
    "the taller a column (denser, without UTF-8), the more of it is of that kind.\n"
    "Partial: clusters of which the image file has some subclusters and not others.\n\n"
    "Exit status: 0 printed; 1 failed; 64 wrong usage.\n\n"
    "Examples:\n"
    "  addcow info x.add-cow\n"
    "  addcow info --output=json x.add-cow | jq '.\"virtual-size\"'";

constexpr const char* kUsage =
    "[--backing-chain] [--picture] [--output=human|json] [-U]\n"
    "           [--image=FILE] [--backing=FILE] [--confine=DIR] [--allow=uri,formats]\n"
    "           [--identity=check|ignore] [--timeout=SECONDS] X.add-cow";

// The bits of the header, where its revision has them.
std::vector<std::string> FeatureNames(const Header& header) {
  std::vector<std::string> names;
  if (header.revision == Revision::kVersion1) {
    if (header.backing) names.emplace_back("backing-file");
    names.emplace_back("image-file");
    if (header.all_allocated) names.emplace_back("all-allocated");
  }
  if (header.subclusters) names.emplace_back("subclusters");
  return names;
}

// Those that this program knows.
std::vector<std::string> OptionalFeatureNames(const Header& header) {
  std::vector<std::string> names;
  if (header.revision == Revision::kAcow && header.all_allocated)
    names.emplace_back("all-allocated");
  if (header.backing_identity) names.emplace_back("backing-identity");
  if (header.no_subclusters) names.emplace_back("no-subclusters");
  return names;
}

// As xxhsum prints it.
std::string Hex(const Hash128& hash) {
  std::string text;
  for (const std::byte byte : hash) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

Json InfoJson(const std::string& file, const ImageInfo& info) {
  const Header& header = info.header;
  Json json;
  AddName(json, "filename", file);
  json.update({{"format", "add-cow"},
               {"revision", static_cast<uint32_t>(header.revision)},
               {"virtual-size", info.virtual_size},
               {"actual-size", info.actual_size},
               {"cluster-size", header.cluster_size},
               {"total-clusters", info.total_clusters},
               {"allocated-clusters", info.allocated_clusters},
               {"partial-clusters", info.partial_clusters},
               {"allocated-subclusters", info.allocated_subclusters},
               {"in-use", WordsOf(info.use).json}});
  if (header.subclusters) json["subcluster-size"] = kSubclusterSize;
  if (header.backing) {
    AddName(json, "backing-filename", header.backing->name);
    AddName(json, "full-backing-filename", info.backing_path);
    json["backing-filename-format"] = header.backing->format;
  }
  AddName(json, "image-filename", header.image.name);
  AddName(json, "full-image-filename", info.image_path);
  json["image-filename-format"] = header.image.format;
  if (header.backing_identity) {
    const BackingIdentity& identity = *header.backing_identity;
    Json noted = Json::object();
    if (identity.size) noted["size"] = *identity.size;
    if (identity.modified)
      noted["modified"] = {{"seconds", identity.modified->seconds},
                           {"nanoseconds", identity.modified->nanoseconds}};
    if (identity.sample)
      noted["sample"] = {{"algorithm", "xxh3-128"},
                         {"hash", Hex(identity.sample->hash)},
                         {"edge-size", identity.sample->edge}};
    json["backing-identity"] = std::move(noted);
  }
  json["all-allocated"] = header.all_allocated;
  json["features"] = FeatureNames(header);
  json["optional-features"] = OptionalFeatureNames(header);
  return json;
}

std::string NameAndPath(const std::string& name, const std::string& path) {
  if (name == path) return Printable(name);
  return fmt::format("{} (actual path: {})", Printable(name), Printable(path));
}

void PrintIdentity(const BackingIdentity& identity) {
  if (identity.size)
    Print("    backing file's size when it was named: {} ({} bytes)\n",
          HumanSize(*identity.size), *identity.size);
  if (identity.modified)
    Print("    backing file's time when it was named: {}\n", TimeText(*identity.modified));
  if (identity.sample)
    Print(
        "    backing file's sample when it was named: XXH3-128 {} (the first and the last {}, "
        "and some between)\n",
        Hex(identity.sample->hash), HumanSize(identity.sample->edge));
}

void PrintInfo(const std::string& file, const ImageInfo& info) {
  const Header& header = info.header;
  Print("image: {}\n", Printable(file));
  Print("file format: add-cow\n");
  Print("virtual size: {} ({} bytes)\n", HumanSize(info.virtual_size), info.virtual_size);
  Print("disk size: {}\n", HumanSize(info.actual_size));
  Print("cluster_size: {}\n", header.cluster_size);
  Print("allocated: {} of {} clusters ({:.2f}%)\n", info.allocated_clusters,
        info.total_clusters,
        100 * static_cast<double>(info.allocated_clusters) /
            static_cast<double>(info.total_clusters));
  if (header.subclusters)
    Print("allocated in part: {} clusters ({} subclusters of {} bytes)\n",
          info.partial_clusters, info.allocated_subclusters, kSubclusterSize);
  Print("in use: {}\n", WordsOf(info.use).human);
  if (header.backing) {
    Print("backing file: {}\n", NameAndPath(header.backing->name, info.backing_path));
    Print("backing file format: {}\n", header.backing->format);
  }
  Print("Format specific information:\n");
  Print("    revision: {}\n", static_cast<uint32_t>(header.revision));
  Print("    image file: {}\n", NameAndPath(header.image.name, info.image_path));
  Print("    image file format: {}\n", header.image.format);
  if (header.backing_identity) PrintIdentity(*header.backing_identity);
  Print("    all allocated: {}\n", header.all_allocated);
  if (const auto names = FeatureNames(header); !names.empty())
    Print("    features: {}\n", fmt::join(names, " "));
  if (const auto names = OptionalFeatureNames(header); !names.empty())
    Print("    optional features: {}\n", fmt::join(names, " "));
}

Json LinkJson(const ChainLink& link) {
  if (link.image) return InfoJson(link.path, *link.image);
  Json json;
  AddName(json, "filename", link.path);
  json["format"] = link.format;
  if (link.virtual_size) json["virtual-size"] = *link.virtual_size;
  if (link.actual_size) json["actual-size"] = *link.actual_size;
  return json;
}

void PrintLink(const ChainLink& link) {
  if (link.image) return PrintInfo(link.path, *link.image);
  Print("image: {}\n", Printable(link.path));
  Print("file format: {}\n", link.format);
  if (link.virtual_size)
    Print("virtual size: {} ({} bytes)\n", HumanSize(*link.virtual_size), *link.virtual_size);
  if (link.actual_size) Print("disk size: {}\n", HumanSize(*link.actual_size));
}

int RunChain(const Arguments& arguments) {
  const auto chain = GetChain(PosixFileSystem(), arguments.source);
  if (!chain) return Failed(chain.error());
  Json json = Json::array();
  for (const ChainLink& link : *chain) {
    if (arguments.json) {
      json.push_back(LinkJson(link));
    } else {
      if (&link != &chain->front()) PrintText("\n");
      PrintLink(link);
    }
  }
  if (arguments.json) PrintJson(json);
  for (const std::string& note : chain->front().image->notes) PrintNote(note);
  return kExitOk;
}

// Locks nothing, as all of info. Its notes are those that GetInfo has.
Result<std::string> PictureOf(ImageSource source) {
  source.access.lock = false;
  const StripStyle style = StyleOfOutput();
  ADDCOW_TRY_ASSIGN(const ImageSummary summary,
                    SummarizeImage(PosixFileSystem(), std::move(source), nullptr,
                                   [&](uint64_t size) { return StripPartSize(size, style); }));
  return DiskStrip(summary, style);
}

int RunInfo(const Arguments& arguments) {
  if (arguments.picture && arguments.json)
    return UsageError("info", "--picture is not for JSON (map --output=json has the parts)");
  if (arguments.picture && arguments.chain)
    return UsageError("info", "--picture is of one image, not of a --backing-chain");
  if (arguments.chain) return RunChain(arguments);
  const auto info = GetInfo(PosixFileSystem(), arguments.source);
  if (!info) return Failed(info.error());
  std::optional<std::string> picture;
  if (arguments.picture) {
    auto drawn = PictureOf(arguments.source);
    if (!drawn) return Failed(drawn.error());
    picture = std::move(*drawn);
  }
  const std::string& file = arguments.source.add_cow_path;
  if (arguments.json)
    PrintJson(InfoJson(file, *info));
  else
    PrintInfo(file, *info);
  if (picture) PrintText(*picture);
  for (const std::string& note : info->notes) PrintNote(note);
  return kExitOk;
}

}  // namespace

Verb AddInfo(CLI::App& tool) {
  CLI::App* app = AddVerb(tool, "info", kUsage, "Show what an image is made of");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->source.add_cow_path);
  AddOutputOption(*app, arguments->json);
  app->add_flag("--backing-chain", arguments->chain,
                "And what it stands on, down to the last file; JSON is\nan array then");
  app->add_flag("--picture", arguments->picture,
                "And where on the disk the data of each file is");
  app->add_flag_callback(
      "-U,--force-share", [] {}, "As in qemu-img; nothing is ever locked here");
  AddPlaceOptions(*app, arguments->source);
  app->footer(kFooter);
  return {app, [arguments] { return RunInfo(*arguments); }};
}

}  // namespace addcow
