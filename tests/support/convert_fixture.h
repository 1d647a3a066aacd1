// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The fixture of the tests of "addcow upgrade" and "downgrade": an image in memory, in
// any form, and what must hold of it after them: the disk reads the same, and the files
// are sound.

#ifndef ADDCOW_TESTS_SUPPORT_CONVERT_FIXTURE_H
#define ADDCOW_TESTS_SUPPORT_CONVERT_FIXTURE_H

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/ops/check.h"
#include "common/ops/convert.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/forms.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {

class ConvertFixture : public testing::Test {
 protected:
  ConvertFixture() { fake_.MakeDirectory(kDirectory); }

  static ConvertOptions To(const Form& form, bool subclusters = true) {
    return {.source = {.add_cow_path = kAddCowPath},
            .revision = form.revision,
            .cluster_size = form.cluster_size,
            .subclusters = subclusters};
  }
  static Result<ConvertResult> Convert(FileSystem& files, const ConvertOptions& options) {
    return ConvertImage(files, options, [](LogLevel, const std::string&) {});
  }

  // In place of an image that was made before.
  void Make(const ImageSpec& spec) {
    for (const std::string& name : fake_.List()) (void)fake_.Remove(name);
    auto disk = MakeTestImage(fake_, kDirectory, spec);
    ASSERT_OK(disk);
    disk_ = std::move(*disk);
    before_ = fake_.Clone();
  }

  // Some of the first cluster and of the third, all of the fourth, some of the last,
  // where clusters have 64 KiB.
  void MakePartial(const Form& form = kVersion1Form) {
    ImageSpec spec = InForm({.size = 5 * kC - 100, .backing_size = 4 * kC}, form);
    Units units(DivideUp(spec.size, kSubclusterSize));
    for (const uint64_t unit : {0u, 1u, 2u, 40u, 79u}) units[unit] = true;
    for (uint64_t unit = 48; unit < 64; unit++) units[unit] = true;
    SetUnits(spec, units);
    Make(spec);
  }

  FakeInode& AddCow() { return *fake_.Find(kAddCowPath); }

  void ExpectDisk() {
    ASSERT_OK_AND_ASSIGN(const auto image,
                         OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly));
    ASSERT_EQ(Difference(ReadAll(*image), disk_), "");
    ASSERT_OK_AND_ASSIGN(const CheckReport report,
                         CheckImage(fake_, kAddCowPath, Repair::kNone));
    EXPECT_EQ(report.corruptions() + report.check_errors + report.stray_bits, 0u);
  }

  // It must have failed so, and changed nothing.
  template <typename T>
  void ExpectRefused(const Result<T>& result, const std::string& text) {
    EXPECT_TRUE(FailsSaying(result, text));
    EXPECT_EQ(fake_.DifferenceFrom(*before_), "");
    EXPECT_EQ(fake_.open_files(), 0);
  }

  FakeFileSystem fake_;
  std::unique_ptr<FakeFileSystem> before_;
  std::vector<std::byte> disk_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_CONVERT_FIXTURE_H
