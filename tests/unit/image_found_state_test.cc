// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is found may be out of date by the time that it is used: bits in the
// file that nobody has synced, holes of the image file that are holes no more.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

class FoundState : public ImageFixture {
 protected:
  size_t SyncsOfAddCowFile() const {
    return log_
        .Records([](const Operation& operation) {
          return operation.kind == OpKind::kSyncData && operation.path == kAddCowPath;
        })
        .size();
  }
};

// The bits may be in the kernel's cache only, from a server that was killed
// before it synced them. A flush that covers writes to their clusters must
// make them durable, though it has no bits of its own.
TEST_F(FoundState, FirstFlushSyncsTheBitsThatWereThereAtOpen) {
  Make({.allocated = {1}});
  Write(kC, 100);
  ASSERT_OK(image_->Flush());
  EXPECT_EQ(SyncsOfAddCowFile(), 1u);
}

TEST_F(FoundState, LaterFlushesWithoutNewBitsLeaveTheAddCowFileAlone) {
  Make({.allocated = {1}});
  ASSERT_OK(image_->Flush());
  Write(kC, 100);
  ASSERT_OK(image_->Flush());
  EXPECT_EQ(SyncsOfAddCowFile(), 1u);
}

TEST_F(FoundState, FailedFirstSyncOfTheBitsIsFinal) {
  Make({.allocated = {1}});
  Write(kC, 100);
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kSyncData && operation.path == kAddCowPath;
               }});
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_FALSE(image_->writable());
}

// So is the file's own name, from a verb that was killed: were it lost, the bits would
// be too. Who only reads promises nothing.
TEST_F(FoundState, OpeningForWritingMakesTheNameDurable) {
  for (const OpenMode mode : {OpenMode::kReadWrite, OpenMode::kReadOnly}) {
    Make({});
    image_.reset();
    log_.Clear();
    ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(seam_, kDirectory, mode));
    EXPECT_EQ(log_.Lines([](const Operation& operation) { return IsSync(operation.kind); }),
              mode == OpenMode::kReadWrite ? std::vector<std::string>{"sync directory /vm"}
                                           : std::vector<std::string>());
  }
}

TEST_F(FoundState, ADirectoryThatCannotBeSyncedIsLeftAlone) {
  Make({});
  image_.reset();
  const auto with = [&](int error) {
    faults_.Set({.at = 1, .error = error, .where = [](const Operation& operation) {
                   return operation.kind == OpKind::kSyncDirectory;
                 }});
    return OpenTestImage(seam_);
  };
  for (const int error : {EACCES, EPERM, EINVAL, ENOENT, EROFS, ENOSYS}) EXPECT_OK(with(error));
  for (const int error : {EIO, ENOSPC, EDQUOT}) EXPECT_TRUE(FailsWith(with(error), error));
}

// Clusters 0 and 2 are holes of the image file, one hole to lseek. While the
// map is at cluster 0, cluster 3 becomes allocated: its data must not be
// reported as the rest of the hole that was seen before.
TEST_F(FoundState, MapDoesNotTakeADataClusterForAHoleSeenBeforeItWasAllocated) {
  Make({.size = 4 * kC,
        .backing_size = 4 * kC,
        .backing_data = {{{3 * kC, kC}}},
        .garbage = false,
        .allocated = {0, 2}});
  bool written = false;
  bool hole_in_cluster_3 = false;
  ASSERT_OK(image_->Map(0, 4 * kC, [&](const Extent& extent) {
    if (!written) Write(3 * kC, 512);
    written = true;
    if (!extent.data && extent.offset + extent.length > 3 * kC) hole_in_cluster_3 = true;
    return true;
  }));
  EXPECT_TRUE(written);
  EXPECT_FALSE(hole_in_cluster_3);
}

}  // namespace
}  // namespace addcow
