// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See qemu_chain.h.

#include "common/source/qemu_chain.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "common/base/shell_word.h"
#include "common/io/file_system.h"

namespace addcow {

namespace {

// U+FFFD: what qemu-img prints in JSON for bytes that are no UTF-8.
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// As many as images of our own can stand on each other.
constexpr size_t kMostImages = 500;

using Json = nlohmann::json;

std::string Text(const Json& json, const char* key) {
  const auto at = json.find(key);
  return at != json.end() && at->is_string() ? at->get<std::string>() : "";
}

uint64_t Number(const Json& json, const char* key) {
  const auto at = json.find(key);
  return at != json.end() && at->is_number_unsigned() ? at->get<uint64_t>() : 0;
}

// What QEMU reads bytes from, and nothing else. Other names are descriptions of several
// layers (json:, blkverify:), in any of which a format may be left open, and qemu-img
// shows none of that.
constexpr std::array<std::string_view, 12> kProtocols = {
    "nbd",  "nbd+tcp", "nbd+unix", "http", "https", "ftp",
    "ftps", "ssh",     "iscsi",    "rbd",  "nfs",   "gluster"};

Status CheckName(const QemuFile& file) {
  const auto protocol = QemuProtocolOf(file.name);
  if (!protocol || std::ranges::find(kProtocols, *protocol) != kProtocols.end()) return {};
  return Fail(Error::Because(
      EINVAL, file.named_by,
      fmt::format("names '{}', in which a format may be guessed: it must name a file (or an "
                  "NBD URI), and say its format (qemu-img rebase -u -F FORMAT -b FILE {})",
                  file.name, ShellWord(file.named_by))));
}

}  // namespace

std::optional<std::string_view> QemuProtocolOf(std::string_view name) {
  const size_t end = name.find_first_of(":/");
  if (end == std::string_view::npos || name[end] != ':') return std::nullopt;
  return name.substr(0, end);
}

Result<QemuImageInfo> ParseQemuInfo(const std::string& json, const std::string& path,
                                    const std::string& directory) {
  const Json parsed = Json::parse(json, nullptr, false);
  if (!parsed.is_object())
    return Fail(Error::Because(EIO, path, "what qemu-img says of it cannot be understood"));
  // Another file can have the name that is printed: it would be looked at, and QEMU open this
  // one.
  const auto check = [&](const std::string& name) -> Status {
    if (name.find(kReplacement) == std::string::npos) return {};
    return Fail(Error::Because(
        EINVAL, path,
        fmt::format("names '{}', whose real name is not UTF-8, so that qemu-img cannot tell it "
                    "(give that file another name, and say it: qemu-img rebase -u -F FORMAT -b "
                    "FILE {})",
                    name, ShellWord(path))));
  };
  QemuImageInfo info;
  info.backing_as_named = Text(parsed, "backing-filename");
  info.backing = Text(parsed, "full-backing-filename");
  if (info.backing.empty()) info.backing = info.backing_as_named;
  ADDCOW_TRY(check(info.backing_as_named));
  ADDCOW_TRY(check(info.backing));
  info.backing_format = Text(parsed, "backing-filename-format");
  info.virtual_size = Number(parsed, "virtual-size");
  info.actual_size = Number(parsed, "actual-size");
  const Json specific = parsed.value("format-specific", Json::object());
  const Json data = specific.is_object() ? specific.value("data", Json::object()) : Json();
  if (!data.is_object()) return info;
  const auto add = [&](const std::string& name) -> Status {
    if (name.empty() || name == path) return {};
    ADDCOW_TRY(check(name));
    // Of a data file qemu-img prints what the image says.
    info.extents.push_back(QemuProtocolOf(name) ? name : ResolveName(directory, name));
    return {};
  };
  ADDCOW_TRY(add(Text(data, "data-file")));
  const auto extents = data.find("extents");
  if (extents != data.end() && extents->is_array())
    for (const Json& extent : *extents) ADDCOW_TRY(add(Text(extent, "filename")));
  return info;
}

Result<std::vector<QemuFile>> FilesOfQemuImage(
    const std::string& path, const std::string& format, const std::string& directory,
    const ProgramLimits& limits, const std::function<Status(const QemuFile&)>& accept) {
  std::vector<QemuFile> files;
  const auto add = [&](QemuFile file) -> Status {
    ADDCOW_TRY(CheckName(file));
    ADDCOW_TRY(accept(file));
    files.push_back(std::move(file));
    return {};
  };
  std::set<std::string> seen;
  files.push_back({.name = path, .named_by = "", .format = format});
  for (size_t at = 0; files[at].format != "raw"; at = files.size() - 1) {
    const std::string name = files[at].name;
    if (!seen.insert(name).second || seen.size() > kMostImages)
      return Fail(Error::Because(ELOOP, name, "stands on itself, or on too many images"));
    const auto printed = OutputOf({"qemu-img", "info", "--force-share", "--output=json",
                                   "--format=" + files[at].format, name},
                                  directory, limits);
    if (!printed)
      return Fail(Error::Because(printed.error().code(), name, printed.error().Message()));
    ADDCOW_TRY_ASSIGN(const QemuImageInfo info, ParseQemuInfo(*printed, name, directory));
    files[at].virtual_size = info.virtual_size;
    files[at].actual_size = info.actual_size;
    for (const std::string& extent : info.extents)
      ADDCOW_TRY(add({.name = extent, .named_by = name, .format = ""}));
    if (info.backing.empty()) break;
    if (info.backing_format.empty())
      return Fail(Error::Because(
          EINVAL, name,
          fmt::format("names the backing file '{}' without saying its format, and a format is "
                      "never guessed (say it: qemu-img rebase -u -F FORMAT -b {} {})",
                      info.backing_as_named, ShellWord(info.backing_as_named),
                      ShellWord(name))));
    ADDCOW_TRY(add({.name = info.backing, .named_by = name, .format = info.backing_format}));
  }
  return files;
}

}  // namespace addcow
