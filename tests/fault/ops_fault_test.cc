// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation of "create" and "flatten" fails once. A create that failed
// leaves nothing behind; a flatten that failed has changed nothing that is
// read, and can be run again.

#include <gtest/gtest.h>

#include "common/ops/create.h"
#include "common/ops/flatten.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/forwarding_file.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

void NoLog(LogLevel, const std::string&) {}
void NoProgress(uint64_t, uint64_t) {}

TEST(CreateFault, LeavesNothingBehindWhateverFails) {
  for (uint64_t at = 1;; at++) {
    FakeFileSystem files;
    files.Put(kBackingPath, Repeat(7, 100000));
    const std::vector<std::string> before = files.List();
    FaultPlan plan({.at = at, .error = EIO});
    ForwardingFileSystem faulty(files, plan);
    CreateOptions options;
    options.add_cow_path = kAddCowPath;
    options.image_name = "disk.raw";
    options.backing = NamedFile{"base.img", "raw"};
    const Result<CreateResult> created = CreateImage(faulty, options);
    if (!plan.fired()) {
      ASSERT_OK(created);
      EXPECT_GT(at, 10u) << "hardly an operation was tried";
      break;
    }
    // What fails may be something that create can do without.
    if (!created) {
      EXPECT_EQ(files.List(), before) << plan.hit();
    } else {
      EXPECT_OK(OpenTestImage(files)) << plan.hit();
    }
    ASSERT_LT(at, 10000u) << "the sweep does not end";
  }
}

TEST(FlattenFault, ChangesNothingThatIsReadAndCanBeRunAgain) {
  for (uint64_t at = 1;; at++) {
    FakeFileSystem files;
    files.MakeDirectory(kDirectory);
    ASSERT_OK_AND_ASSIGN(const std::vector<std::byte> contents,
                         MakeTestImage(files, kDirectory,
                                       {.size = 40 * kClusterSize + 1,
                                        .backing_size = 30 * kClusterSize + 100,
                                        .allocated = {3, 17, 35}}));
    FaultPlan plan({.at = at, .error = ENOSPC});
    ForwardingFileSystem faulty(files, plan);
    const auto flattened = FlattenImage(faulty, kAddCowPath, NoLog, NoProgress);
    const bool fired = plan.fired();
    const std::string hit = plan.hit();
    {
      auto image = OpenTestImage(files);
      ASSERT_OK(image);
      EXPECT_EQ(Difference(ReadAll(**image), contents), "") << hit;
    }
    ASSERT_OK(FlattenImage(files, kAddCowPath, NoLog, NoProgress)) << hit;
    auto image = OpenTestImage(files, kDirectory, OpenMode::kReadOnly);
    ASSERT_OK(image);
    EXPECT_TRUE((*image)->files().header.all_allocated) << hit;
    EXPECT_EQ(Difference(files.Find(kImagePath)->Bytes(0, contents.size()), contents), "")
        << hit;
    if (!fired) {
      EXPECT_OK(flattened);
      EXPECT_GT(at, 10u) << "hardly an operation was tried";
      break;
    }
    ASSERT_LT(at, 10000u) << "the sweep does not end";
  }
}

}  // namespace
}  // namespace addcow
