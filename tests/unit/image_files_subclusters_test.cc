// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/image_files, with a subcluster bitmap: its length, and an image file
// whose size has changed, which would have its bits read from a wrong place.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "common/image/image_files.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

// A unit of the padding has the bits of 2 GiB.
constexpr uint64_t kUnit = 8 * kBitmapPadding * kSubclusterSize;

class ImageFilesSubclusters : public testing::Test {
 protected:
  void Make(const ImageSpec& spec = {}) {
    for (const char* path : {kAddCowPath, kImagePath, kBackingPath}) (void)fake_.Remove(path);
    fake_.MakeDirectory(kDirectory);
    ASSERT_OK(MakeTestImage(fake_, kDirectory, spec));
  }
  // The files of a disk of that size, sparse, after which the image file gets another.
  void MakeFor(uint64_t size, uint64_t then) {
    Make();
    ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(size));
    AddSubclusters(fake_, {});
    ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(then));
  }
  Result<ImageFiles> Open() { return OpenImageFiles(fake_, {.add_cow_path = kAddCowPath}); }

  FakeFileSystem fake_;
};

TEST_F(ImageFilesSubclusters, BitmapMustHaveTheLastSubclustersByte) {
  Make({.size = 9 * kClusterSize - 1});
  AddSubclusters(fake_, {});
  EXPECT_OK(Open());
  const uint64_t needed = 4096 + 65536 + 18;
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(needed));
  EXPECT_OK(Open());
  for (const uint64_t size : {needed - 1, uint64_t{4096 + 65536}, uint64_t{4096 + 2}}) {
    ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(size));
    const auto files = Open();
    EXPECT_TRUE(FailsWith(files, kErrCorrupt));
    EXPECT_TRUE(FailsSaying(files, fmt::format("/vm/x.add-cow: truncated: {} bytes, must be at "
                                               "least 69650 for the subcluster bitmap of a "
                                               "disk of 589823 bytes",
                                               size)));
  }
}

TEST_F(ImageFilesSubclusters, AnImageFileThatWasCutIsRefused) {
  MakeFor(16 * kUnit + 1, 16 * kUnit);  // 32 GiB: there the second bitmap moves
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, kErrCorrupt));
  EXPECT_TRUE(FailsSaying(
      files,
      "/vm/x.add-cow: has 1249280 bytes, but may have 1118208 at most for the subcluster "
      "bitmap of a disk of 34359738368 bytes: the image file was cut, or is another disk's "
      "(make it as long as it was, 36507222016 bytes at most: truncate -s SIZE /vm/disk.raw)"));
  ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(17 * kUnit));
  EXPECT_OK(Open());
  // Where its place stays, its end is what shows it.
  MakeFor(kUnit + 1, kUnit);
  EXPECT_TRUE(FailsWith(Open(), kErrCorrupt));
  // Not by a byte more than the padding.
  MakeFor(kUnit, kUnit);
  EXPECT_OK(Open());
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(4096 + 2 * kBitmapPadding + 1));
  EXPECT_TRUE(FailsSaying(Open(), "(make it as long as it was: truncate"));
}

TEST_F(ImageFilesSubclusters, AnImageFileThatHasGrownIsRefusedWithARemedy) {
  MakeFor(kUnit, kUnit + 1);
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, EINVAL));
  EXPECT_TRUE(FailsSaying(
      files,
      "/vm/x.add-cow: the image file has 2147483649 bytes, but the subcluster bitmap is that "
      "of a disk of 2147483648 at most (if the image file was made longer: truncate -s 200704 "
      "/vm/x.add-cow; if not, this file was cut)"));
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(200704));
  EXPECT_OK(Open());
}

// No length of the add-cow file would do.
TEST_F(ImageFilesSubclusters, AnImageFileThatHasGrownPastTheBitmapsPlaceIsRefused) {
  MakeFor(16 * kUnit, 16 * kUnit + 1);
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, EINVAL));
  EXPECT_TRUE(FailsSaying(files,
                          "that of a disk of 34359738368 at most (if the image file was made "
                          "longer: make it as long as it was, flatten it, and make it longer "
                          "then; if not"));
  ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(16 * kUnit));
  EXPECT_OK(Open());
}

// Every pair of sizes on two sides of a border is told apart, without padding too.
TEST_F(ImageFilesSubclusters, EveryOtherPlaceOfTheBitmapIsNoticed) {
  for (uint64_t was = 1; was <= 50; was++) {
    for (uint64_t is = 1; is <= 50; is++) {
      MakeFor(was * kUnit, is * kUnit);
      EXPECT_EQ(Open().has_value(), was == is) << was << " " << is;
    }
    MakeFor(was * kUnit - 4096 * 9, was * kUnit);
    const BitmapPlace place = Layout(was * kUnit - 4096 * 9, Geometry{}).subcluster_bitmap();
    ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(place.offset + place.bytes()));
    EXPECT_FALSE(Open()) << was;
  }
}

// Its length does not tell of which disk it is.
TEST_F(ImageFilesSubclusters, ADeviceIsRefused) {
  MakeFor(kUnit, kUnit);
  EXPECT_OK(Open());
  fake_.Find(kAddCowPath)->SetAbilities({.is_block_device = true});
  EXPECT_TRUE(FailsWith(Open(), kErrUnsupported));
}

TEST_F(ImageFilesSubclusters, WithAllAllocatedTheirBitmapDoesNotMatter) {
  Make({.all_allocated = true});
  const uint64_t size = fake_.Find(kAddCowPath)->size();
  AddSubclusters(fake_, {});
  for (const uint64_t length : {size, size + 5 * kBitmapPadding}) {
    ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(length));
    EXPECT_OK(Open());
  }
}

// Its guest may write what it likes.
TEST_F(ImageFilesSubclusters, AnAddCowFileInTheFirstSubclusterIsTheGuests) {
  for (const bool allocated : {false, true}) {
    MakeFor(kUnit, kUnit);
    const auto add_cow = fake_.Find(kAddCowPath)->Bytes(0, kSubclusterSize);
    ASSERT_TRUE(fake_.Find(kImagePath)->Write(add_cow, 0));
    AddSubclusters(fake_, {allocated ? 0u : 1u});
    EXPECT_EQ(Open().has_value(), allocated);
  }
}

}  // namespace
}  // namespace addcow
