// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See own_data.h.

#include "common/image/own_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/shell_word.h"
#include "common/base/units.h"
#include "common/base/zero_bytes.h"

namespace addcow {

namespace {

constexpr uint64_t kMostLookedAt = 64 * kMiB;
constexpr uint64_t kLookedAtOnce = kMiB;

// Looks for bytes that are not zero, where file systems without holes have them too.
class DataFinder {
 public:
  explicit DataFinder(File& file) : file_(file) {}

  // Where the first is; none, or past what is looked at.
  Result<std::optional<uint64_t>> Find(uint64_t offset, uint64_t end) {
    while (offset < end && left_ > 0) {
      ADDCOW_TRY_ASSIGN(const uint64_t data, file_.FindData(offset));
      offset = std::min(data, end);
      const auto part = std::span(bytes_).first(
          static_cast<size_t>(std::min({end - offset, kLookedAtOnce, left_})));
      ADDCOW_TRY_ASSIGN(const size_t count, file_.Read(part, offset));
      if (!IsZero(part.first(count))) return std::optional(offset);
      if (count == 0) break;
      offset += count;
      left_ -= count;
    }
    return std::optional<uint64_t>();
  }

 private:
  File& file_;
  uint64_t left_ = kMostLookedAt;
  std::vector<std::byte> bytes_ = std::vector<std::byte>(kLookedAtOnce);
};

Result<std::optional<uint64_t>> FindStrangeData(const Image& image) {
  const Layout layout = image.files().layout();
  DataFinder finder(*image.files().image);
  for (uint64_t at = 0; at < layout.clusters();) {
    const ClusterRun run = image.bitmap().RunAt({at, layout.clusters() - at});
    at = run.range.end();
    if (run.allocated) continue;
    for (uint64_t first = run.range.first; first < at;) {
      const uint64_t partial = std::min(image.NextPartial(first), at);
      ADDCOW_TRY_ASSIGN(const auto found,
                        finder.Find(layout.Start(first), layout.End(partial)));
      if (found) return found;
      first = partial + 1;
    }
  }
  return std::optional<uint64_t>();
}

}  // namespace

bool IsAnotherThanNamed(FileSystem& file_system, const ImageSource& source,
                        const ImageFiles& files) {
  if (!source.image_path || source.access.confine) return false;
  const auto own = file_system.Identify(
      ResolveName(DirectoryOf(files.add_cow_path), files.header.image.name));
  const auto named = files.image->Info();
  return own && named && !named->SameFile(*own);
}

Status CheckDataIsOwn(FileSystem& file_system, const Image& image) {
  const ImageFiles& files = image.files();
  const std::string own = ResolveName(DirectoryOf(files.add_cow_path), files.header.image.name);
  const auto named = file_system.Open(own, OpenMode::kReadOnly);
  if (!named) return {};  // nothing can be told
  ADDCOW_TRY_ASSIGN(const uint64_t size, (*named)->Size());
  if (size != files.virtual_size)
    return Fail(Error::Because(
        EINVAL, files.image_path,
        fmt::format("has {} bytes, but the image file that the header names, {}, has {}: "
                    "perhaps it is another disk's (if it is not, move that one away)",
                    files.virtual_size, own, size)));
  ADDCOW_TRY_ASSIGN(const auto strange, FindStrangeData(image));
  if (!strange) return {};
  return Fail(Error::Because(
      EINVAL, files.image_path,
      fmt::format(
          "holds data at {}, where nothing is allocated, and is not the image file that "
          "the header names, {}: perhaps another disk's, which would be overwritten (in "
          "a copy of this disk's these are leaks: addcow check -r leaks --force "
          "--image={} {})",
          *strange, own, ShellWord(files.image_path), ShellWord(files.add_cow_path))));
}

}  // namespace addcow
