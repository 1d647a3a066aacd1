// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the verbs have in common.

#include "tools/verbs.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/printable.h"
#include "common/image/confine.h"
#include "config.h"
#include "tools/output.h"

namespace addcow {

namespace {

// CLI11 2.5 and later break the lines of texts anew unless they are told not to.
template <typename AnyFormatter>
void KeepLines(AnyFormatter& formatter) {
  if constexpr (requires { formatter.enable_footer_formatting(false); }) {
    formatter.enable_description_formatting(false);
    formatter.enable_footer_formatting(false);
  }
}

// CLI11 would hide in its usage line which options are required, and its versions lay
// out options in different ways.
class UsageFormatter final : public CLI::Formatter {
 public:
  explicit UsageFormatter(std::string usage) : usage_(std::move(usage)) {
    for (const char* name : {"Positionals", "POSITIONALS"}) label(name, "Arguments");
    column_width(kColumn);
    KeepLines(*this);
  }

  std::string make_description(const CLI::App* app) const override {
    return app->get_description() + "\n";
  }

  std::string make_group(std::string group, bool is_positional,
                         std::vector<const CLI::Option*> options) const override {
    if (group == "OPTIONS") group = "Options";
    return CLI::Formatter::make_group(group, is_positional, std::move(options));
  }

  std::string make_option(const CLI::Option* option, bool is_positional) const override {
    std::string text =
        "  " + make_option_name(option, is_positional) + make_option_opts(option);
    text += text.size() < kColumn ? std::string(kColumn - text.size(), ' ')
                                  : "\n" + std::string(kColumn, ' ');
    for (const char c : make_option_desc(option))
      text += c == '\n' ? "\n" + std::string(kColumn, ' ') : std::string(1, c);
    return text + "\n";
  }

  // A value that is a part of the option's word follows it at once.
  std::string make_option_opts(const CLI::Option* option) const override {
    const std::string text = option->get_option_text();
    return text.starts_with("[=") ? text : CLI::Formatter::make_option_opts(option);
  }

  std::string make_usage(const CLI::App*, std::string name) const override {
    return fmt::format("Usage: {} {}\n", name, usage_);
  }

 private:
  static constexpr size_t kColumn = 27;
  const std::string usage_;
};

}  // namespace

void AddHelpAndVersion(CLI::App& app, const std::string& usage) {
  app.formatter(std::make_shared<UsageFormatter>(usage));
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.set_version_flag("-V,--version", "addcow " PACKAGE_VERSION, "Print the version and exit");
}

CLI::App* AddVerb(CLI::App& tool, const std::string& name, const std::string& usage,
                  const std::string& description) {
  CLI::App* app = tool.add_subcommand(name, description);
  app->group("Commands");
  AddHelpAndVersion(*app, usage);
  return app;
}

void AddFileArgument(CLI::App& app, std::string& path) {
  app.add_option("X.add-cow", path, "The add-cow file")->required()->option_text(" ");
}

void AddSocketArgument(CLI::App& app, std::string& path) {
  app.add_option("SOCKET", path, "The server's control socket (control=)")
      ->required()
      ->option_text(" ");
}

void AddOutputOption(CLI::App& app, bool& json) {
  app.add_option_function<std::string>(
         "--output", [&json](const std::string& value) { json = value == "json"; },
         "How to print (default: human)")
      ->type_name("human|json")
      ->option_text("human|json")
      ->check(CLI::IsMember({"human", "json"}));
}

void AddLockOption(CLI::App& app, bool& lock) {
  app.add_option_function<std::string>(
         "--lock", [&lock](const std::string& value) { lock = value == "on"; },
         "Lock the files against other programs (default: on)")
      ->type_name("on|off")
      ->option_text("on|off")
      ->check(CLI::IsMember({"on", "off"}));
}

void AddStringOption(CLI::App& app, const char* name, const char* type,
                     std::optional<std::string>& value, const char* what) {
  app.add_option_function<std::string>(
         name, [&value](const std::string& given) { value = given; }, what)
      ->type_name(type)
      ->option_text(type);
}

void AddIdentityOption(CLI::App& app, bool& check) {
  app.add_option_function<std::string>(
         "--identity", [&check](const std::string& value) { check = value == "check"; },
         "Compare backing files with what was noted of them\n(default: check)")
      ->type_name("check|ignore")
      ->option_text("check|ignore")
      ->check(CLI::IsMember({"check", "ignore"}));
}

void AddAllowOption(CLI::App& app, AccessOptions& access) {
  app.add_option_function<std::string>(
         "--allow",
         [&access](const std::string& value) {
           if (!SetAllowed(access, value))
             throw CLI::ValidationError("--allow",
                                        value + " is none of uri, formats and uri,formats");
         },
         "With --confine: let the header name a server, or\nhave qemu-nbd read another format")
      ->type_name("uri,formats")
      ->option_text("uri,formats");
}

void AddTimeoutOption(CLI::App& app, std::chrono::seconds& timeout) {
  app.add_option_function<unsigned>(
         "--timeout", [&timeout](unsigned seconds) { timeout = std::chrono::seconds(seconds); },
         "How long a server of a backing file may take to\nanswer (default: 60)")
      ->type_name("SECONDS")
      ->option_text("SECONDS")
      ->check(CLI::Range(1u, 24u * 60 * 60));
}

void AddPlaceOptions(CLI::App& app, ImageSource& source) {
  source.access.option_prefix = "--";
  AddStringOption(app, "--image", "FILE", source.image_path,
                  "The image file, if not where the header says");
  AddStringOption(app, "--backing", "FILE", source.backing_path,
                  "The backing file, if not where the header says");
  AddStringOption(app, "--confine", "DIR", source.access.confine,
                  "Refuse files that the header names outside of DIR");
  AddAllowOption(app, source.access);
  AddIdentityOption(app, source.access.check_identity);
  AddTimeoutOption(app, source.access.timeout);
}

void AddForceShareFlag(CLI::App& app, bool& lock) {
  app.add_flag_callback(
      "-U,--force-share", [&lock] { lock = false; },
      "Look at it even while another program writes to it");
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
