// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See test_image.h.

#include "tests/support/test_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "tests/support/random.h"

namespace addcow {

namespace {

Status MakeBacking(FileSystem& file_system, const std::string& path, const ImageSpec& spec,
                   std::vector<std::byte>& disk) {
  const uint64_t size = *spec.backing_size;
  ADDCOW_TRY_ASSIGN(auto file, file_system.Create(path));
  ADDCOW_TRY(file->Truncate(size));
  const auto ranges = spec.backing_data.value_or(std::vector<ByteRange>{{0, size}});
  const auto bytes = Random(spec.seed * 2 + 1).Bytes(size);
  for (const ByteRange& range : ranges) {
    const auto data = std::span(bytes).subspan(range.offset, range.length);
    ADDCOW_TRY(file->Write(data, range.offset));
    for (uint64_t i = 0; i < range.length && range.offset + i < disk.size(); i++)
      disk[range.offset + i] = data[i];
  }
  return {};
}

Status MakeImageFile(FileSystem& file_system, const std::string& path, const ImageSpec& spec,
                     std::vector<std::byte>& disk) {
  ADDCOW_TRY_ASSIGN(auto file, file_system.Create(path));
  ADDCOW_TRY(file->Truncate(spec.size));
  std::vector<std::byte> bytes(spec.size);
  if (spec.garbage) {
    Random(spec.seed * 2).Fill(bytes);
    ADDCOW_TRY(file->Write(bytes, 0));
  }
  const Layout layout(spec.size, spec.geometry());
  const auto show = [&](uint64_t offset, uint64_t end) {
    for (uint64_t i = offset; i < std::min(end, spec.size); i++) disk[i] = bytes[i];
  };
  for (uint64_t cluster = 0; cluster < layout.clusters(); cluster++)
    if (spec.all_allocated || std::ranges::count(spec.allocated, cluster) != 0)
      show(layout.Start(cluster), layout.End(cluster + 1));
  for (const uint64_t subcluster : spec.subclusters)
    show(subcluster * kSubclusterSize, (subcluster + 1) * kSubclusterSize);
  return {};
}

Status MakeAddCowFile(FileSystem& file_system, const std::string& path,
                      const std::string& image, const std::optional<NamedFile>& backing,
                      const ImageSpec& spec) {
  const Layout layout(spec.size, spec.geometry());
  Header header{.revision = spec.revision,
                .cluster_size = spec.cluster_size,
                .image = {image, "raw"},
                .backing = backing};
  header.all_allocated = spec.all_allocated;
  header.subclusters = !spec.subclusters.empty();
  std::vector<std::byte> bitmap(layout.bitmap().padded_end() - layout.bitmap().offset);
  for (uint64_t cluster = 0; cluster < layout.clusters(); cluster++)
    if (spec.all_allocated || std::ranges::count(spec.allocated, cluster) != 0)
      bitmap[cluster / 8] |= static_cast<std::byte>(1u << (cluster % 8));
  if (header.subclusters) {
    const size_t start = bitmap.size();
    bitmap.resize(layout.subcluster_bitmap().padded_end() - layout.bitmap().offset);
    for (const uint64_t subcluster : spec.subclusters)
      bitmap[start + subcluster / 8] |= static_cast<std::byte>(1u << (subcluster % 8));
  }
  ADDCOW_TRY_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, path));
  ADDCOW_TRY_ASSIGN(auto file, file_system.Create(path));
  ADDCOW_TRY(file->Write(bytes, 0));
  return file->Write(bitmap, layout.bitmap().offset);
}

// The image between the disk and base.img, which has other bytes then where it is not read.
Status MakeImageBetween(FileSystem& file_system, const std::string& directory,
                        const ImageSpec& spec) {
  ImageSpec between{.size = *spec.backing_size};
  ADDCOW_TRY_ASSIGN(auto base, file_system.Open(directory + "/base.img", OpenMode::kReadWrite));
  ADDCOW_TRY_ASSIGN(auto image, file_system.Create(directory + "/base.raw"));
  ADDCOW_TRY(image->Truncate(between.size));
  const Layout layout(between.size, between.geometry());
  Random random(spec.seed * 2 + 2);
  for (uint64_t cluster = 0; cluster < layout.clusters(); cluster++) {
    const uint64_t start = layout.Start(cluster);
    auto bytes = random.Bytes(layout.End(cluster + 1) - start);
    if (cluster % 2 == 1) {
      between.allocated.push_back(cluster);
      std::vector<std::byte> moved(bytes.size());
      ADDCOW_TRY(base->ReadExactly(moved, start));
      ADDCOW_TRY(base->Write(bytes, start));
      bytes = std::move(moved);
    }
    ADDCOW_TRY(image->Write(bytes, start));
  }
  return MakeAddCowFile(file_system, directory + "/base.add-cow", "base.raw",
                        NamedFile{"base.img", "raw"}, between);
}

}  // namespace

