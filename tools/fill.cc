// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow fill.

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "common/base/parse_size.h"
#include "common/control/control_client.h"
#include "common/control/status_json.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/status_text.h"
#include "tools/verbs.h"

namespace addcow {

namespace {

struct Arguments {
  std::string socket;
  std::string action;
  std::optional<uint64_t> rate;
  bool wait = false;
  bool progress = false;
};

constexpr const char* kUsage = "[--rate=SIZE] [--wait] [-p] SOCKET all|touched|pause|resume";

constexpr const char* kFooter =
    "The server is started with control=SOCKET. 'all' copies the rest of the backing\n"
    "file to the image file, while clients go on; 'touched' only that of clusters of\n"
    "which a part is there. To change the rate of one that runs: resume --rate=SIZE.\n"
    "'resume' ends a pause, and a delay (fill-delay=).\n\n"
    "Exit status: 0 done, with --wait when all is filled; 1 failed, or it cannot go\n"
    "on; 64 wrong usage; 130 or 143 stopped by Ctrl-C or SIGTERM, which stops the\n"
    "waiting and not the fill.\n\n"
    "Example:\n"
    "  addcow fill ctl all --rate=50M -p";

// Between two looks at a fill that is waited for.
constexpr std::chrono::milliseconds kLook(200);

using Action = FillCommand::Action;

Status SendCommands(ControlClient& client, const Arguments& arguments) {
  if (arguments.action == "pause") return client.Fill({.action = Action::kPause});
  if (arguments.action == "resume")
    return client.Fill({.action = Action::kResume, .rate = arguments.rate});
  return client.Fill({.action = Action::kStart,
                      .mode = FillModeOf(arguments.action).value_or(FillMode::kAll),
                      .rate = arguments.rate});
}

// `all`: it is waited for that.
int Ended(const FillStatus& fill, bool all) {
  if (fill.state == FillState::kDone && all && fill.mode != FillMode::kAll) {
    PrintError(
        "the fill was changed to 'touched' meanwhile, so the rest is still to be copied");
    return kExitFailed;
  }
  if (fill.state == FillState::kDone) {
    PrintText(fill.mode == FillMode::kAll
                  ? "All is filled; the image file can now be used alone.\n"
                  : "Every cluster that had a part in the image file is whole.\n");
    return kExitOk;
  }
  PrintError(fill.state == FillState::kFailed
                 ? fmt::format("the fill has failed: {}",
                               fill.error.empty() ? "see the server's log" : fill.error)
                 : std::string("nothing is being filled, so it cannot be waited for"));
  return kExitFailed;
}

// Waits until it is done, or cannot go on.
int WaitForEnd(ControlClient& client, bool all, bool shown) {
  Progress progress(shown);
  std::optional<uint64_t> copied_before;
  for (;;) {
    auto status = client.GetStatus();
    // With fill-exit= the server ends as soon as it has filled all.
    const auto& last = client.last();
    if (!status && last && last->fill.state == FillState::kDone) status = *last;
    if (!status) {
      progress.Finish();
      return FailedUnlessStopped(status.error());
    }
    const FillStatus& fill = status->fill;
    if (!copied_before) copied_before = fill.copied;
    const uint64_t copied = fill.copied - std::min(fill.copied, *copied_before);
    progress.Show(copied, copied + fill.left);
    if (OutputFailed() && !InterruptCame()) return kExitFailed;
    if (fill.state == FillState::kDone || fill.state == FillState::kFailed ||
        fill.state == FillState::kOff) {
      progress.Finish();
      return Ended(fill, all);
    }
    if (!InterruptCame()) std::this_thread::sleep_for(kLook);
    if (InterruptCame()) {
      progress.Finish();
      return StoppedEarly("stopped waiting, the server goes on filling");
    }
  }
}

int RunFill(const Arguments& arguments) {
  const bool waits = arguments.wait || arguments.progress;
  if (arguments.action == "pause" && (waits || arguments.rate))
    return UsageError("fill", "'pause' goes with none of --rate, --wait and -p");
  CatchInterrupts();
  auto client =
      ControlClient::Connect(arguments.socket, ControlClient::kTimeout, InterruptCame);
  if (!client) return FailedUnlessStopped(client.error());
  if (const Status sent = SendCommands(*client, arguments); !sent)
    return FailedUnlessStopped(sent.error());
  NoteChange(arguments.socket, "has taken the command");
  return waits ? WaitForEnd(*client, arguments.action == "all", arguments.progress) : kExitOk;
}

}  // namespace

Verb AddFill(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "fill", kUsage, "Have a server fill its image file, and wait for it");
  auto arguments = std::make_shared<Arguments>();
  AddSocketArgument(*app, arguments->socket);
  app->add_option("ACTION", arguments->action,
                  "all: start to fill all; touched: clusters that are\nthere in part; pause; "
                  "resume")
      ->required()
      ->option_text(" ")
      ->check(CLI::IsMember({"all", "touched", "pause", "resume"}));
  app->add_option_function<std::string>(
         "--rate",
         [arguments](const std::string& text) {
           arguments->rate = ParseRate(text);
           if (!arguments->rate)
             throw CLI::ValidationError("--rate", fmt::format("is '{}', {}", text, kRateRule));
         },
         "Copy no more than SIZE a second; 0: no limit")
      ->type_name("SIZE")
      ->option_text("SIZE");
  app->add_flag("--wait", arguments->wait, "Wait until all is filled, or it cannot go on");
  app->add_flag("-p,--progress", arguments->progress,
                "Wait, and show the progress: a bar on a terminal,\nelse a line for each 10 "
                "percent");
  app->footer(kFooter);
  return {app, [arguments] { return RunFill(*arguments); }};
}

}  // namespace addcow
