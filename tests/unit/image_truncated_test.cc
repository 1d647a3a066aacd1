// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: files that somebody truncates while the image is open. What is
// lost must not read as zeroes, and must not be hidden by writing on.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

class ImageTruncated : public ImageFixture {
 protected:
  void Shorten(const char* path, uint64_t size) { ASSERT_TRUE(Inode(path).Truncate(size)); }

  // By a call that gave `failed`.
  void ExpectStopped(const Status& failed, const std::string& file) {
    EXPECT_TRUE(FailsWith(failed, EIO)) << file;
    EXPECT_TRUE(FailsSaying(failed, file + ": was truncated while in use"));
    EXPECT_TRUE(FailsSaying(failed, "read only from here on"));
    EXPECT_FALSE(image_->writable());
    EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 10), 0), EIO));
    EXPECT_TRUE(FailsWith(image_->Zero(0, 10, {}), EIO));
    EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
    EXPECT_TRUE(messages_.empty());
  }
};

TEST_F(ImageTruncated, ReadsPastTheEndOfTheImageFileFail) {
  Make({.allocated = {0, 1, 2, 3}});
  Shorten(kImagePath, kClusterSize + 100);
  std::vector<std::byte> buffer(1000);
  EXPECT_TRUE(FailsWith(image_->Read(buffer, kClusterSize), EIO));
  EXPECT_TRUE(FailsSaying(image_->Read(buffer, 3 * kClusterSize), kImagePath));
  EXPECT_OK(image_->Read(buffer, 1000));
}

TEST_F(ImageTruncated, FlushFailsWhereTheImageFileIsTooShort) {
  Make({.allocated = {0}});
  Write(0, 10);
  Shorten(kImagePath, kClusterSize);
  const Status flushed = image_->Flush();
  EXPECT_TRUE(FailsSaying(flushed, "in use: 65536 bytes, must be at least 262144"));
  ExpectStopped(flushed, kImagePath);
  std::vector<std::byte> buffer(10);
  EXPECT_OK(image_->Read(buffer, 0));
}

// Bits written behind a header that is gone would not save them.
TEST_F(ImageTruncated, FlushWritesNothingToAnAddCowFileThatIsTooShort) {
  for (const uint64_t size : {0ul, 7ul, 4096ul}) {
    messages_.clear();
    Make({});
    Write(0, 10);
    Shorten(kAddCowPath, size);
    const Status flushed = image_->Flush();
    EXPECT_EQ(Inode(kAddCowPath).size(), size);
    ExpectStopped(flushed, kAddCowPath);
    ExpectAsReference();
  }
}

TEST_F(ImageTruncated, FlushNeedsNoMoreThanTheBitsOfTheDisk) {
  Make({});
  Write(0, kClusterSize);
  Shorten(kAddCowPath, kBitmapOffset + 1);
  EXPECT_OK(image_->Flush());
  EXPECT_TRUE(BitOnDisk(0));
}

TEST_F(ImageTruncated, CloseReportsIt) {
  Make({});
  Write(0, 10);
  Shorten(kAddCowPath, 0);
  EXPECT_TRUE(FailsWith(image_->Close(), EIO));
}

// What is gone cannot be copied up; all else works.
TEST_F(ImageTruncated, BackingFileLosesOnlyWhatItHad) {
  Make({});
  Shorten(kBackingPath, kClusterSize + 100);
  std::vector<std::byte> buffer(1000);
  EXPECT_TRUE(FailsSaying(image_->Read(buffer, 2 * kClusterSize), kBackingPath));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 10), 3 * kClusterSize), EIO));
  EXPECT_TRUE(FailsWith(image_->CopyUp({2, 1}), EIO));
  EXPECT_FALSE(IsAllocated(2));
  EXPECT_FALSE(IsAllocated(3));
  EXPECT_OK(image_->Write(Repeat(2, kClusterSize), 3 * kClusterSize));  // needs no copy
  EXPECT_OK(image_->Write(Repeat(1, 10), 0));
  EXPECT_OK(image_->Flush());
  EXPECT_OK(image_->Read(buffer, 3 * kClusterSize));
  EXPECT_TRUE(image_->writable());
}

// Between the look at its size and the reading of the bits.
TEST_F(ImageTruncated, AddCowFileThatShrinksWhileItIsOpenedIsRefused) {
  for (const uint64_t size : {0ul, 4096ul}) {
    Make({.size = kMiB, .backing_size = kMiB, .allocated = {3}});
    image_.reset();
    Gate::Stop stop = gate_.ParkBefore([&](const Operation& operation) {
      if (operation.kind == OpKind::kSeekData && operation.path == kAddCowPath)
        (void)Inode(kAddCowPath).Truncate(size);
      return false;
    });
    EXPECT_TRUE(FailsSaying(OpenTestImage(seam_), "x.add-cow: ends at byte")) << size;
  }
}

}  // namespace
}  // namespace addcow
