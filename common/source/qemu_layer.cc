// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See qemu_layer.h.

#include "common/source/qemu_layer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "common/base/units.h"
#include "common/io/file_system.h"
#include "common/source/nbd_uri.h"
#include "common/source/qemu_words.h"

namespace addcow {

namespace {

using LayerJson = nlohmann::json;

Error CannotBeUnderstood(const std::string& path) {
  return Error::Because(EIO, path, "what qemu-img says of it cannot be understood");
}

size_t CountOf(const LayerJson& json, const char* key) {
  const auto at = json.find(key);
  return at != json.end() && at->is_array() ? at->size() : 0;
}

bool IsTrue(const LayerJson& json, const char* key) {
  const auto at = json.find(key);
  return at != json.end() && at->is_boolean() && at->get<bool>();
}

Result<std::string> AskQemuImg(const QemuImage& image, std::vector<std::string> words,
                               const ProgramLimits& limits) {
  if (!HasProgram("qemu-img"))
    return Fail(Error::Because(
        ENOENT, image.path,
        "needs qemu-img, which is not installed (its package: qemu-utils on Debian "
        "and Ubuntu, qemu-img on Fedora)"));
  if (!image.lock) words.insert(words.begin() + 2, "--force-share");
  auto printed = OutputOf(words, image.RunsIn(), limits);
  if (printed) return printed;
  const Error& error = printed.error();
  if (auto in_use = InUseByQemuWords(error.Message(), image.path))
    return Fail(std::move(*in_use));
  return Fail(Error::Because(error.code(), image.path, error.Message()));
}

// One object of the map. False: it has not all that is needed.
bool AddEntry(const LayerJson& entry, QemuLayerMap& map) {
  const auto number = [&](const char* key) { return entry.value(key, uint64_t{0}); };
  for (const char* key : {"start", "length", "depth"})
    if (!entry.contains(key) || !entry[key].is_number_unsigned()) return false;
  if (!entry.contains("present") || !entry["present"].is_boolean()) return false;
  const ByteRange range{number("start"), number("length")};
  if (number("depth") != 0 || !IsTrue(entry, "present") || range.length == 0) return true;
  const bool data = !IsTrue(entry, "zero");
  // What is compressed lies nowhere as it is read.
  if (data && (!entry.contains("offset") || IsTrue(entry, "compressed")))
    map.compressed += range.length;
  if (!map.runs.empty() && map.runs.back().data == data &&
      map.runs.back().range.end() == range.offset)
    map.runs.back().range.length += range.length;
  else
    map.runs.push_back({range, data});
  return true;
}

}  // namespace

Result<std::string> NameOfQemuLayer(const QemuImage& image) {
  LayerJson node = {
      {"driver", image.format},
      {"read-only", true},
      {"force-share", !image.lock},
      {"backing", nullptr},
      {"file",
       {{"driver", image.is_block_device ? "host_device" : "file"}, {"filename", image.path}}}};
  std::string text = node.dump(-1, ' ', false, LayerJson::error_handler_t::ignore);
  // What was no UTF-8 is left out.
  if (LayerJson::parse(text)["file"]["filename"].get<std::string>() != image.path)
    return Fail(Error::Because(EINVAL, image.path,
                               "has a name that is not UTF-8, by which QEMU cannot be told to "
                               "leave its backing file alone (give it another name)"));
  return "json:" + text;
}

Result<QemuLayerInfo> ParseQemuLayerInfo(const std::string& json, const QemuImage& image) {
  QemuLayerInfo info;
  ADDCOW_TRY_ASSIGN(info.image, ParseQemuInfo(json, image.path, image.RunsIn()));
  const LayerJson parsed = LayerJson::parse(json, nullptr, false);
  info.encrypted = IsTrue(parsed, "encrypted");
  if (const size_t count = CountOf(parsed, "snapshots"); count > 0)
    info.extras.push_back(Counted(count, "internal snapshot"));
  const LayerJson specific = parsed.value("format-specific", LayerJson::object());
  const LayerJson data =
      specific.is_object() ? specific.value("data", LayerJson::object()) : LayerJson();
  if (data.is_object()) {
    info.encrypted = info.encrypted || data.contains("encrypt");
    if (const size_t count = CountOf(data, "bitmaps"); count > 0)
      info.extras.push_back(Counted(count, "bitmap"));
    if (data.contains("data-file"))
      info.extras.emplace_back("its data in another file, which would be a copy from then on");
    if (IsTrue(data, "corrupt")) info.extras.emplace_back("the mark that it is corrupt");
  }
  info.printed = json;
  return info;
}

Result<QemuLayerMap> ParseQemuLayerMap(const std::string& json, const std::string& path) {
  QemuLayerMap map;
  bool complete = true;
  // Each entry is let go at once: there can be millions.
  const auto parsed = LayerJson::parse(
      json,
      [&](int, LayerJson::parse_event_t event, LayerJson& entry) {
        if (event != LayerJson::parse_event_t::object_end) return true;
        complete = AddEntry(entry, map) && complete;
        return false;
      },
      false);
  if (!parsed.is_array()) return Fail(CannotBeUnderstood(path));
  if (!complete)
    return Fail(Error::Because(kErrUnsupported, path,
                               "this qemu-img does not say what is not there (QEMU 6.1 and "
                               "later do)"));
  return map;
}

Status MakeQcow2(const NewQcow2& image, const ProgramLimits& limits) {
  std::vector<std::string> words = {"qemu-img",
                                    "create",
                                    "-q",
                                    "-f",
                                    std::string(kQcow2Format),
                                    "-o",
                                    fmt::format("cluster_size={}", image.cluster_size)};
  if (!image.backing.empty()) {
    // A file's name is not to be taken for a protocol's.
    const bool shield = !IsNbdUri(image.backing) && QemuProtocolOf(image.backing).has_value();
    words.insert(words.end(), {"-u", "-b", (shield ? "./" : "") + image.backing, "-F",
                               image.backing_format});
  }
  words.insert(words.end(), {image.path, fmt::format("{}", image.size)});
  ADDCOW_TRY(AskQemuImg({.path = image.path, .format = std::string(kQcow2Format)},
                        std::move(words), limits));
  return {};
}

Result<QemuLayerInfo> InfoOfQemuLayer(const QemuImage& image, const ProgramLimits& limits) {
  ADDCOW_TRY_ASSIGN(
      const std::string printed,
      AskQemuImg(image,
                 {"qemu-img", "info", "--output=json", "--format=" + image.format, image.path},
                 limits));
  return ParseQemuLayerInfo(printed, image);
}

Result<QemuLayerMap> MapOfQemuLayer(const QemuImage& image, ProgramLimits limits) {
  limits.timeout.reset();
  ADDCOW_TRY_ASSIGN(const std::string name, NameOfQemuLayer(image));
  ADDCOW_TRY_ASSIGN(const std::string printed,
                    AskQemuImg(image, {"qemu-img", "map", "--output=json", name}, limits));
  return ParseQemuLayerMap(printed, image.path);
}

}  // namespace addcow
