// SPDX-License-Identifier: LGPL-2.1-or-later
//
// export, when the power fails, or it is killed, at any moment: the image is as it was, and
// where it is exported to lies what was there or the whole disk.

#include <gtest/gtest.h>

#include "tests/crash/ops_crash.h"
#include "tests/support/export_fixture.h"

namespace addcow {
namespace {

class ExportCrash : public OpsCrash {
 protected:
  void CrashTheExport(const ImageSpec& spec, const std::vector<uint64_t>& subclusters = {},
                      bool replaces = false) {
    image_.PutInto(files_, spec, subclusters);
    if (replaces) ExportedImage::PutOld(files_);
    const ExportOptions options = ExportedImage::Options(replaces);
    Run([&](FileSystem& disk) { EXPECT_OK(image_.Export(disk, options)); },
        [&](FakeFileSystem& files, bool returned) {
          ExpectImageAsItWas(files);
          const auto output = files.Find(kExportPath);
          const auto old = files_.Find(kExportPath);
          if (returned || (output != nullptr && (old == nullptr || !output->SameBytes(*old))))
            return image_.ExpectExported(files);
          EXPECT_EQ(output == nullptr, old == nullptr) << "what was there has gone";
          EXPECT_OK(image_.Export(files, options));
          image_.ExpectExported(files);
        });
  }

 private:
  void ExpectImageAsItWas(const FakeFileSystem& files) {
    for (const char* const path : {kAddCowPath, kImagePath, kBackingPath}) {
      const auto was = files_.Find(path);
      if (was == nullptr) continue;
      const auto is = files.Find(path);
      ASSERT_NE(is, nullptr) << path;
      EXPECT_TRUE(is->SameBytes(*was)) << path;
    }
  }

  ExportedImage image_;
};

TEST_F(ExportCrash, ToANewFile) {
  CrashTheExport({.size = 4 * kC - 100, .backing_size = 4 * kC, .allocated = {1}}, {33, 63});
}

TEST_F(ExportCrash, InPlaceOfAnother) {
  CrashTheExport({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {0, 3}}, {}, true);
}

TEST_F(ExportCrash, WithoutABase) {
  CrashTheExport({.size = 3 * kC, .backing_size = std::nullopt, .all_allocated = true});
}

}  // namespace
}  // namespace addcow
