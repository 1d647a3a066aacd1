// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/io/cloner, and copy-up that shares storage where it can: what is
// cloned, what is copied around it, and how often that is asked in vain.

#include "common/io/cloner.h"

#include <gtest/gtest.h>

#include "tests/support/engine_lines.h"
#include "tests/support/fake_file.h"

namespace addcow {
namespace {

using Lines = std::vector<std::string>;

class ClonerTest : public testing::Test {
 protected:
  ClonerTest() {
    (void)from_inode_->Write(Repeat(1, 65536), 0);
    (void)to_inode_->Write(Repeat(2, 65536), 0);
    SetAbilities(true, true);
  }
  void SetAbilities(bool from, bool to) {
    from_inode_->SetAbilities({.clone = from});
    to_inode_->SetAbilities({.clone = to});
  }

  const std::shared_ptr<FakeInode> from_inode_ = std::make_shared<FakeInode>();
  const std::shared_ptr<FakeInode> to_inode_ = std::make_shared<FakeInode>();
  FaultPlan faults_;
  OperationLog log_;
  ForwardingFile from_{std::make_unique<FakeFile>("from", from_inode_), log_};
  ForwardingFile to_{
      std::make_unique<ForwardingFile>(std::make_unique<FakeFile>("to", to_inode_), faults_),
      log_};
  Cloner cloner_{&from_, to_};
};

TEST_F(ClonerTest, MakesTheRangeTheSame) {
  EXPECT_TRUE(cloner_.Clone(4096, 8192));
  EXPECT_EQ(log_.Changes(), Lines{"clone to 4096+8192"});
  EXPECT_EQ(to_inode_->Bytes(0, 4096), Repeat(2, 4096));
  EXPECT_EQ(to_inode_->Bytes(4096, 8192), Repeat(1, 8192));
  EXPECT_EQ(to_inode_->Bytes(12288, 4096), Repeat(2, 4096));
  EXPECT_TRUE(cloner_.able());
}

TEST_F(ClonerTest, LaterWritesStayInTheirFile) {
  ASSERT_TRUE(cloner_.Clone(0, 65536));
  ASSERT_OK(to_.Write(Repeat(3, 100), 50));
  ASSERT_OK(from_.Write(Repeat(4, 100), 5000));
  EXPECT_EQ(from_inode_->Bytes(50, 100), Repeat(1, 100));
  EXPECT_EQ(to_inode_->Bytes(5000, 100), Repeat(1, 100));
}

TEST_F(ClonerTest, WhatCannotBeDoneIsAskedOnce) {
  for (const bool from : {true, false}) {
    SetAbilities(from, !from);
    Cloner cloner(&from_, to_);
    log_.Clear();
    EXPECT_FALSE(cloner.Clone(0, 4096));
    EXPECT_FALSE(cloner.Clone(0, 4096));
    EXPECT_FALSE(cloner.able());
    EXPECT_EQ(log_.Count(OpKind::kClone), 1u);
    EXPECT_EQ(to_inode_->Bytes(0, 4096), Repeat(2, 4096));
  }
}

TEST_F(ClonerTest, OtherErrorsAreOfOneRangeOnly) {
  for (const int error : {EIO, ENOSPC, EINVAL}) {
    faults_.Set({.at = 1, .error = error});
    EXPECT_FALSE(cloner_.Clone(0, 4096)) << error;
    EXPECT_TRUE(cloner_.able()) << error;
    EXPECT_TRUE(cloner_.Clone(0, 4096)) << error;
  }
}

TEST_F(ClonerTest, WithoutAFileToCloneFromNothingIsAsked) {
  Cloner cloner(nullptr, to_);
  EXPECT_FALSE(cloner.able());
  EXPECT_FALSE(cloner.Clone(0, 4096));
  EXPECT_EQ(log_.Changes(), Lines{});
}

class CloningCopyUp : public EngineLines {
 protected:
  // The image file has no storage yet, unless told otherwise.
  void MakeCloning(ImageSpec spec, bool garbage = false) {
    spec.garbage = garbage;
    Make(spec);
    for (const char* path : {kImagePath, kBackingPath})
      Inode(path).SetAbilities({.clone = true});
  }
  Lines CopyUp(ClusterRange range) {
    log_.Clear();
    EXPECT_OK(image_->CopyUp(range));
    return log_.Changes();
  }
};

TEST_F(CloningCopyUp, SharesStorageAndReadsNothing) {
  MakeCloning({});
  EXPECT_EQ(CopyUp({1, 2}), Lines{"clone /vm/disk.raw 65536+131072"});
  EXPECT_EQ(log_.Count(OpKind::kRead), 0u);
  ExpectImageFileAsReference(1);
  ExpectImageFileAsReference(2);
  ExpectAsReference();
}

TEST_F(CloningCopyUp, BackingFileIsNotWrittenThroughTheSharedStorage) {
  MakeCloning({});
  const auto before = Inode(kBackingPath).Bytes(0, 4 * kC);
  CopyUp({0, 4});
  Write(100, 100000);
  Zero(150000, 100);
  EXPECT_EQ(Inode(kBackingPath).Bytes(0, 4 * kC), before);
  ExpectAsReference();
}

TEST_F(CloningCopyUp, HolesOfTheBackingFileStayHoles) {
  MakeCloning({.backing_data = {{{0, 4096}, {20480, 8192}}}});
  EXPECT_EQ(CopyUp({0, 1}),
            (Lines{"clone /vm/disk.raw 0+4096", "clone /vm/disk.raw 20480+8192"}));
  EXPECT_TRUE(IsHole(kImagePath, 4096, 16384));
  ExpectAsReference();
}

TEST_F(CloningCopyUp, EndOfTheBackingFileInsideABlockIsCopied) {
  MakeCloning({.backing_size = kC + 5000});
  EXPECT_EQ(CopyUp({1, 1}),
            (Lines{"clone /vm/disk.raw 65536+4096", "write /vm/disk.raw 69632+904",
                   "zero range /vm/disk.raw 70536+3192"}));
  EXPECT_EQ(log_.Count(OpKind::kRead), 1u);
  ExpectAsReference();
}

TEST_F(CloningCopyUp, SharesAroundSubclusters) {
  MakeCloning({});
  Write(4096, 4096);
  EXPECT_EQ(CopyUp({0, 1}),
            (Lines{"clone /vm/disk.raw 0+4096", "clone /vm/disk.raw 8192+57344"}));
  ExpectImageFileAsReference(0);
  ExpectAsReference();
}

TEST_F(CloningCopyUp, WhatCannotBeSharedIsAskedOnceAndCopied) {
  Make({.garbage = false});
  EXPECT_EQ(CopyUp({0, 1}),
            (Lines{"clone /vm/disk.raw 0+65536", "write /vm/disk.raw 0+65536"}));
  EXPECT_EQ(CopyUp({1, 1}), Lines{"write /vm/disk.raw 65536+65536"});
  ExpectAsReference();
}

TEST_F(CloningCopyUp, OneRangeThatCannotBeSharedIsCopied) {
  MakeCloning({});
  faults_.Set({.at = 1, .error = ENOSPC, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kClone;
               }});
  EXPECT_EQ(CopyUp({0, 1}),
            (Lines{"clone /vm/disk.raw 0+65536", "write /vm/disk.raw 0+65536"}));
  EXPECT_EQ(CopyUp({1, 1}), Lines{"clone /vm/disk.raw 65536+65536"});
  ExpectAsReference();
}

// Sharing would give the storage back that somebody had reserved.
TEST_F(CloningCopyUp, StorageThatTheImageFileHasIsKept) {
  MakeCloning({});
  const auto reserve = [&](uint64_t offset, uint64_t length) {
    ASSERT_TRUE(Inode(kImagePath).Reserve(offset, length));
  };
  reserve(0, kC);            // all of cluster 0
  reserve(kC + 8192, 4096);  // one block of cluster 1
  EXPECT_EQ(CopyUp({0, 2}),
            (Lines{"write /vm/disk.raw 0+65536", "clone /vm/disk.raw 65536+8192",
                   "write /vm/disk.raw 73728+4096", "clone /vm/disk.raw 77824+53248"}));
  ExpectImageFileAsReference(0);
  ExpectImageFileAsReference(1);
  ExpectAsReference();
}

TEST_F(CloningCopyUp, OldBytesOfTheImageFileAreStorageToo) {
  MakeCloning({.backing_data = {{{0, 4096}, {20480, 8192}}}}, true);
  EXPECT_EQ(CopyUp({0, 1}),
            (Lines{"write /vm/disk.raw 0+4096", "zero range /vm/disk.raw 4096+16384",
                   "write /vm/disk.raw 20480+8192", "zero range /vm/disk.raw 28672+36864"}));
  EXPECT_EQ(Inode(kImagePath).Info()->allocated_bytes, 4 * kC);
  ExpectAsReference();
}

// Where storage cannot be told from holes, as much as the file is long counts.
TEST_F(CloningCopyUp, FileWithAllItsStorageKeepsItWhereRunsAreNotTold) {
  for (const bool full : {true, false}) {
    MakeCloning({});
    Inode(kImagePath).SetAbilities({.clone = true, .storage_at = false});
    if (full) {
      ASSERT_TRUE(Inode(kImagePath).Reserve(0, 4 * kC));
    }
    EXPECT_EQ(CopyUp({0, 1}),
              full ? Lines{"write /vm/disk.raw 0+65536"} : Lines{"clone /vm/disk.raw 0+65536"});
    ExpectAsReference();
  }
}

TEST_F(CloningCopyUp, NothingIsSharedWhereItIsNotWanted) {
  MakeCloning({});
  image_.reset();
  ImageSource source;
  source.add_cow_path = kAddCowPath;
  source.reflink = false;
  auto image = Image::Open(seam_, source, [](LogLevel, const std::string&) {});
  ASSERT_OK(image);
  image_ = std::move(*image);
  EXPECT_EQ(CopyUp({0, 1}), Lines{"write /vm/disk.raw 0+65536"});
  ExpectAsReference();
}

TEST_F(CloningCopyUp, WithoutABackingFileNothingIsAsked) {
  Make({.backing_size = {}});
  CopyUp({0, 4});
  EXPECT_EQ(log_.Count(OpKind::kClone), 0u);
  ExpectAsReference();
}

}  // namespace
}  // namespace addcow
