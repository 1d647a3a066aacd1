// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/image_files: locks on the files of an image, and names that
// must lie beneath a directory.

#include <gtest/gtest.h>

#include "common/image/image_files.h"
#include "common/ops/create.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/forwarding_file.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

// Another "addcow create --force" between opening the add-cow file and locking it.
class ReplaceBeforeLock final : public Interceptor {
 public:
  explicit ReplaceBeforeLock(FakeFileSystem& files) : files_(files) {}

  Verdict Before(const Operation& operation) override {
    if (operation.kind == OpKind::kLock && !done_) {
      done_ = true;
      CreateOptions options;
      options.add_cow_path = kAddCowPath;
      options.image_name = "disk.raw";
      options.force = true;
      options.discard = true;
      EXPECT_OK(CreateImage(files_, options));
    }
    return {};
  }

 private:
  FakeFileSystem& files_;
  bool done_ = false;
};

class ImageAccess : public testing::Test {
 protected:
  ImageAccess() {
    fake_.MakeDirectory(kDirectory);
    EXPECT_OK(MakeTestImage(fake_, kDirectory, {}));
  }
  Result<ImageFiles> Open(OpenMode mode, bool lock = true) {
    ImageSource source;
    source.add_cow_path = kAddCowPath;
    source.mode = mode;
    source.access.lock = lock;
    return OpenImageFiles(fake_, source);
  }
  Result<ImageFiles> OpenConfinedTo(const std::string& directory) {
    ImageSource source;
    source.add_cow_path = kAddCowPath;
    source.access.confine = directory;
    return OpenImageFiles(fake_, source);
  }
  // Somebody else's handle on a file, with a lock.
  std::unique_ptr<File> Lock(const std::string& path, LockKind kind) {
    auto file = fake_.Open(path, OpenMode::kReadOnly);
    EXPECT_OK(file);
    EXPECT_OK((*file)->Lock(kind));
    return std::move(*file);
  }
  bool MayLock(const std::string& path, LockKind kind) {
    auto file = fake_.Open(path, OpenMode::kReadOnly);
    return file && (*file)->Lock(kind);
  }

  FakeFileSystem fake_;
};

TEST_F(ImageAccess, AWriterIsAlone) {
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open(OpenMode::kReadWrite));
  EXPECT_TRUE(FailsWith(Open(OpenMode::kReadWrite), EBUSY));
  EXPECT_TRUE(FailsWith(Open(OpenMode::kReadOnly), EBUSY));
  EXPECT_FALSE(MayLock(kImagePath, LockKind::kRead));
}

TEST_F(ImageAccess, ReadersShareAndKeepWritersOut) {
  ASSERT_OK_AND_ASSIGN(const ImageFiles first, Open(OpenMode::kReadOnly));
  ASSERT_OK_AND_ASSIGN(const ImageFiles second, Open(OpenMode::kReadOnly));
  EXPECT_TRUE(FailsWith(Open(OpenMode::kReadWrite), EBUSY));
  for (const char* path : {kAddCowPath, kImagePath, kBackingPath}) {
    EXPECT_TRUE(MayLock(path, LockKind::kRead)) << path;
    EXPECT_FALSE(MayLock(path, LockKind::kWrite)) << path;
  }
}

TEST_F(ImageAccess, ReadersShareTheBackingFileWithAWriterOfTheImage) {
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open(OpenMode::kReadWrite));
  EXPECT_TRUE(MayLock(kBackingPath, LockKind::kRead));
  EXPECT_FALSE(MayLock(kBackingPath, LockKind::kWrite));
}

TEST_F(ImageAccess, AnyFileThatIsInUseIsNamed) {
  for (const char* path : {kAddCowPath, kImagePath, kBackingPath}) {
    const auto user = Lock(path, LockKind::kWrite);
    const auto files = Open(OpenMode::kReadWrite);
    EXPECT_TRUE(FailsWith(files, EBUSY)) << path;
    EXPECT_EQ(files.error().file(), path);
  }
}

TEST_F(ImageAccess, LocksGoWithTheFiles) {
  {
    ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open(OpenMode::kReadWrite));
  }
  for (const char* path : {kAddCowPath, kImagePath, kBackingPath})
    EXPECT_TRUE(MayLock(path, LockKind::kWrite)) << path;
}

