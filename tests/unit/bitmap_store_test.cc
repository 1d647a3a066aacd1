// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/bitmap_store: loading from sparse and short files, and the two
// phases of writing.

#include "common/image/bitmap_store.h"

#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/fake_file.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/random.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class BitmapStoreTest : public testing::Test {
 protected:
  // A disk of so many clusters, its add-cow file padded as by a writer.
  void Make(uint64_t clusters, std::optional<uint64_t> file_bytes = {}) {
    layout_.emplace(clusters * kClusterSize, Geometry{});
    inode_ = std::make_shared<FakeInode>();
    ASSERT_TRUE(inode_->Truncate(file_bytes ? kBitmapOffset + *file_bytes
                                            : layout_->bitmap().padded_end()));
    Reopen();
  }

  // As a new process finds the file.
  void Reopen() {
    store_.reset();
    auto bitmap = AllocationBitmap::Create(layout_->clusters(), "x.add-cow");
    ASSERT_OK(bitmap);
    bitmap_ = std::move(*bitmap);
    file_ = std::make_unique<ForwardingFile>(
        std::make_unique<ForwardingFile>(std::make_unique<FakeFile>("x.add-cow", inode_),
                                         faults_),
        log_);
    store_.emplace(*file_, *bitmap_, layout_->bitmap());
  }

  void PutBits(uint64_t byte, std::vector<uint8_t> bits) {
    ASSERT_TRUE(inode_->Write(std::as_bytes(std::span(bits)), kBitmapOffset + byte));
  }
  uint8_t BitsOnDisk(uint64_t byte) const {
    return static_cast<uint8_t>(inode_->Bytes(kBitmapOffset + byte, 1)[0]);
  }
  std::vector<uint64_t> Allocated() const {
    std::vector<uint64_t> clusters;
    for (uint64_t i = 0; i < bitmap_->clusters(); i++)
      if (bitmap_->Test(i)) clusters.push_back(i);
    return clusters;
  }
  void Flush() { ASSERT_OK(store_->Write(store_->Take())); }

  std::optional<Layout> layout_;
  std::shared_ptr<FakeInode> inode_;
  FaultPlan faults_;
  OperationLog log_;
  std::unique_ptr<File> file_;
  std::unique_ptr<AllocationBitmap> bitmap_;
  std::optional<BitmapStore> store_;
};

using ClusterNumbers = std::vector<uint64_t>;

TEST_F(BitmapStoreTest, LoadsBitNMod8OfByteNDiv8) {
  Make(100);
  PutBits(0, {0x01, 0x80});
  PutBits(12, {0x08});
  ASSERT_OK(store_->Load());
  EXPECT_EQ(Allocated(), (ClusterNumbers{0, 15, 99}));
}

TEST_F(BitmapStoreTest, LoadCountsTheBits) {
  Make(100);
  PutBits(3, {0xff, 0x01});
  ASSERT_OK(store_->Load());
  EXPECT_EQ(bitmap_->allocated(), 9u);
}

TEST_F(BitmapStoreTest, LoadIgnoresBitsPastTheLastCluster) {
  Make(9);
  PutBits(0, {0x00, 0xff, 0xff, 0xff});
  ASSERT_OK(store_->Load());
  EXPECT_EQ(Allocated(), ClusterNumbers{8});
}

TEST_F(BitmapStoreTest, LoadNeedsNoPadding) {
  for (uint64_t bytes = 1; bytes <= 17; bytes++) {
    Make(bytes * 8, bytes);
    PutBits(bytes - 1, {0x80});
    ASSERT_OK(store_->Load());
    EXPECT_EQ(Allocated(), ClusterNumbers{bytes * 8 - 1});
  }
}

TEST_F(BitmapStoreTest, LoadReadsOnlyWhereTheFileHasStorage) {
  Make(40 * kMiB);  // 5 MiB of bitmap
  PutBits(4 * kMiB + 5, {0x02});
  ASSERT_OK(store_->Load());
  EXPECT_EQ(bitmap_->allocated(), 1u);
  EXPECT_TRUE(bitmap_->Test((4 * kMiB + 5) * 8 + 1));
  uint64_t bytes = 0;
  for (const auto& record :
       log_.Records([](const Operation& op) { return op.kind == OpKind::kRead; }))
    bytes += record.operation.length;
  EXPECT_LE(bytes, 2 * FakeInode::kBlockSize);
}

TEST_F(BitmapStoreTest, LoadReadsAllWhereHolesAreNotKnown) {
  Make(20 * kMiB);
  PutBits(kMiB + 5, {0x02});
  inode_->SetAbilities({.seek = false});
  ASSERT_OK(store_->Load());
  EXPECT_EQ(Allocated(), ClusterNumbers{(kMiB + 5) * 8 + 1});
}

