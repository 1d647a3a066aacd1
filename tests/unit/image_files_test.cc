// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/image_files: finding, opening and refusing the three files.

#include "common/image/image_files.h"

#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class ImageFilesTest : public testing::Test {
 protected:
  void Make(const ImageSpec& spec = {}) {
    fake_.MakeDirectory(kDirectory);
    ASSERT_OK(MakeTestImage(fake_, kDirectory, spec));
  }
  Result<ImageFiles> Open() { return OpenImageFiles(fake_, source_); }
  // Puts bytes of the header right or wrong.
  void Patch(uint64_t offset, const std::string& text) {
    ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(std::as_bytes(std::span(text)), offset));
  }

  FakeFileSystem fake_;
  ImageSource source_{.add_cow_path = kAddCowPath, .image_path = {}, .backing_path = {}};
};

TEST_F(ImageFilesTest, OpensAllThree) {
  Make({.size = 100000, .backing_size = 70000});
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.virtual_size, 100000u);
  EXPECT_EQ(files.backing->size(), 70000u);
  EXPECT_EQ(files.add_cow_path, kAddCowPath);
  EXPECT_EQ(files.image_path, kImagePath);
  EXPECT_EQ(files.backing_path, kBackingPath);
  EXPECT_EQ(files.mode, OpenMode::kReadWrite);
}

TEST_F(ImageFilesTest, VirtualSizeIsTheImageFilesNotTheBackingFiles) {
  Make({.size = 65536, .backing_size = 131072});
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.virtual_size, 65536u);
}

TEST_F(ImageFilesTest, NamesStartFromTheAddCowFilesDirectory) {
  Make();
  // A trap: files of the same names where the process works.
  fake_.Put("/cwd/disk.raw", 1);
  fake_.Put("/cwd/base.img", 1);
  source_.add_cow_path = "../vm/x.add-cow";
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.image_path, kImagePath);
}

TEST_F(ImageFilesTest, NamesStartFromWhereALinkLeads) {
  Make();
  fake_.PutSymbolicLink("/links/x", kAddCowPath);
  source_.add_cow_path = "/links/x";
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.image_path, kImagePath);
  EXPECT_EQ(files.add_cow_path, kAddCowPath);
}

TEST_F(ImageFilesTest, WithoutABackingFileThereIsNone) {
  Make({.backing_size = {}});
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.backing, nullptr);
  EXPECT_EQ(files.backing_path, "");
}

TEST_F(ImageFilesTest, OverridesReplaceTheNames) {
  Make();
  ASSERT_OK(fake_.Remove(kImagePath));
  fake_.Put("/elsewhere/i", 65536);
  fake_.Put("/elsewhere/b", 100);
  source_.image_path = "/elsewhere/i";
  source_.backing_path = "/elsewhere/b";
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.virtual_size, 65536u);
  EXPECT_EQ(files.backing->size(), 100u);
}

TEST_F(ImageFilesTest, OverridesStartFromTheWorkingDirectory) {
  Make();
  ASSERT_OK(fake_.Remove(kImagePath));
  fake_.Put("/cwd/i", 65536);
  source_.image_path = "i";
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.virtual_size, 65536u);
}

TEST_F(ImageFilesTest, AnotherImageFileIsOnlyReadWhileTheHeadersIsThere) {
  Make();
  fake_.Put("/cwd/i", 65536);
  source_.image_path = "i";
  EXPECT_TRUE(FailsSaying(Open(),
                          "i: is not the image file that the header names, /vm/disk.raw, which "
                          "is there too and would lack what is written (copy that one, and "
                          "name the copy in the header: addcow rebase -u -i /cwd/i "
                          "/vm/x.add-cow)"));
  source_.mode = OpenMode::kReadOnly;
  EXPECT_OK(Open());
  source_.mode = OpenMode::kReadWrite;
  source_.may_be_another = true;
  EXPECT_OK(Open());
  source_.may_be_another = false;
  // The same file by another name.
  fake_.PutName("/vm/j", fake_.Find(kImagePath));
  source_.image_path = "/vm/j";
  EXPECT_OK(Open());
}

TEST_F(ImageFilesTest, RefusesToOverrideABackingFileThatIsNot) {
  Make({.backing_size = {}});
  source_.backing_path = "/elsewhere/b";
  EXPECT_TRUE(FailsSaying(Open(), "has no backing file"));
}

