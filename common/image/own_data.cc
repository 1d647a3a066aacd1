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
#include "common/io/holes.h"

namespace addcow {

namespace {

constexpr uint64_t kMostLookedAt = 64 * kMiB;
constexpr uint64_t kLookedAtOnce = kMiB;

// About where the first data is that is not the disk's; none, or past what is looked at.
Result<std::optional<uint64_t>> FindStrangeData(const Image& image) {
  const Layout layout = image.files().layout();
  File& file = *image.files().image;
  Holes holes(file);
  ADDCOW_TRY(holes.Settle(file));
  std::vector<std::byte> bytes(kLookedAtOnce);
  std::optional<uint64_t> found;
  uint64_t looked = 0;
  const auto look = [&](uint64_t offset, uint64_t length) -> Result<bool> {
    const auto part = std::span(bytes).first(static_cast<size_t>(length));
    ADDCOW_TRY_ASSIGN(const size_t count, file.Read(part, offset));
    if (!IsZero(part.first(count))) found = offset;
    looked += length;
    return !found && looked < kMostLookedAt;
  };
  for (uint64_t at = 0; at < layout.clusters() && looked < kMostLookedAt;) {
    const ClusterRun run = image.bitmap().RunAt({at, layout.clusters() - at});
    at = run.range.end();
    if (run.allocated) continue;
    for (uint64_t first = run.range.first; first < at && looked < kMostLookedAt;) {
      const uint64_t partial = std::min(image.NextPartial(first), at);
      ADDCOW_TRY(holes.VisitData(layout.Start(first), layout.End(partial), bytes.size(), look));
      if (found) return found;
      first = partial + 1;
    }
  }
  return found;
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
