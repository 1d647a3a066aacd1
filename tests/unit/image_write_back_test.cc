// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: files on a file system that tells holes without what no sync
// has covered, as FUSE does with a write-back cache.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

class ImageWriteBack : public ImageFixture {
 protected:
  void MakeOnFuse(const ImageSpec& spec, OpenMode mode = OpenMode::kReadWrite) {
    Make(spec);
    image_.reset();
    for (const char* path : {kAddCowPath, kImagePath, kBackingPath})
      if (fake_.Find(path) != nullptr)
        Inode(path).SetAbilities({.well_known = false, .seek_knows_unsynced = false});
    if (before_open_) before_open_();
    Reopen(mode);
  }
  // The extents as "DATA or HOLE, length".
  std::vector<std::pair<bool, uint64_t>> Map() {
    std::vector<std::pair<bool, uint64_t>> found;
    EXPECT_OK(image_->Map(0, image_->virtual_size(), [&](const Extent& extent) {
      if (!found.empty() && found.back().first == extent.data)
        found.back().second += extent.length;
      else
        found.emplace_back(extent.data, extent.length);
      return true;
    }));
    return found;
  }
  using Extents = std::vector<std::pair<bool, uint64_t>>;

  std::function<void()> before_open_;
};

TEST_F(ImageWriteBack, WrittenBytesAreDataBeforeAFlushAndAfterIt) {
  MakeOnFuse({.backing_size = std::nullopt, .garbage = false});
  Write(kC, kC);
  EXPECT_EQ(Map(), (Extents{{false, kC}, {true, kC}, {false, 2 * kC}}));
  Write(3 * kC, kC);
  ASSERT_OK(image_->Flush());
  EXPECT_EQ(Map(), (Extents{{false, kC}, {true, kC}, {false, kC}, {true, kC}}));
  Write(kC, kC);
  EXPECT_EQ(Map(), (Extents{{false, kC}, {true, kC}, {false, kC}, {true, kC}}));
}

// A write that failed half way has left bytes under a 0 bit.
TEST_F(ImageWriteBack, ZeroingDoesNotTakeUnsyncedBytesForAHole) {
  MakeOnFuse({.backing_data = std::vector<ByteRange>{{0, 512}}, .garbage = false});
  faults_.Set({.at = 1,
               .error = ENOSPC,
               .effect = FaultPlan::Effect::kTorn,
               .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kImagePath;
               }});
  EXPECT_FALSE(image_->Write(Repeat(9, kC), 0));
  faults_.Clear();
  ASSERT_EQ(Inode(kImagePath).Bytes(8192, 1), Repeat(9, 1)) << "nothing was left";
  ASSERT_OK(image_->CopyUp({0, 1}));
  ExpectAsReference();
}

// Another process wrote them, and no sync has covered them yet.
TEST_F(ImageWriteBack, BitsThatNoSyncHasCoveredAreLoaded) {
  before_open_ = [&] { (void)Inode(kAddCowPath).Write(Repeat(0b101, 1), kBitmapOffset); };
  MakeOnFuse({});
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_FALSE(IsAllocated(1));
  EXPECT_TRUE(IsAllocated(2));
}

TEST_F(ImageWriteBack, BitsThatCannotBeSyncedAreReadAll) {
  before_open_ = [&] {
    (void)Inode(kAddCowPath).Write(Repeat(0b101, 1), kBitmapOffset);
    faults_.Set({.at = 1,
                 .error = EROFS,
                 .lasting = FaultPlan::Lasting::kPersistent,
                 .where = [](const Operation& operation) { return IsSync(operation.kind); }});
  };
  MakeOnFuse({}, OpenMode::kReadOnly);
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_TRUE(IsAllocated(2));
}

TEST_F(ImageWriteBack, BackingFileThatNoSyncHasCoveredIsNoHole) {
  std::vector<std::byte> bytes = random_.Bytes(kC);
  before_open_ = [&] { (void)Inode(kBackingPath).Write(bytes, kC); };
  MakeOnFuse({.backing_data = std::vector<ByteRange>{}, .garbage = false});
  EXPECT_EQ(Map(), (Extents{{false, kC}, {true, kC}, {false, 2 * kC}}));
  ASSERT_OK(image_->CopyUp({0, 4}));
  EXPECT_EQ(Difference(Read(kC, kC), bytes), "");
}

// What the last process left counts too.
TEST_F(ImageWriteBack, ImageFileThatNoSyncHasCoveredIsNoHole) {
  for (const OpenMode mode : {OpenMode::kReadWrite, OpenMode::kReadOnly}) {
    before_open_ = [&] { (void)Inode(kImagePath).Write(Repeat(5, kC), 2 * kC); };
    MakeOnFuse({.garbage = false, .all_allocated = true}, mode);
    EXPECT_EQ(Map(), (Extents{{false, 2 * kC}, {true, kC}, {false, kC}}));
  }
}

}  // namespace
}  // namespace addcow