TEST_F(ImageFilesTest, MissingAddCowFileIsNamed) {
  EXPECT_TRUE(FailsSaying(Open(), "/vm/x.add-cow: No such file or directory"));
}

TEST_F(ImageFilesTest, MissingImageFileIsNamedWithARemedy) {
  Make();
  ASSERT_OK(fake_.Remove(kImagePath));
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, ENOENT));
  EXPECT_TRUE(FailsSaying(files,
                          "/vm/disk.raw: not found, but it is the image file of "
                          "/vm/x.add-cow (if it was moved, say image=FILE)"));
}

TEST_F(ImageFilesTest, MissingBackingFileIsNamedWithARemedy) {
  Make();
  ASSERT_OK(fake_.Remove(kBackingPath));
  EXPECT_TRUE(FailsSaying(Open(),
                          "/vm/base.img: not found, but it is the backing file of "
                          "/vm/x.add-cow (if it was moved, say backing=FILE)"));
}

TEST_F(ImageFilesTest, MissingFileThatTheUserNamedNeedsNoRemedy) {
  Make();
  source_.image_path = "/vm/no.raw";
  EXPECT_TRUE(FailsSaying(Open(), "open: /vm/no.raw: No such file or directory"));
  source_.image_path.reset();
  source_.backing_path = "/vm/no.img";
  EXPECT_TRUE(FailsSaying(Open(), "open: /vm/no.img: No such file or directory"));
}

TEST_F(ImageFilesTest, MissingBackingFileIsNotAskedForIfNotWanted) {
  Make();
  ASSERT_OK(fake_.Remove(kBackingPath));
  source_.want_backing = false;
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.backing, nullptr);
  EXPECT_EQ(files.backing_path, kBackingPath);
}

TEST_F(ImageFilesTest, AllAllocatedLeavesTheBackingFileAlone) {
  Make({.all_allocated = true});
  ASSERT_OK(fake_.Remove(kBackingPath));
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.backing, nullptr);
}

TEST_F(ImageFilesTest, AllAllocatedDoesNotMindTheBackingFormat) {
  Make({.all_allocated = true});
  Patch(48, "qcow2");
  EXPECT_OK(Open());
}

TEST_F(ImageFilesTest, RefusesOtherBackingFormatsWithARemedy) {
  Make();
  Patch(48, "luks");
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, kErrUnsupported));
  EXPECT_TRUE(FailsSaying(
      files, "backing file format is 'luks', must be raw, add-cow or one that QEMU"));
}

TEST_F(ImageFilesTest, RefusesAnAddCowFileThatNamesItself) {
  Make();
  source_.image_path = "/vm/../vm/x.add-cow";
  EXPECT_TRUE(FailsSaying(Open(), "is both the image file and the add-cow file"));
}

TEST_F(ImageFilesTest, RefusesOneFileAsImageAndBackingUnderTwoNames) {
  Make();
  fake_.PutName("/other/name", fake_.Find(kImagePath));
  source_.backing_path = "/other/name";
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, kErrCorrupt));
  EXPECT_TRUE(FailsSaying(files, "is both the backing file and the image file"));
}

TEST_F(ImageFilesTest, RefusesTheAddCowFileAsBackingFile) {
  Make();
  fake_.PutSymbolicLink("/other/name", kAddCowPath);
  source_.backing_path = "/other/name";
  EXPECT_TRUE(FailsSaying(Open(), "is both the backing file and the add-cow file"));
}

TEST_F(ImageFilesTest, RefusesAnEmptyImageFile) {
  Make();
  ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(0));
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, kErrCorrupt));
  EXPECT_TRUE(FailsSaying(files, "/vm/disk.raw: the image file is empty"));
}

// A device that is not attached, a file that is not mounted. Also of old images,
// which have no note of what it was.
TEST_F(ImageFilesTest, RefusesAnEmptyBackingFile) {
  Make({.backing_size = 0});
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, EINVAL));
  EXPECT_TRUE(FailsSaying(files, "/vm/base.img: the backing file is empty"));
}

TEST_F(ImageFilesTest, AnEmptyFileInPlaceOfTheBackingFileIsRefusedToo) {
  Make();
  fake_.Put("/elsewhere/b");
  source_.backing_path = "/elsewhere/b";
  EXPECT_TRUE(FailsSaying(Open(), "/elsewhere/b: the backing file is empty"));
}