TEST_F(BitmapStoreTest, LoadsAnyPatternAsItIs) {
  Random random(TestSeed());
  for (const uint64_t clusters : {1u, 64u, 65u, 100000u}) {
    Make(clusters);
    ClusterNumbers expected;
    for (uint64_t i = 0; i < clusters; i++) {
      if (!random.OneIn(3)) continue;
      expected.push_back(i);
      PutBits(i / 8, {static_cast<uint8_t>(BitsOnDisk(i / 8) | 1u << (i % 8))});
    }
    ASSERT_OK(store_->Load());
    EXPECT_EQ(Allocated(), expected);
  }
}

TEST_F(BitmapStoreTest, LoadPassesAReadErrorOn) {
  Make(100);
  PutBits(0, {1});
  faults_.Set({.at = 1, .where = [](const Operation& op) { return op.kind == OpKind::kRead; }});
  EXPECT_TRUE(FailsWith(store_->Load(), EIO));
}

TEST_F(BitmapStoreTest, AllocateSetsTheLiveBitsAndWritesNothing) {
  Make(100);
  store_->Allocate({60, 10});
  EXPECT_EQ(bitmap_->allocated(), 10u);
  EXPECT_EQ(log_.Changes(), std::vector<std::string>{});
}

TEST_F(BitmapStoreTest, WriteBringsTakenBitsToTheFile) {
  Make(100);
  store_->Allocate({7, 2});
  Flush();
  EXPECT_EQ(BitsOnDisk(0), 0x80);
  EXPECT_EQ(BitsOnDisk(1), 0x01);
}

TEST_F(BitmapStoreTest, WrittenBitsLoadAgain) {
  Make(100000);
  store_->Allocate({3, 1});
  store_->Allocate({32767, 2});  // two pages
  store_->Allocate({99999, 1});
  Flush();
  Reopen();
  ASSERT_OK(store_->Load());
  EXPECT_EQ(Allocated(), (ClusterNumbers{3, 32767, 32768, 99999}));
}

TEST_F(BitmapStoreTest, WriteKeepsWhatWasLoaded) {
  Make(100);
  PutBits(0, {0x05});
  ASSERT_OK(store_->Load());
  store_->Allocate({1, 1});
  Flush();
  EXPECT_EQ(BitsOnDisk(0), 0x07);
}

TEST_F(BitmapStoreTest, BitsAllocatedAfterTakeAreNotWritten) {
  Make(100);
  store_->Allocate({0, 1});
  const auto taken = store_->Take();
  store_->Allocate({1, 1});
  ASSERT_OK(store_->Write(taken));
  EXPECT_EQ(BitsOnDisk(0), 0x01);
}

TEST_F(BitmapStoreTest, BitsAllocatedAfterTakeAreNotWrittenWhateverThePage) {
  Make(200000);
  for (uint64_t cluster = 0; cluster < 199000; cluster += 30000) {
    store_->Allocate({cluster, 1});
    const auto taken = store_->Take();
    store_->Allocate({cluster + 1, 1});
    ASSERT_OK(store_->Write(taken));
    EXPECT_EQ(BitsOnDisk(cluster / 8), 1u << (cluster % 8)) << cluster;
  }
}

TEST_F(BitmapStoreTest, BitsAllocatedAfterTakeAreWrittenNextTime) {
  Make(100);
  store_->Allocate({0, 1});
  const auto taken = store_->Take();
  store_->Allocate({1, 1});
  ASSERT_OK(store_->Write(taken));
  Flush();
  EXPECT_EQ(BitsOnDisk(0), 0x03);
}

TEST_F(BitmapStoreTest, AllocatingAnAllocatedClusterMakesNothingPending) {
  Make(100);
  store_->Allocate({0, 4});
  Flush();
  store_->Allocate({1, 2});
  EXPECT_TRUE(store_->Take().empty());
}

TEST_F(BitmapStoreTest, TakeTwiceGivesNothingTheSecondTime) {
  Make(100);
  store_->Allocate({0, 4});
  EXPECT_FALSE(store_->Take().empty());
  EXPECT_TRUE(store_->Take().empty());
}

TEST_F(BitmapStoreTest, WritesOnlyPagesThatChanged) {
  Make(200000);  // seven pages
  store_->Allocate({40000, 1});
  store_->Allocate({199000, 1});
  Flush();
  EXPECT_EQ(log_.Changes(), (std::vector<std::string>{"write x.add-cow 8192+4096",
                                                      "write x.add-cow 28672+424"}));
}

TEST_F(BitmapStoreTest, NeverWritesPastTheBitmapsEnd) {
  Make(9, 2);
  store_->Allocate({0, 9});
  Flush();
  EXPECT_EQ(inode_->size(), kBitmapOffset + 2);
}

TEST_F(BitmapStoreTest, BitsPastTheLastClusterAreWrittenAsZero) {
  Make(9);
  PutBits(1, {0xfe});
  ASSERT_OK(store_->Load());
  store_->Allocate({8, 1});
  Flush();
  EXPECT_EQ(BitsOnDisk(1), 0x01);
}

