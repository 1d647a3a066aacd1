// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/bitmap_storage: the bitmap has storage before a bit is set, and
// nothing that it holds is changed by that.

#include "common/image/bitmap_storage.h"

#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/fake_file.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kClustersAPage = kPage * 8;

class BitmapStorageTest : public testing::Test {
 protected:
  using Lines = std::vector<std::string>;

  // A disk whose bitmap has so many bytes; its add-cow file, all a hole.
  void Make(uint64_t bitmap_bytes, const FakeInode::Abilities& abilities = {}) {
    layout_.emplace(bitmap_bytes * 8 * kClusterSize, Geometry{});
    inode_ = std::make_shared<FakeInode>();
    ASSERT_TRUE(inode_->Truncate(layout_->bitmap().padded_end()));
    inode_->SetAbilities(abilities);
    Reopen();
  }
  void Reopen() {
    file_ = std::make_unique<ForwardingFile>(
        std::make_unique<ForwardingFile>(std::make_unique<FakeFile>("x.add-cow", inode_),
                                         faults_),
        log_);
    ASSERT_OK_AND_ASSIGN(storage_, BitmapStorage::Create(*file_, layout_->bitmap()));
    log_.Clear();
  }
  Lines Writes() const {
    return log_.Lines([](const Operation& operation) {
      return operation.kind == OpKind::kWrite || operation.kind == OpKind::kReserve;
    });
  }
  uint64_t Stored() const { return inode_->Info()->allocated_bytes; }

  std::optional<Layout> layout_;
  std::shared_ptr<FakeInode> inode_;
  FaultPlan faults_;
  OperationLog log_;
  std::unique_ptr<File> file_;
  std::unique_ptr<BitmapStorage> storage_;
};

TEST_F(BitmapStorageTest, AllIsReservedAndNothingWritten) {
  Make(3 * kPage);
  ASSERT_OK(storage_->TakeAll());
  EXPECT_EQ(Writes(), Lines{"reserve x.add-cow 4096+12288"});
  EXPECT_EQ(Stored(), 3 * kPage);
  EXPECT_FALSE(inode_->SeekData(0)) << "reserved space counts as data";
  ASSERT_OK(storage_->Take({0, 3 * kClustersAPage}));
  EXPECT_EQ(Writes().size(), 1u);
}

TEST_F(BitmapStorageTest, WhatHasStorageIsLeftAlone) {
  Make(3 * kPage);
  ASSERT_OK(storage_->TakeAll());
  ASSERT_TRUE(inode_->Write(Repeat(1, 1), kBitmapOffset + 5000));
  Reopen();
  ASSERT_OK(storage_->TakeAll());
  EXPECT_EQ(Writes(), Lines{});
}

TEST_F(BitmapStorageTest, WithoutReservationZeroesAreWrittenWhereHolesAre) {
  for (const bool seek : {true, false}) {
    Make(4 * kPage, {.seek = seek, .reserve = false, .storage_at = seek});
    ASSERT_TRUE(inode_->Write(Repeat(0xa5, 10), kBitmapOffset + kPage + 7));
    const auto before = inode_->Bytes(0, inode_->size());
    ASSERT_OK(storage_->TakeAll());
    EXPECT_EQ(
        log_.Lines([](const Operation& operation) { return operation.kind == OpKind::kWrite; }),
        (Lines{"write x.add-cow 4096+4096", "write x.add-cow 12288+4096",
               "write x.add-cow 16384+4096"}));
    EXPECT_EQ(inode_->Bytes(0, inode_->size()), before);
    EXPECT_EQ(Stored(), 4 * kPage);
  }
}

// A file system that calls written bits a hole, since they wait in a cache.
TEST_F(BitmapStorageTest, BitsThatPassForAHoleAreNotWrittenOver) {
  Make(2 * kPage, {.reserve = false, .storage_at = false});
  ASSERT_TRUE(inode_->Write(Repeat(0xff, 1), kBitmapOffset + 100));
  faults_.Set({.at = 1,
               .error = ENXIO,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kSeekData;
               }});
  ASSERT_OK(storage_->TakeAll());
  EXPECT_EQ(inode_->Bytes(kBitmapOffset + 100, 1), Repeat(0xff, 1));
}

