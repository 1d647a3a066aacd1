// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The fixture of the tests of "addcow resize": an image in memory, in any form, and the
// disk that must be read, which gets zeroes where it grows.

#ifndef ADDCOW_TESTS_SUPPORT_RESIZE_FIXTURE_H
#define ADDCOW_TESTS_SUPPORT_RESIZE_FIXTURE_H

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "common/ops/check.h"
#include "common/ops/resize.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/forms.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {

inline ResizeOptions ResizeTo(uint64_t size, bool shrink = true) {
  return {.source = {.add_cow_path = kAddCowPath},
          .size = {.kind = SizeChange::Kind::kTo, .bytes = size},
          .shrink = shrink};
}

inline Result<ResizeResult> ResizeTestImage(FileSystem& files, const ResizeOptions& options) {
  return ResizeImage(files, options, [](LogLevel, const std::string&) {});
}

class ResizeFixture : public testing::Test {
 protected:
  ResizeFixture() { fake_.MakeDirectory(kDirectory); }

  // In place of an image that was made before.
  void Make(const ImageSpec& spec) {
    for (const std::string& name : fake_.List()) (void)fake_.Remove(name);
    auto disk = MakeTestImage(fake_, kDirectory, spec);
    ASSERT_OK(disk);
    disk_ = std::move(*disk);
  }

  void Resize(uint64_t size) {
    const uint64_t old_size = disk_.size();
    ASSERT_OK_AND_ASSIGN(const ResizeResult result, ResizeTestImage(fake_, ResizeTo(size)));
    EXPECT_EQ(result.old_size, old_size);
    EXPECT_EQ(result.new_size, size);
    disk_.resize(size);
    EXPECT_EQ(fake_.open_files(), 0);
  }

  FakeInode& AddCow() { return *fake_.Find(kAddCowPath); }
  FakeInode& ImageFile() { return *fake_.Find(kImagePath); }

  // That the disk reads so, and that no bit is left where none may be.
  void ExpectDisk() {
    ASSERT_EQ(ImageFile().size(), disk_.size());
    ASSERT_OK_AND_ASSIGN(const auto image,
                         OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly));
    ASSERT_EQ(Difference(ReadAll(*image), disk_), "");
    ASSERT_OK_AND_ASSIGN(const CheckReport report,
                         CheckImage(fake_, kAddCowPath, Repair::kNone));
    ASSERT_FALSE(report.error);
    EXPECT_EQ(report.corruptions() + report.check_errors, 0u);
    EXPECT_EQ(report.stray_bits + report.grown_clusters, 0u);
    const Layout layout = TestLayout(fake_);
    const Header header = TestHeader(fake_);
    EXPECT_EQ(AddCow().size(),
              (header.subclusters && !header.all_allocated ? layout.subcluster_bitmap()
                                                           : layout.bitmap())
                  .padded_end());
  }

  FakeFileSystem fake_;
  std::vector<std::byte> disk_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_RESIZE_FIXTURE_H
