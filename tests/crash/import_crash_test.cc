// SPDX-License-Identifier: LGPL-2.1-or-later
//
// import, when the power fails at any moment: the image is there, whole, or not at all, and
// an image file that has its name is whole.

#include <gtest/gtest.h>

#include "tests/crash/ops_crash.h"
#include "tests/support/import_fixture.h"

namespace addcow {
namespace {

class ImportCrash : public OpsCrash {
 protected:
  void CrashTheImport() {
    layer_.PutInto(files_);
    Run([&](FileSystem& disk) { EXPECT_OK(layer_.Import(disk, layer_.Options())); },
        [&](FakeFileSystem& files, bool returned) {
          if (files.Find(kAddCowPath) != nullptr) return layer_.ExpectRead(files);
          EXPECT_FALSE(returned);
          if (files.Find(kImagePath) != nullptr) {
            ASSERT_OK(files.Remove(kImagePath));
          }
          EXPECT_OK(layer_.Import(files, layer_.Options()));
          layer_.ExpectRead(files);
        });
  }

  ImportLayerFixture layer_;
};

TEST_F(ImportCrash, WithPartsOfClusters) { CrashTheImport(); }

TEST_F(ImportCrash, OfWholeClusters) {
  layer_.runs = {{{kC, kC}, true}, {{3 * kC, kC}, false}};
  CrashTheImport();
}

TEST_F(ImportCrash, WithoutABase) {
  layer_.has_base = false;
  CrashTheImport();
}

}  // namespace
}  // namespace addcow
