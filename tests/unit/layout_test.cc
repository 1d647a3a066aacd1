// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/format/layout: bytes, clusters and bits.

#include "common/format/layout.h"

#include <gtest/gtest.h>

namespace addcow {
namespace {

const Layout kLargest(kMaxOffset, Geometry{});

TEST(Layout, BitmapStartsAfterTheHeader) { EXPECT_EQ(kBitmapOffset, 4096u); }

TEST(Layout, ClustersAre65536Bytes) {
  EXPECT_EQ(kLargest.ClusterOf(65535), 0u);
  EXPECT_EQ(kLargest.ClusterOf(65536), 1u);
  EXPECT_EQ(kLargest.Start(3), 3 * 65536u);
}

TEST(Layout, PartialLastClusterCounts) {
  EXPECT_EQ(Layout(1, Geometry{}).clusters(), 1u);
  EXPECT_EQ(Layout(65535, Geometry{}).clusters(), 1u);
  EXPECT_EQ(Layout(65536, Geometry{}).clusters(), 1u);
  EXPECT_EQ(Layout(65537, Geometry{}).clusters(), 2u);
}

TEST(Layout, LastClusterEndsWithTheDisk) {
  const Layout layout(65536 + 100, Geometry{});
  EXPECT_EQ(layout.End(1), 65536u);
  EXPECT_EQ(layout.End(2), 65636u);
}

TEST(Layout, BitmapHasOneBitACluster) {
  EXPECT_EQ(Layout(1, Geometry{}).bitmap().bytes(), 1u);
  EXPECT_EQ(Layout(8 * kClusterSize, Geometry{}).bitmap().bytes(), 1u);
  EXPECT_EQ(Layout(8 * kClusterSize + 1, Geometry{}).bitmap().bytes(), 2u);
}

TEST(Layout, WritersPadTheBitmapTo65536Bytes) {
  EXPECT_EQ(Layout(1, Geometry{}).bitmap().padded_end(), 4096u + 65536u);
  EXPECT_EQ(Layout(32 * kGiB, Geometry{}).bitmap().padded_end(), 4096u + 65536u);
  EXPECT_EQ(Layout(32 * kGiB + 1, Geometry{}).bitmap().padded_end(), 4096u + 131072u);
}

TEST(Layout, LargestDiskDoesNotOverflow) {
  const Layout layout(kMaxOffset, Geometry{});
  EXPECT_EQ(layout.clusters(), uint64_t{1} << 47);
  EXPECT_EQ(layout.End(layout.clusters()), kMaxOffset);
  EXPECT_EQ(layout.bitmap().bytes(), uint64_t{1} << 44);
}

TEST(Layout, TouchedIsEveryClusterThatHasAByteOfTheRange) {
  EXPECT_EQ(kLargest.Touched(0, 1), (ClusterRange{0, 1}));
  EXPECT_EQ(kLargest.Touched(65535, 1), (ClusterRange{0, 1}));
  EXPECT_EQ(kLargest.Touched(65535, 2), (ClusterRange{0, 2}));
  EXPECT_EQ(kLargest.Touched(65536, 65536), (ClusterRange{1, 1}));
  EXPECT_EQ(kLargest.Touched(65536, 65537), (ClusterRange{1, 2}));
}

TEST(Layout, HasAnyClusterSize) {
  const Layout small(65536 + 100, {.cluster_size = 4096, .header_size = 4096, .padding = 4096});
  EXPECT_EQ(small.cluster_size(), 4096u);
  EXPECT_EQ(small.clusters(), 17u);
  EXPECT_EQ(small.bitmap().bytes(), 3u);
  EXPECT_EQ(small.End(17), 65636u);
  EXPECT_EQ(small.Touched(4095, 2), (ClusterRange{0, 2}));
  const Layout large(5 * kMiB,
                     {.cluster_size = 2 * kMiB, .header_size = 2 * kMiB, .padding = 2 * kMiB});
  EXPECT_EQ(large.clusters(), 3u);
  EXPECT_EQ(large.Start(2), 4 * kMiB);
  EXPECT_EQ(large.Touched(2 * kMiB - 1, 2), (ClusterRange{0, 2}));
  EXPECT_EQ(large.bitmap().offset, 2 * kMiB);
  EXPECT_EQ(large.bitmap().padded_end(), 4 * kMiB);
  EXPECT_EQ(large.subcluster_bitmap().offset, 4 * kMiB);
  EXPECT_EQ(large.subcluster_bitmap().padded_end(), 6 * kMiB);
}

}  // namespace
}  // namespace addcow