TEST_F(ImageAccess, ARefusedOpenLeavesNoLock) {
  {
    const auto user = Lock(kBackingPath, LockKind::kWrite);
    EXPECT_FALSE(Open(OpenMode::kReadWrite));
  }
  EXPECT_OK(Open(OpenMode::kReadWrite));
}

// What falls back to reading only keeps no other reader out.
TEST_F(ImageAccess, AnImageThatMayNotBeWrittenIsSharedByReaders) {
  fake_.ForbidWriting(kImagePath, EACCES);
  ASSERT_OK_AND_ASSIGN(const ImageFiles first, Open(OpenMode::kReadWrite));
  EXPECT_EQ(first.mode, OpenMode::kReadOnly);
  EXPECT_OK(Open(OpenMode::kReadWrite));
}

TEST_F(ImageAccess, WithoutLocksNothingIsAskedOrKept) {
  const auto user = Lock(kImagePath, LockKind::kWrite);
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open(OpenMode::kReadWrite, false));
  EXPECT_TRUE(MayLock(kAddCowPath, LockKind::kWrite));
}

TEST_F(ImageAccess, AFileSystemWithoutLocksIsAnErrorUnlessToldSo) {
  fake_.Find(kImagePath)->SetAbilities({.lock = false});
  EXPECT_TRUE(FailsWith(Open(OpenMode::kReadWrite), ENOLCK));
  EXPECT_OK(Open(OpenMode::kReadWrite, false));
}

TEST_F(ImageAccess, CreateDoesNotReplaceAnAddCowFileInUse) {
  CreateOptions options;
  options.add_cow_path = kAddCowPath;
  options.image_name = "disk.raw";
  options.force = true;
  options.discard = true;
  {
    ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open(OpenMode::kReadOnly));
    EXPECT_TRUE(FailsWith(CreateImage(fake_, options), EBUSY));
    options.lock = false;
    EXPECT_OK(CreateImage(fake_, options));
  }
  options.lock = true;
  EXPECT_OK(CreateImage(fake_, options));
}

// Its bits would go to a file that has no name any more.
TEST_F(ImageAccess, AnAddCowFileReplacedBeforeItWasLockedIsNotOpened) {
  for (const OpenMode mode : {OpenMode::kReadWrite, OpenMode::kReadOnly}) {
    ReplaceBeforeLock replace(fake_);
    ForwardingFileSystem file_system(fake_, replace);
    ImageSource source;
    source.add_cow_path = kAddCowPath;
    source.mode = mode;
    EXPECT_TRUE(FailsWith(OpenImageFiles(file_system, source), EAGAIN));
  }
}

TEST_F(ImageAccess, CreateDoesNotReplaceAnAddCowFileThatItHasNotLocked) {
  ReplaceBeforeLock replace(fake_);
  ForwardingFileSystem file_system(fake_, replace);
  CreateOptions options;
  options.add_cow_path = kAddCowPath;
  options.image_name = "disk.raw";
  options.force = true;
  options.discard = true;
  EXPECT_TRUE(FailsWith(CreateImage(file_system, options), EAGAIN));
}

TEST_F(ImageAccess, FilesBeneathTheDirectoryAreOpened) {
  EXPECT_OK(OpenConfinedTo("/vm"));
  EXPECT_OK(OpenConfinedTo("/"));
}

TEST_F(ImageAccess, FilesElsewhereAreRefusedByName) {
  fake_.MakeDirectory("/other");
  const auto files = OpenConfinedTo("/other");
  EXPECT_TRUE(FailsSaying(files,
                          "/vm/x.add-cow: names the file 'disk.raw', which is not "
                          "beneath /other and so refused (confine=)"));
}

TEST_F(ImageAccess, LinksOutOfTheDirectoryAreRefused) {
  fake_.PutName("/secret", fake_.Find(kBackingPath));
  ASSERT_OK(fake_.Remove(kBackingPath));
  fake_.PutSymbolicLink(kBackingPath, "/secret");
  EXPECT_OK(Open(OpenMode::kReadOnly));
  EXPECT_TRUE(FailsWith(OpenConfinedTo("/vm"), EXDEV));
}

TEST_F(ImageAccess, ADirectoryThatIsNotThereIsNotTakenForAMissingFile) {
  EXPECT_TRUE(FailsSaying(OpenConfinedTo("/none"),
                          "/none: the directory of confine= cannot be found: No such file"));
}

}  // namespace
}  // namespace addcow
