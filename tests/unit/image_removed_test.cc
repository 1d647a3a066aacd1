// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: files that are removed, replaced or renamed while the image is
// open. Where nobody can open one again, nothing may be acknowledged any more.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

class ImageRemoved : public ImageFixture {
 protected:
  static constexpr uint64_t kC = kClusterSize;

  void Replace(const char* path) {
    fake_.Put("/vm/other", 5 * kC);
    ASSERT_OK(fake_.Rename("/vm/other", path, RenameMode::kReplace));
  }
  void ExpectStopped(const std::string& message) {
    EXPECT_FALSE(image_->writable());
    EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 10), 0), EIO));
    EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
    ASSERT_EQ(messages_.size(), 1u);
    EXPECT_EQ(messages_[0].rfind(message, 0), 0u) << messages_[0];
    messages_.clear();
    ExpectAsReference();
  }
};

TEST_F(ImageRemoved, FlushOfARemovedFileFails) {
  for (const char* path : {kAddCowPath, kImagePath}) {
    Make({});
    Write(0, 10);
    ASSERT_OK(image_->Flush());
    ASSERT_OK(fake_.Remove(path));
    Write(0, 10);
    EXPECT_TRUE(FailsWith(image_->Flush(), EIO)) << path;
    ExpectStopped(std::string(path) + ": was removed while in use");
  }
}

TEST_F(ImageRemoved, FlushOfAReplacedFileFails) {
  for (const char* path : {kAddCowPath, kImagePath}) {
    Make({});
    Write(0, 10);
    Replace(path);
    EXPECT_TRUE(FailsWith(image_->Flush(), EIO)) << path;
    ExpectStopped(std::string(path) + ": was replaced while in use");
  }
}

TEST_F(ImageRemoved, FuaWriteFails) {
  for (const char* path : {kAddCowPath, kImagePath}) {
    Make({.allocated = {0}});
    ASSERT_OK(image_->Flush());
    ASSERT_OK(fake_.Remove(path));
    EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 512), 0, Fua::kYes), EIO)) << path;
    ExpectStopped(std::string(path) + ": was removed while in use");
  }
}

// What was flushed before has gone since.
TEST_F(ImageRemoved, CloseTellsOfItThoughNothingIsLeftToFlush) {
  Make({});
  Write(0, 10);
  ASSERT_OK(image_->Flush());
  ASSERT_OK(fake_.Remove(kImagePath));
  EXPECT_TRUE(FailsWith(image_->Close(), EIO));
  EXPECT_EQ(messages_.size(), 1u);
}

TEST_F(ImageRemoved, CloseOfAnImageThatWasNotWrittenToDoesNotLook) {
  Make({});
  ASSERT_OK(fake_.Remove(kImagePath));
  EXPECT_OK(image_->Close());
  EXPECT_TRUE(messages_.empty());
}

// It can be opened by its new name.
TEST_F(ImageRemoved, RenamedFileIsSaidOnceAndServed) {
  for (const char* path : {kAddCowPath, kImagePath}) {
    messages_.clear();
    Make({});
    Write(0, 10);
    ASSERT_OK(fake_.Rename(path, "/vm/new-name", RenameMode::kReplace));
    ASSERT_OK(image_->Flush());
    ASSERT_EQ(messages_.size(), 1u);
    EXPECT_EQ(messages_[0], std::string(path) +
                                ": leads to nothing by now: the file that was opened has "
                                "another name, and goes on being served");
    fake_.Put(path, 7);
    Write(0, 10);
    ASSERT_OK(image_->Flush());
    EXPECT_EQ(messages_.size(), 1u);
    ExpectAsReference();
    image_.reset();
    ASSERT_OK(fake_.Rename("/vm/new-name", path, RenameMode::kReplace));
    Reopen();
    ExpectAsReference();
  }
}

// So does a file system that counts none.
TEST_F(ImageRemoved, FileWithoutCountedNamesIsServedWhileItsNameLeadsToIt) {
  Make({});
  Inode(kImagePath).SetAbilities({.counts_names = false});
  Write(0, 10);
  ASSERT_OK(image_->Flush());
  ASSERT_OK(fake_.Remove(kImagePath));
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
}

TEST_F(ImageRemoved, NameThatCannotBeLookedUpSaysNothing) {
  Make({});
  Write(0, 10);
  faults_.Set({.at = 1,
               .error = EACCES,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kIdentify;
               }});
  ASSERT_OK(image_->Flush());
  EXPECT_TRUE(messages_.empty());
}

// The image file is opened three times.

TEST_F(ImageRemoved, WithoutProcTheImageFileIsOpenedByItsName) {
  Make({});
  image_.reset();
  faults_.Set(
      {.at = 1,
       .error = ENOENT,
       .lasting = FaultPlan::Lasting::kPersistent,
       .where = [](const Operation& operation) { return operation.kind == OpKind::kReopen; }});
  Reopen();
  Write(0, 10);
  ASSERT_OK(image_->Flush());
  ExpectAsReference();
}

TEST_F(ImageRemoved, FileThatIsReplacedBetweenIsNotUsed) {
  Make({});
  image_.reset();
  faults_.Set(
      {.at = 1,
       .error = ENOENT,
       .lasting = FaultPlan::Lasting::kPersistent,
       .where = [](const Operation& operation) { return operation.kind == OpKind::kReopen; }});
  Gate::Stop stop = gate_.ParkBefore([&](const Operation& operation) {
    if (operation.kind == OpKind::kReopen) Replace(kImagePath);
    return false;
  });
  EXPECT_TRUE(FailsSaying(OpenTestImage(seam_),
                          "/vm/disk.raw: was replaced by another program while it was being "
                          "opened (try again)"));
}

TEST_F(ImageRemoved, ReaderOpensTheImageFileOnce) {
  Make({});
  Reopen(OpenMode::kReadOnly);
  EXPECT_EQ(image_->files().image_sync, nullptr);
  EXPECT_EQ(image_->files().image_durable, nullptr);
}

}  // namespace
}  // namespace addcow
