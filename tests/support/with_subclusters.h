// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Gives a test image (test_image.h) a second bitmap. Like that it writes the format by
// itself, so that tests of the tool do not rest on the engine.

#ifndef ADDCOW_TESTS_SUPPORT_WITH_SUBCLUSTERS_H
#define ADDCOW_TESTS_SUPPORT_WITH_SUBCLUSTERS_H

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/base/units.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/test_image.h"

namespace addcow {

inline Header TestHeader(const FakeFileSystem& files) {
  const FakeInode& add_cow = *files.Find(kAddCowPath);
  auto header = ParseHeader(
      add_cow.Bytes(0, std::min<uint64_t>(add_cow.size(), kMostClusterSize)), kAddCowPath);
  EXPECT_OK(header);
  return header ? *header : Header();
}

inline void WriteTestHeader(FakeFileSystem& files, const Header& header) {
  const auto bytes = SerializeHeader(header, kAddCowPath);
  ASSERT_OK(bytes);
  ASSERT_TRUE(files.Find(kAddCowPath)->Write(*bytes, 0));
}

inline Layout TestLayout(const FakeFileSystem& files) {
  return {files.Find(kImagePath)->size(), TestHeader(files).geometry()};
}

inline void SetRawBit(FakeFileSystem& files, const BitmapPlace& place, uint64_t bit) {
  FakeInode& add_cow = *files.Find(kAddCowPath);
  const std::byte byte = add_cow.Bytes(place.offset + bit / 8, 1)[0];
  ASSERT_TRUE(
      add_cow.Write(std::vector{byte | std::byte{1} << bit % 8}, place.offset + bit / 8));
}

// Sets SUBCLUSTERS and the bits of `subclusters`, whose bytes the disk has from the
// image file then: `disk`, what is read, follows.
inline void AddSubclusters(FakeFileSystem& files, const std::vector<uint64_t>& subclusters,
                           std::vector<std::byte>* disk = nullptr) {
  Header header = TestHeader(files);
  header.subclusters = true;
  WriteTestHeader(files, header);
  const BitmapPlace place = TestLayout(files).subcluster_bitmap();
  ASSERT_TRUE(files.Find(kAddCowPath)->Truncate(place.padded_end()));
  for (const uint64_t subcluster : subclusters) {
    SetRawBit(files, place, subcluster);
    if (disk == nullptr) continue;
    // One past the end of the disk counts for nothing.
    const uint64_t start = std::min<uint64_t>(subcluster * kSubclusterSize, disk->size());
    const uint64_t count = std::min<uint64_t>(kSubclusterSize, disk->size() - start);
    std::ranges::copy(files.Find(kImagePath)->Bytes(start, count),
                      disk->begin() + static_cast<std::ptrdiff_t>(start));
  }
}

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_WITH_SUBCLUSTERS_H
