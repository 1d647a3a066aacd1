// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow compare, as qemu-img compare prints it and with its exit statuses.

#include "common/ops/compare.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/printable.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

// As qemu-img compare: 1 is an answer.
constexpr int kExitDifferent = 1;

struct Arguments {
  CompareOptions options;
  Wait wait;
  bool json = false;
  bool quiet = false;
  bool progress = false;
};

constexpr const char* kUsage =
    "[-f FORMAT] [-F FORMAT] [-s] [-p] [-q]\n"
    "           [--output=human|json] [-U] [--lock=on|off] [--wait[=SECONDS]]\n"
    "           [--timeout=SECONDS] A B";

constexpr const char* kFooter =
    "A and B are disks of any format that can be a backing file, or NBD URIs. Without\n"
    "a format, a name that ends in .add-cow is an add-cow image, any other is raw:\n"
    "what is in a file is never asked. What both say is zero is not read. The end of\n"
    "a shorter disk is followed by zeroes, unless -s is given.\n\n"
    "Exit status: 0 they are the same; 1 they are different; 2 failed; 64 wrong\n"
    "usage.\n\n"
    "Examples, the second for what has been copied out:\n"
    "  addcow compare x.add-cow disk.raw\n"
    "  addcow compare -p x.add-cow -F qcow2 copy.qcow2";

std::string Words(const CompareResult& result) {
  switch (result.difference) {
    case Difference::kNone:
      return "Images are identical.";
    case Difference::kData:
      return fmt::format("Content mismatch at offset {}!", result.offset);
    case Difference::kSize:
      return fmt::format("Strict mode: Image size mismatch! ({} and {} bytes)", result.size_a,
                         result.size_b);
    case Difference::kAllocation:
      return fmt::format("Strict mode: Offset {} block status mismatch!", result.offset);
  }
  return "";
}

void PrintResultJson(const Arguments& arguments, const CompareResult& result) {
  constexpr const char* kNames[] = {"", "data", "size", "allocation"};
  Json json;
  const bool same = result.difference == Difference::kNone;
  json["identical"] = same;
  if (!same) json["difference"] = kNames[static_cast<int>(result.difference)];
  if (!same && result.difference != Difference::kSize) json["offset"] = result.offset;
  AddName(json, "a", arguments.options.a.name);
  json["virtual-size-a"] = result.size_a;
  AddName(json, "b", arguments.options.b.name);
  json["virtual-size-b"] = result.size_b;
  PrintJson(json);
}

int RunCompare(const Arguments& arguments) {
  CatchInterrupts();
  Progress progress(arguments.progress && !arguments.quiet);
  CompareOptions options = arguments.options;
  options.interrupted = InterruptCame;
  options.progress = [&](uint64_t done, uint64_t total) { progress.Show(done, total); };
  const auto result =
      arguments.wait.WhileBusy([&] { return CompareDisks(PosixFileSystem(), options); });
  progress.Finish();
  if (!result && InterruptCame()) return StoppedEarly(result.error().Message());
  if (!result) {
    (void)FailedToShare(result.error());
    return kExitCannotCompare;
  }
  const bool same = result->difference == Difference::kNone;
  if (!arguments.quiet) {
    for (const std::string& note : result->notes) PrintNote(note);
    if (!options.strict && result->size_a != result->size_b)
      PrintNote(
          fmt::format("the disks have {} and {} bytes: the end of the shorter one is "
                      "compared with zeroes",
                      result->size_a, result->size_b));
  }
  if (arguments.json)
    PrintResultJson(arguments, *result);
  else if (!arguments.quiet)
    Print("{}\n", Words(*result));
  return same ? kExitOk : kExitDifferent;
}

void AddDisk(CLI::App& app, const char* name, const char* option, NamedDisk& disk) {
  app.add_option(name, disk.name, "A disk: a file, or an NBD URI")
      ->required()
      ->option_text(" ");
  app.add_option(option, disk.format, std::string("The format of ") + name)
      ->type_name("FORMAT")
      ->option_text("FORMAT");
}

}  // namespace

Verb AddCompare(CLI::App& tool) {
  CLI::App* app = AddVerb(tool, "compare", kUsage, "Say whether two disks read the same");
  auto arguments = std::make_shared<Arguments>();
  CompareOptions& options = arguments->options;
  options.access.option_prefix = "--";
  AddDisk(*app, "A", "-f,--a-format", options.a);
  AddDisk(*app, "B", "-F,--b-format", options.b);
  app->add_flag("-s,--strict", options.strict, "Also compare sizes, and what is a hole");
  app->add_flag("-p,--progress", arguments->progress, "Show how far it is");
  app->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  AddOutputOption(*app, arguments->json);
  AddForceShareFlag(*app, options.access.lock);
  AddLockOption(*app, options.access.lock);
  arguments->wait.AddOption(*app);
  AddTimeoutOption(*app, options.access.timeout);
  app->footer(kFooter);
  return {app, [arguments] { return RunCompare(*arguments); }};
}

}  // namespace addcow
