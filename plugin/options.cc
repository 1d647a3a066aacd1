// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See options.h.

#include "plugin/options.h"

#include <strings.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>

#include "common/base/parse_size.h"
#include "common/image/confine.h"
#include "common/jobs/fetch.h"
#include "common/source/nbd_uri.h"
#include "plugin/nbdkit_api.h"

namespace addcow {

const char kOptionsHelp[] =
    "file=<X.add-cow>    (required) The add-cow file: metadata of the image.\n"
    "image=<FILE>        Use this image file, not the one that the header names.\n"
    "backing=<FILE>      Use this backing file, or NBD URI, not the one that the\n"
    "                    header names.\n"
    "layer=all|top       Extents of the whole disk (default), or only of what is\n"
    "                    allocated in the image file (read only).\n"
    "readonly=<BOOL>     Serve the disk read only, as nbdkit -r does, and share it\n"
    "                    with other readers (default: off).\n"
    "allow=uri,formats   With confine=: let the header name a server, or have another\n"
    "                    format read by qemu-nbd.\n"
    "timeout=<SECONDS>   How long a server of the backing file may take to answer\n"
    "                    before a read from it fails (default: 60).\n"
    "lock=<BOOL>         Lock the files against other programs (default: on).\n"
    "confine=<DIR>       Refuse files that the header names outside of DIR.\n"
    "identity=check|ignore\n"
    "                    Refuse backing files that are not what they were when they\n"
    "                    were named (default: check).\n"
    "reflink=<BOOL>      Copy clusters up by sharing the backing file's storage,\n"
    "                    where the file system can (default: on); a\n"
    "                    fill does so.\n"
    "subclusters=<BOOL>  Keep small writes by 4 KiB, so that nothing is copied around\n"
    "                    them; other readers of the format refuse the file while it\n"
    "                    has such (default: on).\n"
    "sync-interval=<SECONDS>\n"
    "                    Clients that do not flush lose no more than this if nbdkit\n"
    "                    is killed (default: 5; 0: wait for a flush).\n"
    "copy-on-read=<BOOL> Keep what is read from the backing file in the image file,\n"
    "                    so that it is read there once (default: off).\n"
    "control=<SOCKET>    Make this Unix socket, by which 'addcow status' asks how the\n"
    "                    server does. For its owner only.\n"
    "fetch-size=<SIZE>   What copy-on-read reads at once, 4k to 32M, a power of two\n"
    "                    (default: 64k of a local raw backing file, 1M of others).\n"
    "fill=off|touched|all\n"
    "                    Copy up beside clients: the rest of clusters of which a\n"
    "                    part was written, or all, so that the image file alone is\n"
    "                    the disk, and let the backing file go (default: off).\n"
    "fill-rate=<SIZE>    What a fill reads a second at most (default: 0, no limit).\n"
    "fill-delay=<SECONDS>\n"
    "                    Wait before it begins, a tenth more or less (default: 0).\n"
    "fill-exit=<BOOL>    End nbdkit when it is done and no client is connected\n"
    "                    (default: off).";

namespace {

Error BadOption(std::string_view key, const std::string& reason) {
  return Error::Because(EINVAL, std::string(key) + "=", reason);
}

Result<std::string> AbsolutePath(std::string_view key, const std::string& value) {
  if (value.empty()) return Fail(BadOption(key, "the file name is empty"));
  std::unique_ptr<char, decltype(&std::free)> path(nbdkit_absolute_path(value.c_str()),
                                                   &std::free);
  if (path == nullptr) return Fail(BadOption(key, "cannot find the working directory"));
  return std::string(path.get());
}

// A day: what is longer is meant to be 0, or a mistake.
constexpr unsigned kMostSeconds = 24 * 60 * 60;

Result<std::chrono::seconds> Interval(std::string_view key, const std::string& value,
                                      unsigned least) {
  unsigned seconds = 0;
  const char* const end = value.data() + value.size();
  const auto parsed = std::from_chars(value.data(), end, seconds);
  if (parsed.ec != std::errc() || parsed.ptr != end || seconds < least ||
      seconds > kMostSeconds)
    return Fail(BadOption(key, "is '" + value + "', must be whole seconds, " +
                                   (least == 0 ? "0 (off)" : std::to_string(least)) + " to " +
                                   std::to_string(kMostSeconds)));
  return std::chrono::seconds(seconds);
}

Result<uint64_t> FetchSize(std::string_view key, const std::string& value) {
  const auto size = ParseSize(value);
  if (size && std::has_single_bit(*size) && *size >= kLeastFetchSize && *size <= kMostFetchSize)
    return *size;
  return Fail(
      BadOption(key, "is '" + value + "', must be a power of two from 4k to 32M, as 256k"));
}

Result<FillMode> FillModeOf(std::string_view key, const std::string& value) {
  if (value == "off") return FillMode::kOff;
  if (value == "touched") return FillMode::kTouched;
  if (value == "all") return FillMode::kAll;
  return Fail(BadOption(key, "is '" + value + "', must be 'off', 'touched' or 'all'"));
}

Error UnknownParameter(std::string_view key) {
  return Error::Because(EINVAL, "parameter '" + std::string(key) + "'",
                        "unknown, see: nbdkit addcow --help");
}

Status SetPath(std::optional<std::string>& path, std::string_view key,
               const std::string& value) {
  ADDCOW_TRY_ASSIGN(path, AbsolutePath(key, value));
  return {};
}

// The words of nbdkit_parse_bool, which would print a message of its own.
Result<bool> ParseBool(std::string_view key, const std::string& value) {
  const auto is_one_of = [&](std::initializer_list<const char*> words) {
    return std::ranges::any_of(
        words, [&](const char* word) { return ::strcasecmp(value.c_str(), word) == 0; });
  };
  if (is_one_of({"1", "true", "t", "yes", "y", "on"})) return true;
  if (is_one_of({"0", "false", "f", "no", "n", "off"})) return false;
  return Fail(BadOption(key, "is '" + value + "', must be 'on' or 'off'"));
}

Status SetFillOption(Options& options, std::string_view key, const std::string& value) {
  if (key == "fill") {
    ADDCOW_TRY_ASSIGN(options.fill, FillModeOf(key, value));
    return {};
  }
  if (key == "fill-rate") {
    const auto rate = ParseRate(value);
    if (!rate) return Fail(BadOption(key, "is '" + value + "', " + kRateRule));
    options.fill_rate = *rate;
    return {};
  }
  if (key == "fill-delay") {
    ADDCOW_TRY_ASSIGN(options.fill_delay, Interval(key, value, 0));
    return {};
  }
  if (key == "fill-exit") {
    ADDCOW_TRY_ASSIGN(options.fill_exit, ParseBool(key, value));
    return {};
  }
  return Fail(UnknownParameter(key));
}

Status TakeOption(Options& options, std::string_view key, const std::string& value) {
  if (key == "file") {
    ADDCOW_TRY_ASSIGN(options.source.add_cow_path, AbsolutePath(key, value));
    return {};
  }
  if (key == "image") return SetPath(options.source.image_path, key, value);
  if (key == "backing" && IsNbdUri(value)) {
    options.source.backing_path = value;
    return {};
  }
  if (key == "backing") return SetPath(options.source.backing_path, key, value);
  if (key == "layer") {
    if (value != "all" && value != "top")
      return Fail(BadOption(key, "is '" + value + "', must be 'all' or 'top'"));
    options.layer = value == "top" ? Layer::kTop : Layer::kAll;
    return {};
  }
  if (key == "confine") return SetPath(options.source.access.confine, key, value);
  if (key == "identity") {
    if (value != "check" && value != "ignore")
      return Fail(BadOption(key, "is '" + value + "', must be 'check' or 'ignore'"));
    options.source.access.check_identity = value == "check";
    return {};
  }
  if (key == "readonly") {
    ADDCOW_TRY_ASSIGN(options.readonly, ParseBool(key, value));
    return {};
  }
  if (key == "lock") {
    ADDCOW_TRY_ASSIGN(options.source.access.lock, ParseBool(key, value));
    return {};
  }
  if (key == "reflink") {
    ADDCOW_TRY_ASSIGN(options.source.reflink, ParseBool(key, value));
    return {};
  }
  if (key == "subclusters") {
    ADDCOW_TRY_ASSIGN(options.source.subclusters, ParseBool(key, value));
    return {};
  }
  if (key == "sync-interval") {
    ADDCOW_TRY_ASSIGN(options.sync_interval, Interval(key, value, 0));
    return {};
  }
  if (key == "timeout") {
    ADDCOW_TRY_ASSIGN(options.source.access.timeout, Interval(key, value, 1));
    return {};
  }
  if (key == "allow") {
    if (SetAllowed(options.source.access, value)) return {};
    return Fail(
        BadOption(key, "is '" + value + "', must be 'uri', 'formats' or 'uri,formats'"));
  }
  if (key == "copy-on-read") {
    ADDCOW_TRY_ASSIGN(options.copy_on_read, ParseBool(key, value));
    return {};
  }
  if (key == "control") return SetPath(options.control, key, value);
  if (key == "fetch-size") {
    ADDCOW_TRY_ASSIGN(options.fetch_size, FetchSize(key, value));
    return {};
  }
  if (key.starts_with("fill")) return SetFillOption(options, key, value);
  return Fail(UnknownParameter(key));
}

}  // namespace

Status SetOption(Options& options, std::string_view key, const std::string& value) {
  // Of two, neither is known to be meant.
  if (std::ranges::find(options.given, key) != options.given.end())
    return Fail(BadOption(key, "given twice"));
  ADDCOW_TRY(TakeOption(options, key, value));
  options.given.emplace_back(key);
  return {};
}

Status CompleteOptions(Options& options) {
  if (options.source.add_cow_path.empty())
    return Fail(Error::Because(EINVAL, "file=",
                               "missing, name the add-cow file: "
                               "nbdkit addcow file=X.add-cow"));
  if (options.fill_exit && options.fill == FillMode::kOff && !options.control)
    return Fail(BadOption("fill-exit",
                          "there is no fill to wait for (say fill=all or fill=touched, or "
                          "control=, by which one can be started)"));
  // The view of one layer is for copying it out, and lies to a writer.
  if (options.layer == Layer::kTop || options.readonly)
    options.source.mode = OpenMode::kReadOnly;
  return {};
}

}  // namespace addcow