TEST_F(BitmapStorageTest, LastBytesOfABitmapAreNotPassed) {
  for (const bool reserve : {true, false}) {
    Make(kPage + 10, {.reserve = reserve});
    ASSERT_TRUE(inode_->Truncate(kBitmapOffset + kPage + 10));  // not padded
    ASSERT_OK(storage_->TakeAll());
    EXPECT_EQ(inode_->size(), kBitmapOffset + kPage + 10);
    EXPECT_EQ(Stored(), 2 * kPage);
  }
}

// 8 EiB: the bitmap of the largest disk there can be.
TEST_F(BitmapStorageTest, WhatIsTooMuchComesPageByPage) {
  for (const bool reserve : {true, false}) {
    const uint64_t bytes = reserve ? uint64_t{1} << 44 : 2 * BitmapStorage::kMostWritten;
    Make(bytes, {.reserve = reserve});
    ASSERT_OK(storage_->TakeAll());
    EXPECT_EQ(Stored(), 0u);
    const uint64_t page = bytes / kPage / 3;
    ASSERT_OK(storage_->Take({page * kClustersAPage - 1, 2}));  // over two pages
    EXPECT_EQ(Stored(), 2 * kPage);
    EXPECT_TRUE(inode_->StorageAt(kBitmapOffset + page * kPage, 1)->present);
    log_.Clear();
    ASSERT_OK(storage_->Take({page * kClustersAPage + 7, 1}));
    EXPECT_EQ(Writes(), Lines{}) << "taken twice";
  }
}

TEST_F(BitmapStorageTest, AFullFileSystemIsNotFilledUp) {
  Make(8 * kPage, {.most_blocks = 20});  // 8 of 20 blocks: more than a quarter
  ASSERT_OK(storage_->TakeAll());
  EXPECT_EQ(Stored(), 0u);
  ASSERT_OK(storage_->Take({0, 1}));
  EXPECT_EQ(Stored(), kPage);
}

TEST_F(BitmapStorageTest, WriteThatNeedsAPageFailsWhereThereIsNoRoom) {
  for (const bool reserve : {true, false}) {
    Make(8 * kPage, {.reserve = reserve, .most_blocks = 1});
    ASSERT_OK(storage_->TakeAll());
    ASSERT_OK(storage_->Take({5, 1}));
    EXPECT_TRUE(FailsWith(storage_->Take({kClustersAPage, 1}), ENOSPC));
    ASSERT_OK(storage_->Take({17, 100}));
    inode_->SetAbilities({.reserve = reserve, .most_blocks = 2});
    ASSERT_OK(storage_->Take({kClustersAPage, 1})) << "room came, but was not looked for";
  }
}

TEST_F(BitmapStorageTest, PagePastTheLimitOfFileSizesCannotBeHad) {
  Make(8 * kPage, {.size_limit = kBitmapOffset + 3 * kPage});
  ASSERT_OK(storage_->TakeAll());
  ASSERT_OK(storage_->Take({3 * kClustersAPage - 1, 1}));
  EXPECT_TRUE(FailsWith(storage_->Take({3 * kClustersAPage, 1}), EFBIG));
}

TEST_F(BitmapStorageTest, StoragePastTheLimitDoesNotCount) {
  Make(8 * kPage);
  ASSERT_OK(storage_->TakeAll());
  inode_->SetAbilities({.size_limit = kBitmapOffset + 3 * kPage});
  Reopen();
  ASSERT_OK(storage_->TakeAll());
  EXPECT_TRUE(FailsWith(storage_->Take({3 * kClustersAPage, 1}), EFBIG));
}

TEST_F(BitmapStorageTest, OtherFailuresAreReported) {
  Make(8 * kPage);
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kReserve;
               }});
  EXPECT_TRUE(FailsWith(storage_->TakeAll(), EIO));
}

TEST_F(BitmapStorageTest, DeviceHasItsStorage) {
  Make(8 * kPage, {.is_block_device = true});
  ASSERT_OK(storage_->TakeAll());
  ASSERT_OK(storage_->Take({5, 1}));
  EXPECT_EQ(Writes(), Lines{});
}

}  // namespace
}  // namespace addcow
