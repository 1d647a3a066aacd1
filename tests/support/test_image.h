// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Makes the three files of an image for tests, on any FileSystem, and says
// what the disk must read. It writes the format by itself, so that tests of
// the engine do not rest on the tool's "create".
//
// Unless told otherwise the image file is full of old bytes: what is under a
// 0 bit must never show.

#ifndef ADDCOW_TESTS_SUPPORT_TEST_IMAGE_H
#define ADDCOW_TESTS_SUPPORT_TEST_IMAGE_H

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/image/image.h"
#include "tests/support/fake_file_system.h"

namespace addcow {

// For tables of offsets.
inline constexpr uint64_t kC = kClusterSize;
inline constexpr uint64_t kS = kSubclusterSize;

// Where tests keep an image on a FakeFileSystem.
inline constexpr const char* kDirectory = "/vm";
inline constexpr const char* kAddCowPath = "/vm/x.add-cow";
inline constexpr const char* kImagePath = "/vm/disk.raw";
inline constexpr const char* kBackingPath = "/vm/base.img";

struct ImageSpec {
  uint64_t size = 4 * kClusterSize;
  std::optional<uint64_t> backing_size = 4 * kClusterSize;  // nothing: no backing file
  // Where the backing file has data; nothing: all over. The rest is holes.
  std::optional<std::vector<ByteRange>> backing_data = std::nullopt;
  bool garbage = true;                   // the image file is full of old bytes
  std::vector<uint64_t> allocated = {};  // clusters whose bit is set
  bool all_allocated = false;            // the flag, and every bit
  // The disk stands on an image, base.add-cow with base.raw, which has every second cluster
  // and stands on base.img.
  bool on_image = false;
  // Subclusters whose bit is set: where there are any, the file has SUBCLUSTERS.
  std::vector<uint64_t> subclusters = {};
  uint64_t seed = 1;  // of the files' bytes
  Revision revision = Revision::kVersion1;
  uint64_t cluster_size = kClusterSize;

  Geometry geometry() const {
    return Header{.revision = revision, .cluster_size = cluster_size}.geometry();
  }
};

// The flags of an add-cow file, by the byte tables of docs/format.md and not by the
// code under test.
struct FlagsOnDisk {
  bool all_allocated = false;
  bool subclusters = false;
};
FlagsOnDisk ReadFlags(const FakeInode& add_cow);
// The same of what else counts for where things are.
Geometry ReadGeometry(const FakeInode& add_cow);

// Writes x.add-cow, disk.raw and base.img into `directory`, which must be
// there, and returns what the disk reads.
Result<std::vector<std::byte>> MakeTestImage(FileSystem& file_system,
                                             const std::string& directory,
                                             const ImageSpec& spec);

// Opens the image made in `directory`. Its log goes to `messages`, if given.
Result<std::unique_ptr<Image>> OpenTestImage(FileSystem& file_system,
                                             const std::string& directory = kDirectory,
                                             OpenMode mode = OpenMode::kReadWrite,
                                             std::vector<std::string>* messages = nullptr,
                                             bool subclusters = true);

// The whole disk, or an empty vector where it could not be read.
std::vector<std::byte> ReadAll(Image& image);
// The same into `bytes`, whose memory is used again.
void ReadAll(Image& image, std::vector<std::byte>& bytes);

std::vector<std::byte> Repeat(uint8_t value, uint64_t count);

// Empty where both are equal, else where they first differ.
std::string Difference(std::span<const std::byte> actual, std::span<const std::byte> expected,
                       uint64_t offset = 0);

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_TEST_IMAGE_H
