// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/format/layout: bytes, clusters and bits.

#include "common/format/layout.h"

#include <gtest/gtest.h>

namespace addcow {
namespace {

TEST(Layout, BitmapStartsAfterTheHeader) { EXPECT_EQ(kBitmapOffset, 4096u); }

TEST(Layout, ClustersAre65536Bytes) {
  EXPECT_EQ(Layout::ClusterOf(65535), 0u);
  EXPECT_EQ(Layout::ClusterOf(65536), 1u);
  EXPECT_EQ(Layout::Start(3), 3 * 65536u);
}

TEST(Layout, PartialLastClusterCounts) {
  EXPECT_EQ(Layout(1).clusters(), 1u);
  EXPECT_EQ(Layout(65535).clusters(), 1u);
  EXPECT_EQ(Layout(65536).clusters(), 1u);
  EXPECT_EQ(Layout(65537).clusters(), 2u);
}

TEST(Layout, LastClusterEndsWithTheDisk) {
  const Layout layout(65536 + 100);
  EXPECT_EQ(layout.End(1), 65536u);
  EXPECT_EQ(layout.End(2), 65636u);
}

TEST(Layout, BitmapHasOneBitACluster) {
  EXPECT_EQ(Layout(1).bitmap_bytes(), 1u);
  EXPECT_EQ(Layout(8 * kClusterSize).bitmap_bytes(), 1u);
  EXPECT_EQ(Layout(8 * kClusterSize + 1).bitmap_bytes(), 2u);
}

TEST(Layout, WritersPadTheBitmapTo65536Bytes) {
  EXPECT_EQ(Layout(1).padded_bitmap_bytes(), 65536u);
  EXPECT_EQ(Layout(32 * kGiB).padded_bitmap_bytes(), 65536u);
  EXPECT_EQ(Layout(32 * kGiB + 1).padded_bitmap_bytes(), 131072u);
}

TEST(Layout, LargestDiskDoesNotOverflow) {
  const Layout layout(kMaxOffset);
  EXPECT_EQ(layout.clusters(), uint64_t{1} << 47);
  EXPECT_EQ(layout.End(layout.clusters()), kMaxOffset);
  EXPECT_EQ(layout.bitmap_bytes(), uint64_t{1} << 44);
}

TEST(Layout, TouchedIsEveryClusterThatHasAByteOfTheRange) {
  EXPECT_EQ(Layout::Touched(0, 1), (ClusterRange{0, 1}));
  EXPECT_EQ(Layout::Touched(65535, 1), (ClusterRange{0, 1}));
  EXPECT_EQ(Layout::Touched(65535, 2), (ClusterRange{0, 2}));
  EXPECT_EQ(Layout::Touched(65536, 65536), (ClusterRange{1, 1}));
  EXPECT_EQ(Layout::Touched(65536, 65537), (ClusterRange{1, 2}));
}

}  // namespace
}  // namespace addcow
