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

int Failed(const Error& error) {
  PrintError(error);
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
