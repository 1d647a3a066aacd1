// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Image::Counts: what is counted of reads, writes, flushes and what waits.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

class ImageCountsTest : public ImageFixture {};

TEST_F(ImageCountsTest, ReadsByWhereFrom) {
  Make({.size = 4 * kC, .backing_size = 2 * kC + 100, .allocated = {0}});
  Read(kC - 10, 30);
  Read(2 * kC, 4096);
  Read(3 * kC, 5000);
  const ImageCounts counts = image_->Counts();
  EXPECT_EQ(counts.read_image, 10u);
  EXPECT_EQ(counts.read_backing, 20u + 100);
  EXPECT_EQ(counts.read_nowhere, 4096u - 100 + 5000);
}

TEST_F(ImageCountsTest, WritesWithWhatTheyTookAlong) {
  Make({.size = 4 * kC, .allocated = {0}});
  Write(0, 1000);
  EXPECT_EQ(image_->Counts().written_image, 1000u);
  // The rest of its subcluster is copied.
  Write(kC, 1000);
  const ImageCounts counts = image_->Counts();
  EXPECT_EQ(counts.written_image, 1000u + kS);
  EXPECT_EQ(counts.read_backing, kS - 1000);
  EXPECT_EQ(counts.written_add_cow, 0u);
  EXPECT_EQ(counts.allocation.unpublished_subclusters, 1u);
  EXPECT_EQ(counts.allocation.unpublished_bytes, kS);
  Zero(0, 5000, {.may_punch = false});
  EXPECT_EQ(image_->Counts().zeroed_image, 5000u);
}

TEST_F(ImageCountsTest, FlushesAndWhatTheyWrite) {
  Make({.size = 4 * kC});
  Write(kC, kC);
  ASSERT_OK(image_->Flush());
  ImageCounts counts = image_->Counts();
  EXPECT_EQ(counts.flushes.count(), 1u);
  EXPECT_EQ(counts.flush_errors, 0u);
  EXPECT_GT(counts.written_add_cow, 0u);
  EXPECT_EQ(counts.allocation.unpublished_bytes, 0u);
  EXPECT_EQ(counts.allocation.allocated, 1u);
  ASSERT_OK(image_->Flush());
  EXPECT_EQ(image_->Counts().flushes.count(), 2u);
  EXPECT_EQ(image_->Counts().written_add_cow, counts.written_add_cow);
  EXPECT_EQ(image_->Counts().flushes_shared, 0u);
}

// docs/control.md says so of flushes.count.
TEST_F(ImageCountsTest, AFuaWriteThatSyncsItsOwnBytesAloneIsNoFlush) {
  Make({.size = 4 * kC});
  Write(kC, kC);
  ASSERT_OK(image_->Flush());
  ASSERT_EQ(image_->Counts().flushes.count(), 1u);
  Write(kC, random_.Bytes(kS), Fua::kYes);
  EXPECT_EQ(image_->Counts().flushes.count(), 1u);
  Write(2 * kC, random_.Bytes(kS), Fua::kYes);
  EXPECT_EQ(image_->Counts().flushes.count(), 2u);
}

TEST_F(ImageCountsTest, AllAllocatedHasAllClusters) {
  Make({.size = 4 * kC - 7, .all_allocated = true});
  const AllocationCounts counts = image_->Counts().allocation;
  EXPECT_EQ(counts.clusters, 4u);
  EXPECT_EQ(counts.allocated, 4u);
  EXPECT_EQ(counts.partial, 0u);
}

}  // namespace
}  // namespace addcow
