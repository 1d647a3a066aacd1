// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow status.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/control/control_client.h"
#include "common/control/status_json.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/status_file.h"
#include "tools/status_text.h"
#include "tools/verbs.h"

namespace addcow {

namespace {

struct Arguments {
  std::string socket;
  std::string output = "human";
  std::string watch;  // empty: once; else seconds, or what a flag without a value has
  std::optional<std::string> to;
};

constexpr const char* kUsage =
    "[--output=human|json|prometheus] [--watch[=SECONDS]]\n"
    "           [--to=FILE] SOCKET";

constexpr const char* kFooter =
    "The server is started with control=SOCKET. With --watch it is asked again every\n"
    "second, until it ends or the command is stopped. With --to the text appears in\n"
    "FILE all at once, as node_exporter's textfile collector wants it; FILE must be\n"
    "new, empty or what --to wrote.\n\n"
    "Exit status: 0 done; 1 failed; 64 wrong usage; 130 or 143 stopped by Ctrl-C or\n"
    "SIGTERM.\n\n"
    "Example:\n"
    "  nbdkit -U sock addcow x.add-cow control=ctl\n"
    "  addcow status ctl";

constexpr const char* kEverySecond = "true";
constexpr unsigned kMostInterval = 24 * 60 * 60;

std::optional<std::chrono::seconds> ParseInterval(const std::string& text) {
  if (text == kEverySecond) return std::chrono::seconds(1);
  unsigned seconds = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, seconds);
  if (parsed.ec != std::errc() || parsed.ptr != end || seconds == 0 || seconds > kMostInterval)
    return std::nullopt;
  return std::chrono::seconds(seconds);
}

std::string TextOf(const ServerStatus& status, const Arguments& arguments) {
  if (arguments.output == "prometheus") return PrometheusStatus(status);
  if (arguments.output == "human") return HumanStatus(status);
  // Again and again: one object a line.
  const int indent = arguments.watch.empty() ? 4 : -1;
  return ToJson(status).dump(indent, ' ', false, Json::error_handler_t::replace) + "\n";
}

int RunStatus(const Arguments& arguments) {
  CatchInterrupts();
  auto client =
      ControlClient::Connect(arguments.socket, ControlClient::kTimeout, InterruptCame);
  if (!client) return FailedUnlessStopped(client.error());
  const bool clears = arguments.output == "human" && ::isatty(STDOUT_FILENO) == 1;
  for (bool first = true;; first = false) {
    const auto status = client->GetStatus();
    if (!status) return FailedUnlessStopped(status.error());
    const std::string text = TextOf(*status, arguments);
    if (arguments.to) {
      if (const Status written = ReplaceStatusFile(*arguments.to, text); !written)
        return Failed(written.error());
    } else {
      if (!first && arguments.output == "human") PrintText(clears ? "\033[H\033[J" : "\n");
      PrintText(text);
      FlushOutput();
      if (OutputFailed() && !InterruptCame()) return kExitFailed;
    }
    const auto interval = ParseInterval(arguments.watch);
    if (!interval) return kExitOk;
    const auto next = std::chrono::steady_clock::now() + *interval;
    while (!InterruptCame() && std::chrono::steady_clock::now() < next)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (InterruptCame()) return StoppedEarly("stopped");
  }
}

}  // namespace

Verb AddStatus(CLI::App& tool) {
  CLI::App* app =
      AddVerb(tool, "status", kUsage, "Show how a server does, by its control socket");
  auto arguments = std::make_shared<Arguments>();
  AddSocketArgument(*app, arguments->socket);
  app->add_option("--output", arguments->output, "How to print (default: human)")
      ->type_name("human|json|prometheus")
      ->option_text("human|json|prometheus")
      ->check(CLI::IsMember({"human", "json", "prometheus"}));
  app->add_flag("--watch", arguments->watch, "Ask again every second, or every SECONDS")
      ->option_text("[=SECONDS]")
      ->check(
          [](const std::string& text) {
            return ParseInterval(text) ? std::string()
                                       : fmt::format("is '{}', must be whole seconds, 1 to {}",
                                                     text, kMostInterval);
          },
          "SECONDS");
  AddStringOption(*app, "--to", "FILE", arguments->to, "Write to FILE, by renaming a new one");
  app->footer(kFooter);
  return {app, [arguments] { return RunStatus(*arguments); }};
}

}  // namespace addcow
