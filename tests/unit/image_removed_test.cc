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
  void Replace(const char* path) {
    fake_.Put("/vm/other", 5 * kC);
    ASSERT_OK(fake_.Rename("/vm/other", path, RenameMode::kReplace));
  }
  // From the next opening on.
  void TakeProcAway() {
    faults_.Set({.at = 1,
                 .error = ENOENT,
                 .lasting = FaultPlan::Lasting::kPersistent,
                 .where = [](const Operation& operation) {
                   return operation.kind == OpKind::kReopen;
                 }});
  }
  // By a call that gave `failed`, whose error alone says what it means.
  void ExpectStopped(const Status& failed, const std::string& file, const std::string& how) {
    EXPECT_TRUE(FailsWith(failed, EIO)) << file;
    EXPECT_TRUE(
        FailsSaying(failed, file + ": was " + how +
                                " while in use: the file in use has no name any more, so "
                                "nobody can open it again (a server goes on reading it: copy "
                                "the disk from there); read only from here on: writes that "
                                "were not flushed may be lost"));
    EXPECT_FALSE(image_->writable());
    EXPECT_TRUE(FailsSaying(image_->Write(Repeat(1, 10), 0), "write refused"));
    EXPECT_TRUE(FailsSaying(image_->Flush(), "flush refused"));
    EXPECT_TRUE(messages_.empty());
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
    ExpectStopped(image_->Flush(), path, "removed");
  }
}

TEST_F(ImageRemoved, FlushOfAReplacedFileFails) {
  for (const char* path : {kAddCowPath, kImagePath}) {
    Make({});
    Write(0, 10);
    Replace(path);
    ExpectStopped(image_->Flush(), path, "replaced");
  }
}

TEST_F(ImageRemoved, FuaWriteFails) {
  for (const char* path : {kAddCowPath, kImagePath}) {
    Make({.allocated = {0}});
    ASSERT_OK(image_->Flush());
    ASSERT_OK(fake_.Remove(path));
    ExpectStopped(image_->Write(Repeat(1, 512), 0, Fua::kYes), path, "removed");
  }
}

// What was flushed before has gone since.
TEST_F(ImageRemoved, CloseTellsOfItThoughNothingIsLeftToFlush) {
  Make({});
  Write(0, 10);
  ASSERT_OK(image_->Flush());
  ASSERT_OK(fake_.Remove(kImagePath));
  EXPECT_TRUE(FailsSaying(image_->Close(), "was removed while in use"));
}

TEST_F(ImageRemoved, CloseTellsOfItOnceMore) {
  Make({});
  Write(0, 10);
  ASSERT_OK(image_->Flush());
  ASSERT_OK(fake_.Remove(kImagePath));
  EXPECT_FALSE(image_->Flush());
  EXPECT_TRUE(FailsSaying(image_->Close(), "flush refused"));
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
                                "another name, and goes on being used");
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
  TakeProcAway();
  Reopen();
  Write(0, 10);
  ASSERT_OK(image_->Flush());
  ExpectAsReference();
}

TEST_F(ImageRemoved, FileThatIsReplacedBetweenIsNotUsed) {
  Make({});
  image_.reset();
  TakeProcAway();
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