TEST_F(ImageFilesTest, BitmapMustHaveTheLastClustersByte) {
  Make({.size = 9 * kClusterSize});
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(4096 + 2));
  EXPECT_OK(Open());
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(4096 + 1));
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, kErrCorrupt));
  EXPECT_TRUE(FailsSaying(files, "truncated: 4097 bytes, must be at least 4098"));
}

// Written whole, as all programs do: then it is the disk that has changed.
TEST_F(ImageFilesTest, AGrownDiskIsNotCalledTruncated) {
  Make();
  const uint64_t most = 8 * kBitmapPadding * kClusterSize;  // 32 GiB
  ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(most + 1));
  const auto files = Open();
  EXPECT_TRUE(FailsWith(files, EINVAL));
  EXPECT_TRUE(FailsSaying(files, "the image file has grown to 34359738369 bytes"));
  EXPECT_TRUE(FailsSaying(files, "truncate -s 135168 /vm/x.add-cow"));
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(135168));
  EXPECT_OK(Open());
}

TEST_F(ImageFilesTest, RefusesATruncatedHeader) {
  Make();
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(4095));
  EXPECT_TRUE(FailsSaying(Open(), "truncated: 4095 bytes"));
}

TEST_F(ImageFilesTest, RefusesTheImageFileInPlaceOfTheAddCowFile) {
  Make();
  source_.add_cow_path = kImagePath;
  EXPECT_TRUE(FailsSaying(Open(), "/vm/disk.raw: not an add-cow file: magic is"));
}

TEST_F(ImageFilesTest, ReadOnlyWhereOneOfTheFilesMayNotBeWritten) {
  for (const char* path : {kAddCowPath, kImagePath}) {
    FakeFileSystem file_system;
    file_system.MakeDirectory(kDirectory);
    ASSERT_OK(MakeTestImage(file_system, kDirectory, {}));
    file_system.ForbidWriting(path, EACCES);
    ASSERT_OK_AND_ASSIGN(const ImageFiles files, OpenImageFiles(file_system, source_));
    EXPECT_EQ(files.mode, OpenMode::kReadOnly) << path;
  }
}

TEST_F(ImageFilesTest, BackingFileNeedNotBeWritable) {
  Make();
  fake_.ForbidWriting(kBackingPath, EACCES);
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.mode, OpenMode::kReadWrite);
}

TEST_F(ImageFilesTest, ReadOnlyOpensNothingForWriting) {
  Make();
  source_.mode = OpenMode::kReadOnly;
  fake_.ForbidWriting(kAddCowPath, EIO);
  fake_.ForbidWriting(kImagePath, EIO);
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, Open());
  EXPECT_EQ(files.mode, OpenMode::kReadOnly);
  EXPECT_TRUE(FailsWith(files.image->Write(Repeat(1, 1), 0), EBADF));
}

TEST_F(ImageFilesTest, EveryFailingOperationIsAnError) {
  Make();
  FaultPlan faults;
  ForwardingFileSystem faulty(fake_, faults);
  int settled = 0;  // where holes that may not be believed are taken for data
  for (uint64_t at = 1;; at++) {
    faults.Set({.at = at, .error = EIO});
    const auto files = OpenImageFiles(faulty, source_);
    if (!faults.fired()) {
      EXPECT_OK(files);
      EXPECT_GT(at, 5u);
      break;
    }
    // What only warns or refuses by a file's first bytes does without them, and for
    // opening again there is another way.
    const bool done_without = faults.hit().starts_with("read /vm/base.img 0+") ||
                              faults.hit().starts_with("read /vm/disk.raw 0+") ||
                              faults.hit() == "open again /vm/disk.raw";
    if (files && faults.hit() == "info /vm/base.img")
      settled++;
    else if (done_without)
      EXPECT_OK(files) << faults.hit();
    else
      EXPECT_TRUE(FailsWith(files, EIO)) << faults.hit();
  }
  EXPECT_EQ(settled, 1);
}

TEST_F(ImageFilesTest, OpenAddCowFileLooksAtNoOtherFile) {
  Make();
  ASSERT_OK(fake_.Remove(kImagePath));
  ASSERT_OK(fake_.Remove(kBackingPath));
  ASSERT_OK_AND_ASSIGN(const ImageFiles files, OpenAddCowFile(fake_, source_));
  EXPECT_EQ(files.header.image.name, "disk.raw");
  EXPECT_EQ(files.image, nullptr);
}

}  // namespace
}  // namespace addcow
