// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See size_checks.h.

#include "common/image/size_checks.h"

#include <fmt/format.h>

#include <optional>

#include "common/base/shell_word.h"
#include "common/format/layout.h"
#include "common/image/raw_file.h"

namespace addcow {

namespace {

// Whether an add-cow file of `size` bytes has bitmaps as all programs write them.
bool IsWhole(uint64_t size, const Geometry& geometry) {
  return size > geometry.header_size && (size - geometry.header_size) % geometry.padding == 0;
}

// The size of the largest disk for which an add-cow file of `size` bytes with a
// subcluster bitmap would be whole, as all programs write it; none where it is so for
// no disk.
std::optional<uint64_t> LargestDiskOf(uint64_t size, const Geometry& geometry) {
  if (!IsWhole(size, geometry)) return std::nullopt;
  // Both bitmaps in units of their padding: the second is so many times the first.
  const uint64_t units = (size - geometry.header_size) / geometry.padding;
  const uint64_t ratio = geometry.cluster_size / kSubclusterSize;
  const uint64_t second = units - DivideUp(units, ratio + 1);
  if (second == 0 || second + DivideUp(second, ratio) != units) return std::nullopt;
  const uint64_t unit = 8 * geometry.padding * kSubclusterSize;
  return second > kMaxOffset / unit ? kMaxOffset : second * unit;
}

// The place of the second bitmap depends on the disk's size. Where the file's length
// shows that it was made for another one, its bits are not where they would be read:
// what was written would be taken for what was not, and the other way round.
Status CheckSubclusterBitmapSize(const ImageFiles& files) {
  const Layout layout = files.layout();
  const BitmapPlace place = layout.subcluster_bitmap();
  ADDCOW_TRY_ASSIGN(const uint64_t size, files.add_cow->Size());
  ADDCOW_TRY_ASSIGN(const FileInfo info, files.add_cow->Info());
  const uint64_t needed = place.end();
  const uint64_t most = place.padded_end();
  // How long it is says nothing there of the disk that it was made for.
  if (info.is_block_device)
    return Fail(Error::Because(kErrUnsupported, files.add_cow_path,
                               "has a subcluster bitmap and is a block device, where its place "
                               "cannot be checked (copy it to a file)"));
  if (size >= needed && size <= most) return {};
  const auto largest = LargestDiskOf(size, layout.geometry());
  if (size > most)
    return Fail(Error::Because(
        kErrCorrupt, files.add_cow_path,
        fmt::format("has {} bytes, but may have {} at most for the subcluster bitmap of a disk "
                    "of {} bytes: the image file was cut, or is another disk's (make it as "
                    "long as it was{}: truncate -s SIZE {})",
                    size, most, files.virtual_size,
                    largest ? fmt::format(", {} bytes at most", *largest) : "",
                    ShellWord(files.image_path))));
  if (!largest)
    return Fail(Error::Because(
        kErrCorrupt, files.add_cow_path,
        fmt::format("truncated: {} bytes, must be at least {} for the subcluster bitmap of a "
                    "disk of {} bytes",
                    size, needed, files.virtual_size)));
  const bool same_place =
      Layout(*largest, layout.geometry()).subcluster_bitmap().offset == place.offset;
  return Fail(Error::Because(
      EINVAL, files.add_cow_path,
      fmt::format("the image file has {} bytes, but the subcluster bitmap is that of a disk of "
                  "{} at most (if the image file was made longer: {}; if not, this file was "
                  "cut)",
                  files.virtual_size, *largest,
                  same_place
                      ? fmt::format("truncate -s {} {}", most, ShellWord(files.add_cow_path))
                      : std::string("make it as long as it was, flatten it, and make it "
                                    "longer then"))));
}

}  // namespace

Status CheckBitmapSize(const ImageFiles& files) {
  // With ALL_ALLOCATED its bits do not count.
  if (files.header.subclusters && !files.header.all_allocated)
    return CheckSubclusterBitmapSize(files);
  const Layout layout = files.layout();
  ADDCOW_TRY_ASSIGN(const uint64_t size, files.add_cow->Size());
  const BitmapPlace place = layout.bitmap();
  const uint64_t needed = place.end();
  // Whole for a smaller disk, as all programs write it: the disk has grown.
  if (size < needed && IsWhole(size, layout.geometry()))
    return Fail(Error::Because(
        EINVAL, files.add_cow_path,
        fmt::format(
            "the image file has grown to {} bytes, but the COW bitmap is that of a disk "
            "of {} at most (to use the disk as it is: truncate -s {} {})",
            files.virtual_size, 8 * (size - place.offset) * layout.cluster_size(),
            place.padded_end(), ShellWord(files.add_cow_path))));
  if (size < needed)
    return Fail(Error::Because(
        kErrCorrupt, files.add_cow_path,
        fmt::format("truncated: {} bytes, must be at least {} for the COW bitmap of a disk of "
                    "{} bytes",
                    size, needed, files.virtual_size)));
  return {};
}

Status CheckImageContents(const ImageFiles& files) {
  if (files.header.all_allocated) return {};
  const Layout layout = files.layout();
  for (const BitmapPlace& place : {layout.bitmap(), layout.subcluster_bitmap()}) {
    std::byte bits;
    ADDCOW_TRY(files.add_cow->ReadExactly(std::span(&bits, 1), place.offset));
    if ((bits & std::byte{1}) != std::byte{0}) return {};
    if (!files.header.subclusters) break;
  }
  return RefuseAddCowFile(*files.image, "image file");
}

}  // namespace addcow