FlagsOnDisk ReadFlags(const FakeInode& add_cow) {
  const auto bit = [bytes = add_cow.Bytes(0, 48)](size_t offset, unsigned number) {
    return (bytes[offset + number / 8] >> (number % 8) & std::byte{1}) != std::byte{0};
  };
  const bool acow = add_cow.Bytes(1, 1)[0] == std::byte{'C'};
  return {.all_allocated = acow ? bit(32, 0) : bit(28, 2),
          .subclusters = bit(acow ? 24 : 28, 16)};
}

Geometry ReadGeometry(const FakeInode& add_cow) {
  const auto bytes = add_cow.Bytes(0, 24);
  if (bytes[1] != std::byte{'C'}) return {};
  const uint64_t size = uint64_t{1} << (std::to_integer<unsigned>(bytes[20]) % 64);
  return {size, std::max(kHeaderPageSize, size), size};
}

Result<std::vector<std::byte>> MakeTestImage(FileSystem& file_system,
                                             const std::string& directory,
                                             const ImageSpec& spec) {
  std::vector<std::byte> disk(spec.size);
  if (spec.backing_size)
    ADDCOW_TRY(MakeBacking(file_system, directory + "/base.img", spec, disk));
  ADDCOW_TRY(MakeImageFile(file_system, directory + "/disk.raw", spec, disk));
  std::optional<NamedFile> backing;
  if (spec.backing_size) backing = NamedFile{"base.img", "raw"};
  if (spec.on_image) {
    ADDCOW_TRY(MakeImageBetween(file_system, directory, spec));
    backing = NamedFile{"base.add-cow", "add-cow"};
  }
  ADDCOW_TRY(MakeAddCowFile(file_system, directory + "/x.add-cow", "disk.raw", backing, spec));
  return disk;
}

Result<std::unique_ptr<Image>> OpenTestImage(FileSystem& file_system,
                                             const std::string& directory, OpenMode mode,
                                             std::vector<std::string>* messages,
                                             bool subclusters) {
  ImageSource source;
  source.subclusters = subclusters;
  source.add_cow_path = directory + "/x.add-cow";
  source.mode = mode;
  return Image::Open(file_system, source, [messages](LogLevel, const std::string& message) {
    if (messages != nullptr) messages->push_back(message);
  });
}

void ReadAll(Image& image, std::vector<std::byte>& bytes) {
  // Not zeroes: what is not filled in must show.
  bytes.assign(image.virtual_size(), std::byte{0xee});
  if (!image.Read(bytes, 0)) bytes.clear();
}

std::vector<std::byte> ReadAll(Image& image) {
  std::vector<std::byte> bytes;
  ReadAll(image, bytes);
  return bytes;
}

std::vector<std::byte> Repeat(uint8_t value, uint64_t count) {
  return std::vector<std::byte>(count, std::byte{value});
}

std::string Difference(std::span<const std::byte> actual, std::span<const std::byte> expected,
                       uint64_t offset) {
  if (actual.size() != expected.size())
    return fmt::format("{} bytes, expected {}", actual.size(), expected.size());
  // Nearly always equal; and memcmp is fast where code is not optimised, too.
  if (actual.empty() || std::memcmp(actual.data(), expected.data(), actual.size()) == 0)
    return "";
  const auto [a, e] = std::ranges::mismatch(actual, expected);
  const auto position = static_cast<uint64_t>(a - actual.begin());
  return fmt::format("byte {} (cluster {}, sector {}) is {:#04x}, expected {:#04x}",
                     offset + position, (offset + position) / kClusterSize,
                     (offset + position) / kSectorSize, static_cast<unsigned>(*a),
                     static_cast<unsigned>(*e));
}

}  // namespace addcow
