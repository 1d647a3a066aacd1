// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow create.

#include "common/ops/create.h"

#include <memory>

#include "common/ops/parse_size.h"
#include "tools/output.h"
#include "tools/verbs.h"

namespace addcow {

namespace {

struct Arguments {
  std::string file;
  std::string backing;
  std::string backing_format;
  std::string image;
  std::string size;
  bool force = false;
  bool lock = true;
  bool quiet = false;
};

constexpr const char* kFooter =
    "The image file is made, sparse, where it is not there; one that is there is taken\n"
    "as it is. Its size is the disk's: -s SIZE, else the backing file's.\n\n"
    "File names are stored as given. Relative ones start from the folder of X.add-cow,\n"
    "not from the working directory.\n\n"
    "SIZE is a number of bytes, or a number with a suffix k, M, G, T, P or E (powers of\n"
    "1024), for example 10G or 1.5T.\n\n"
    "Without a backing file everything is allocated: what the image file holds stays\n"
    "visible. With one, an image file's old bytes are ignored until they are written.\n\n"
    "Exit status: 0 made; 1 failed, and nothing was left behind (but for a\n"
    "failure to print what was made); 2 wrong usage.\n\n"
    "Examples:\n"
    "  addcow create -b base.img -F raw -i disk.raw x.add-cow\n"
    "  addcow create -b base.img -F raw -i disk.raw -s 20G x.add-cow\n"
    "  addcow create -i disk.raw -s 1.5T x.add-cow";

int RunCreate(const CLI::App& app, const Arguments& arguments) {
  const auto usage = [](const std::string& message) { return UsageError("create", message); };
  if (app.count("--image") == 0) return usage("-i IMAGE is required");
  const bool has_backing = app.count("--backing") > 0;
  const bool has_format = app.count("--backing-format") > 0;
  if (has_backing && !has_format)
    return usage(
        "-b needs -F FORMAT: the backing file's format is never guessed, since a guest can "
        "write another format's header into a raw disk");
  if (has_format && !has_backing) return usage("-F FORMAT needs -b BACKING");

  CreateOptions options{.add_cow_path = arguments.file,
                        .image_name = arguments.image,
                        .backing = {},
                        .size = {},
                        .force = arguments.force,
                        .lock = arguments.lock};
  if (has_backing) options.backing = {arguments.backing, arguments.backing_format};
  if (app.count("--size") > 0) {
    auto size = ParseSize(arguments.size);
    if (!size) return usage(size.error().Message());
    options.size = *size;
  }
  const auto created = CreateImage(PosixFileSystem(), options);
  if (!created) return Failed(created.error());
  if (arguments.quiet) return kExitOk;
  if (created->old_data_ignored)
    PrintError(fmt::format("note: {}: was there already, its old bytes are ignored",
                           Printable(created->image_path)));
  std::string text =
      fmt::format("Formatting '{}', fmt=add-cow size={} cluster_size={}",
                  Printable(arguments.file), created->virtual_size, kClusterSize);
  if (has_backing)
    text += fmt::format(" backing_file={} backing_fmt={}", Printable(arguments.backing),
                        Printable(arguments.backing_format));
  Print("{} image_file={}\n", text, Printable(arguments.image));
  return kExitOk;
}

}  // namespace

Verb AddCreate(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "create", "Make an add-cow file, and its image file if need be");
  auto arguments = std::make_shared<Arguments>();
  AddFileArgument(*app, arguments->file);
  app->add_option("-b,--backing", arguments->backing,
                  "The backing file, which supplies what the image file does not hold")
      ->type_name("BACKING");
  app->add_option("-F,--backing-format", arguments->backing_format,
                  "Its format, which is never guessed; only raw can be served")
      ->type_name("FORMAT");
  app->add_option("-i,--image", arguments->image, "The image file (required)")
      ->type_name("IMAGE");
  app->add_option("-s,--size", arguments->size, "The size of a new image file")
      ->type_name("SIZE");
  app->add_flag("--force", arguments->force, "Replace X.add-cow if it is an add-cow file");
  AddLockOption(*app, arguments->lock);
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  app->footer(kFooter);
  return {app, [app, arguments] { return RunCreate(*app, *arguments); }};
}

}  // namespace addcow
