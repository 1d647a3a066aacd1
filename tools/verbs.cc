// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the verbs have in common.

#include "tools/verbs.h"

#include "config.h"
#include "tools/output.h"

namespace addcow {

void AddHelpAndVersion(CLI::App& app) {
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.set_version_flag("-V,--version", "addcow " PACKAGE_VERSION, "Print the version and exit");
}

CLI::App* AddVerb(CLI::App& tool, const std::string& name, const std::string& description) {
  CLI::App* app = tool.add_subcommand(name, description);
  AddHelpAndVersion(*app);
  return app;
}

void AddFileArgument(CLI::App& app, std::string& path) {
  app.add_option("X.add-cow", path, "The add-cow file")->required()->option_text(" ");
}

void AddOutputOption(CLI::App& app, bool& json) {
  app.add_option_function<std::string>(
         "--output", [&json](const std::string& value) { json = value == "json"; },
         "How to print: human (the default) or json")
      ->type_name("human|json")
      ->option_text("human|json")
      ->check(CLI::IsMember({"human", "json"}));
}

void AddLockOption(CLI::App& app, bool& lock) {
  app.add_option_function<std::string>(
         "--lock", [&lock](const std::string& value) { lock = value == "on"; },
         "Lock the files against other programs: on (the default) or off")
      ->type_name("on|off")
      ->option_text("on|off")
      ->check(CLI::IsMember({"on", "off"}));
}

void AddConfineOption(CLI::App& app, std::optional<std::string>& confine) {
  app.add_option_function<std::string>(
         "--confine", [&confine](const std::string& value) { confine = value; },
         "Refuse files that the header names outside of DIR")
      ->type_name("DIR");
}

void AddForceShareFlag(CLI::App& app, bool& lock) {
  app.add_flag_callback(
      "-U,--force-share", [&lock] { lock = false; },
      "Look at it also while another program writes to it");
}

int Failed(const Error& error) {
  PrintError(error);
  return kExitFailed;
}

int FailedToShare(const Error& error) {
  if (error.code() != EBUSY) return Failed(error);
  PrintError(error.Message() + "; -U looks at it all the same, but may see it half changed");
  return kExitFailed;
}

int UsageError(const std::string& verb, const std::string& message) {
  const std::string space = verb.empty() ? "" : " ";
  const std::string colon = verb.empty() ? "" : ": ";
  PrintError(fmt::format("{}{}{}; see: addcow{}{} --help", verb, colon, Printable(message),
                         space, verb));
  return kExitUsage;
}

}  // namespace addcow
