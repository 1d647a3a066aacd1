// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow measure, as qemu-img measure prints it.

#include "common/ops/measure.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/verbs.h"
#include "tools/wait.h"

namespace addcow {

namespace {

struct Arguments {
  NamedDisk disk;
  AccessOptions access;
  Wait wait;
  bool json = false;
  bool qcow2 = false;
};

constexpr const char* kUsage =
    "[-O raw|qcow2] [-f FORMAT] [--output=human|json] [-U]\n"
    "           [--lock=on|off] [--wait[=SECONDS]] [--timeout=SECONDS] X.add-cow";

constexpr const char* kFooter =
    "raw: what the image file takes once it is flattened, or a raw copy of the disk.\n"
    "qcow2: what 'qemu-img convert -O qcow2' makes of it, with its default options.\n"
    "'required' leaves out what the disk says is zero; 'fully allocated' does not.\n"
    "Nothing is read but what says where data is.\n\n"
    "Any other disk can be measured, too: with -f, a format that a backing file can\n"
    "have; a name that does not end in .add-cow is raw without it.\n\n"
    "Exit status: 0 printed; 1 failed; 64 wrong usage.\n\n"
    "Example:\n"
    "  addcow measure -O qcow2 x.add-cow";

int RunMeasure(const Arguments& arguments) {
  CatchInterrupts();
  const auto measured = arguments.wait.WhileBusy([&] {
    return MeasureDisk(PosixFileSystem(), arguments.disk, arguments.access,
                       arguments.qcow2 ? MeasureFor::kQcow2 : MeasureFor::kRaw, InterruptCame);
  });
  if (!measured)
    return InterruptCame() ? StoppedEarly(measured.error().Message())
                           : FailedToShare(measured.error());
  if (arguments.json) {
    PrintJson(
        {{"required", measured->required}, {"fully-allocated", measured->fully_allocated}});
  } else {
    Print("required size: {}\nfully allocated size: {}\n", measured->required,
          measured->fully_allocated);
  }
  return kExitOk;
}

}  // namespace

Verb AddMeasure(CLI::App& tool) {
  CLI::App* app = AddVerb(tool, "measure", kUsage, "Tell what a copy of the disk takes");
  auto arguments = std::make_shared<Arguments>();
  arguments->access.option_prefix = "--";
  AddFileArgument(*app, arguments->disk.name);
  app->add_option("-f,--format", arguments->disk.format, "The format of the disk")
      ->type_name("FORMAT")
      ->option_text("FORMAT");
  app->add_option_function<std::string>(
         "-O,--target-format",
         [arguments = arguments.get()](const std::string& value) {
           arguments->qcow2 = value == "qcow2";
         },
         "The format of the copy (default: raw)")
      ->type_name("raw|qcow2")
      ->option_text("raw|qcow2")
      ->check(CLI::IsMember({"raw", "qcow2"}));
  AddOutputOption(*app, arguments->json);
  AddForceShareFlag(*app, arguments->access.lock);
  AddLockOption(*app, arguments->access.lock);
  arguments->wait.AddOption(*app);
  AddTimeoutOption(*app, arguments->access.timeout);
  app->footer(kFooter);
  return {app, [arguments] { return RunMeasure(*arguments); }};
}

}  // namespace addcow
