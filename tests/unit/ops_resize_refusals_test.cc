// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow resize: which sizes there can be, and what is refused; then nothing was changed.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/fault_file.h"
#include "tests/support/resize_fixture.h"

namespace addcow {
namespace {

class ResizeRefusals : public ResizeFixture {
 protected:
  ResizeRefusals() { Make({.size = 4 * kC, .backing_size = 3 * kC, .allocated = {1}}); }

  static ResizeOptions By(SizeChange::Kind kind, uint64_t bytes) {
    ResizeOptions options = ResizeTo(bytes);
    options.size.kind = kind;
    return options;
  }

  void ExpectRefused(const ResizeOptions& options, int code, const std::string& text) {
    const auto before = fake_.Clone();
    const auto result = ResizeTestImage(fake_, options);
    EXPECT_TRUE(FailsWith(result, code));
    EXPECT_TRUE(FailsSaying(result, text));
    EXPECT_EQ(fake_.DifferenceFrom(*before), "");
    EXPECT_EQ(fake_.open_files(), 0);
  }
};

TEST_F(ResizeRefusals, SizesAreAbsoluteOrRelative) {
  ASSERT_OK_AND_ASSIGN(const ResizeResult grown,
                       ResizeTestImage(fake_, By(SizeChange::Kind::kGrowBy, 3)));
  EXPECT_EQ(grown.new_size, 4 * kC + 3);
  ASSERT_OK_AND_ASSIGN(const ResizeResult shrunk,
                       ResizeTestImage(fake_, By(SizeChange::Kind::kShrinkBy, 4 * kC + 2)));
  EXPECT_EQ(shrunk.old_size, 4 * kC + 3);
  EXPECT_EQ(shrunk.new_size, 1u);
  EXPECT_EQ(ImageFile().size(), 1u);
}

TEST_F(ResizeRefusals, SizesThatCannotBe) {
  ExpectRefused(ResizeTo(0), EINVAL, "must be 1 to");
  ExpectRefused(ResizeTo(kMaxOffset + 1), EINVAL, "must be 1 to");
  ExpectRefused(By(SizeChange::Kind::kGrowBy, kMaxOffset), EINVAL, "it would have more than");
  ExpectRefused(By(SizeChange::Kind::kShrinkBy, 4 * kC), EINVAL, "one must be left");
  ExpectRefused(By(SizeChange::Kind::kShrinkBy, 5 * kC), EINVAL, "one must be left");
}

TEST_F(ResizeRefusals, ASmallerSizeNeedsAWordAndSaysWhatItCosts) {
  // Of the image file's data a half, and of the backing file's a cluster.
  ExpectRefused(ResizeTo(kC + kC / 2, false), EINVAL,
                fmt::format("the last {} would be lost, {} of them data (to cut them off: "
                            "--shrink)",
                            2 * kC + kC / 2, kC + kC / 2));
  ExpectRefused(ResizeTo(3 * kC, false), EINVAL, "would be lost, 0 of them data");
}

TEST_F(ResizeRefusals, WhoeverUsesItIsNotDisturbed) {
  ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(fake_));
  const auto result = ResizeTestImage(fake_, ResizeTo(5 * kC));
  EXPECT_TRUE(FailsWith(result, EBUSY));
  EXPECT_EQ(ImageFile().size(), 4 * kC);
}

TEST_F(ResizeRefusals, FilesThatMayNotBeWritten) {
  fake_.ForbidWriting(kImagePath, EACCES);
  ExpectRefused(ResizeTo(5 * kC), EACCES, "disk.raw");
}

TEST_F(ResizeRefusals, BlockDevices) {
  ImageFile().SetAbilities({.is_block_device = true});
  ExpectRefused(ResizeTo(5 * kC), EINVAL, "the image file is a block device");
  ImageFile().SetAbilities({});
  AddCow().SetAbilities({.is_block_device = true});
  ExpectRefused(ResizeTo(5 * kC), EINVAL, "x.add-cow: is a block device");
}

TEST_F(ResizeRefusals, MoreThanALimitOfFileSizes) {
  ImageFile().SetAbilities({.size_limit = 5 * kC});
  ExpectRefused(ResizeTo(5 * kC + 1), EFBIG, "ulimit -f");
  EXPECT_OK(ResizeTestImage(fake_, ResizeTo(5 * kC)));
  ImageFile().SetAbilities({});
  AddCow().SetAbilities({.size_limit = kBitmapOffset + kBitmapPadding});
  ExpectRefused(ResizeTo(8 * kBitmapPadding * kC + 1), EFBIG, "x.add-cow: cannot have");
}

// Of a file system it is only known when the image file is to grow; what was prepared for
// that is taken back.
TEST_F(ResizeRefusals, MoreThanTheFileSystemTakes) {
  Make({.size = 4 * kC, .backing_size = 9 * kC, .garbage = false, .allocated = {1}});
  const auto before = fake_.Clone();
  FaultPlan plan({.at = 1, .error = EFBIG, .where = [](const Operation& operation) {
                    return operation.kind == OpKind::kTruncate && operation.path == kImagePath;
                  }});
  ForwardingFileSystem files(fake_, plan);
  const auto result = ResizeTestImage(files, ResizeTo(9 * kC));
  EXPECT_TRUE(FailsWith(result, EFBIG));
  EXPECT_TRUE(FailsSaying(result, "cannot have 589824 bytes: its file system"));
  EXPECT_EQ(fake_.DifferenceFrom(*before), "");
}

TEST_F(ResizeRefusals, StoppedWhileItCopiesUpTheDiskIsAsItWas) {
  Make({.size = 4 * kC - 5, .backing_size = 9 * kC, .garbage = false, .allocated = {1}});
  ResizeOptions options = ResizeTo(9 * kC);
  int looks = 0;
  for (int stop_at = 1;; stop_at++) {
    looks = 0;
    options.interrupted = [&] { return ++looks >= stop_at; };
    const auto result = ResizeTestImage(fake_, options);
    if (result) break;
    EXPECT_TRUE(FailsWith(result, kErrInterrupted));
    ExpectDisk();
    ASSERT_LT(stop_at, 100);
  }
  EXPECT_GT(looks, 1);
  disk_.resize(9 * kC);
  ExpectDisk();
}

}  // namespace
}  // namespace addcow