TEST_F(BitmapStoreTest, PutBackMakesTakenBitsPendingAgain) {
  Make(100);
  store_->Allocate({0, 1});
  auto taken = store_->Take();
  store_->Allocate({1, 1});
  store_->PutBack(std::move(taken));
  Flush();
  EXPECT_EQ(BitsOnDisk(0), 0x03);
}

TEST_F(BitmapStoreTest, BitsPutBackAreNotWrittenByAnotherPagesFlush) {
  Make(100);
  store_->Allocate({0, 1});
  const auto first = store_->Take();
  store_->Allocate({1, 1});
  auto second = store_->Take();
  store_->PutBack(std::move(second));
  ASSERT_OK(store_->Write(first));
  EXPECT_EQ(BitsOnDisk(0), 0x01);
}

// Durable bits.

TEST_F(BitmapStoreTest, NothingIsDurableAtFirst) {
  Make(100);
  EXPECT_FALSE(store_->IsDurable({0, 1}));
}

// They may come from a process that was killed before it synced them.
TEST_F(BitmapStoreTest, BitsThatWereFoundAreDurableOnceSomethingWasPublished) {
  Make(100);
  PutBits(0, {0x03});
  ASSERT_OK(store_->Load());
  EXPECT_FALSE(store_->IsDurable({0, 2}));
  EXPECT_TRUE(store_->Take().empty());
  store_->Published();
  EXPECT_TRUE(store_->IsDurable({0, 2}));
  EXPECT_FALSE(store_->IsDurable({0, 3}));
  EXPECT_FALSE(store_->IsDurable({2, 1}));
}

TEST_F(BitmapStoreTest, BitIsDurableOnlyWhenItWasPublished) {
  Make(100);
  store_->Published();
  store_->Allocate({5, 1});
  EXPECT_FALSE(store_->IsDurable({5, 1}));
  const auto taken = store_->Take();
  EXPECT_FALSE(store_->IsDurable({5, 1}));
  ASSERT_OK(store_->Write(taken));
  EXPECT_FALSE(store_->IsDurable({5, 1}));
  store_->Published();
  EXPECT_TRUE(store_->IsDurable({5, 1}));
}

TEST_F(BitmapStoreTest, BitThatWasPutBackIsNotDurable) {
  Make(100);
  store_->Published();
  store_->Allocate({5, 1});
  store_->PutBack(store_->Take());
  EXPECT_FALSE(store_->IsDurable({5, 1}));
  const auto taken = store_->Take();
  EXPECT_FALSE(taken.empty());
  ASSERT_OK(store_->Write(taken));
  store_->Published();
  EXPECT_TRUE(store_->IsDurable({5, 1}));
}

TEST_F(BitmapStoreTest, BitAllocatedAfterTakeIsNotPublishedWithTheOthers) {
  Make(100);
  store_->Allocate({5, 1});
  const auto taken = store_->Take();
  store_->Allocate({6, 1});
  ASSERT_OK(store_->Write(taken));
  store_->Published();
  EXPECT_TRUE(store_->IsDurable({5, 1}));
  EXPECT_FALSE(store_->IsDurable({6, 1}));
  EXPECT_FALSE(store_->IsDurable({5, 2}));
}

TEST_F(BitmapStoreTest, RangeIsDurableWhereEveryBitIsWhateverThePages) {
  Make(200000);
  store_->Allocate({0, 200000});
  store_->Take();
  store_->Published();
  EXPECT_TRUE(store_->IsDurable({0, 200000}));
  // Bits on their way in a page are not those of its neighbours.
  Make(200000);
  store_->Allocate({32768, 2});
  store_->Allocate({98304, 1});
  store_->Take();
  store_->Published();
  store_->Allocate({32766, 2});
  store_->Allocate({32770, 1});
  for (const bool taken : {false, true}) {
    if (taken) store_->Take();
    EXPECT_TRUE(store_->IsDurable({32768, 2})) << taken;
    EXPECT_TRUE(store_->IsDurable({98304, 1})) << taken;
    EXPECT_FALSE(store_->IsDurable({32767, 1})) << taken;
    EXPECT_FALSE(store_->IsDurable({32767, 2})) << taken;
    EXPECT_FALSE(store_->IsDurable({32768, 3})) << taken;
    EXPECT_FALSE(store_->IsDurable({32766, 5})) << taken;
  }
}

TEST_F(BitmapStoreTest, FailedWriteIsAnError) {
  Make(100);
  store_->Allocate({0, 1});
  faults_.Set({.at = 1, .error = ENOSPC, .where = ChangesOrSyncs});
  EXPECT_TRUE(FailsWith(store_->Write(store_->Take()), ENOSPC));
}

}  // namespace
}  // namespace addcow
