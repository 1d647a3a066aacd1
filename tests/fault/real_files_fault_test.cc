// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Faults above real files: whatever fails, the process has as many descriptors
// open afterwards as before.

#include <gtest/gtest.h>

#include <filesystem>

#include "common/ops/check.h"
#include "common/ops/create.h"
#include "common/ops/flatten.h"
#include "tests/fault/sweep.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

size_t OpenDescriptors() {
  const std::filesystem::directory_iterator listed("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(listed), end(listed)));
}

// In a directory that has an image with a leak and an unallocated cluster.
void UseEverything(FileSystem& files, const std::string& directory) {
  if (auto image = OpenTestImage(files, directory)) {
    const Status written = (*image)->Write(Repeat(1, 100), 10, Fua::kYes);
    if (!written) (void)(*image)->Close();
  }
  (void)CheckImage(files, directory + "/x.add-cow", Repair::kLeaks);
  (void)FlattenImage(files, directory + "/x.add-cow", NoLog, [](uint64_t, uint64_t) {});
  CreateOptions options;
  options.add_cow_path = directory + "/y.add-cow";
  options.image_name = "new.raw";
  options.size = 100;
  (void)CreateImage(files, options);
}

TEST(RealFilesFault, LeavesNoDescriptorOpen) {
  for (uint64_t at = 1;; at++) {
    const TempDir directory;
    ASSERT_OK(
        MakeTestImage(PosixFileSystem(), directory.path(), {.size = 3 * kClusterSize + 1}));
    FaultPlan plan({.at = at, .error = EIO});
    ForwardingFileSystem faulty(PosixFileSystem(), plan);
    const size_t before = OpenDescriptors();
    UseEverything(faulty, directory.path());
    EXPECT_EQ(OpenDescriptors(), before) << plan.hit();
    if (SweepEnds(at, plan.fired(), 50)) break;
  }
}

}  // namespace
}  // namespace addcow
