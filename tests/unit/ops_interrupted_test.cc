// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Verbs that are asked to stop, at their N-th look for every N: flatten keeps
// what it has copied, create leaves nothing behind. That of check is in
// ops_check_test.cc; real signals are in tests/shell/test-interrupted.sh.

#include <gtest/gtest.h>

#include <vector>

#include "common/ops/create.h"
#include "common/ops/flatten.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/forwarding_file.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

void IgnoreLog(LogLevel, const std::string&) {}

TEST(Interrupted, FlattenKeepsWhatItHasToldOf) {
  // Several chunks: they end at allocated clusters, or are of 16 MiB.
  constexpr uint64_t kClusters = 600;
  const std::vector<uint64_t> had = {0, 50, 100, 400};
  for (uint64_t at = 1;; at++) {
    FakeFileSystem files;
    files.MakeDirectory(kDirectory);
    ASSERT_OK_AND_ASSIGN(const auto disk, MakeTestImage(files, kDirectory,
                                                        {.size = kClusters * kClusterSize,
                                                         .backing_data = {{{0, kClusterSize}}},
                                                         .garbage = false,
                                                         .allocated = had}));
    uint64_t copied = 0;
    uint64_t looks = 0;
    const auto flattened = FlattenImage(
        files, ImageSource{.add_cow_path = kAddCowPath}, IgnoreLog,
        [&](uint64_t done, uint64_t) { copied = done; }, [&] { return ++looks >= at; });
    ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(files, kDirectory));
    EXPECT_EQ(image->bitmap().allocated() * kClusterSize, copied + had.size() * kClusterSize);
    EXPECT_EQ(Difference(ReadAll(*image), disk), "");
    if (flattened) {
      EXPECT_LT(looks, at);
      EXPECT_GT(at, 5u);
      EXPECT_EQ(copied, (kClusters - had.size()) * kClusterSize);
      break;
    }
    EXPECT_TRUE(FailsWith(flattened, kErrInterrupted));
    EXPECT_LT(copied, (kClusters - had.size()) * kClusterSize);
    EXPECT_TRUE(at == 1 || copied > 0);
  }
}

// Interrupted is for who has kept everything.
TEST(Interrupted, FlattenThatCannotKeepItSaysWhy) {
  FakeFileSystem files;
  files.MakeDirectory(kDirectory);
  ASSERT_OK(MakeTestImage(files, kDirectory, {.size = 600 * kClusterSize, .garbage = false}));
  FaultPlan plan({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                    return operation.kind == OpKind::kSyncData;
                  }});
  ForwardingFileSystem faulty(files, plan);
  uint64_t looks = 0;
  EXPECT_TRUE(FailsWith(FlattenImage(
                            faulty, ImageSource{.add_cow_path = kAddCowPath}, IgnoreLog,
                            [](uint64_t, uint64_t) {}, [&] { return ++looks >= 2; }),
                        EIO));
  EXPECT_TRUE(plan.fired());
}

TEST(Interrupted, CreateLeavesNothingBehind) {
  for (const bool overlay : {false, true}) {
    for (const bool image_there : {false, true}) {
      for (uint64_t at = 1;; at++) {
        FakeFileSystem files;
        files.MakeDirectory(kDirectory);
        files.Put(kBackingPath, Repeat(7, 100000));
        if (image_there) files.Put(kImagePath, 100000);
        const auto before = files.List();
        CreateOptions options;
        options.add_cow_path = kAddCowPath;
        options.image_name = "disk.raw";
        if (overlay) options.backing = NamedFile{"base.img", "raw"};
        if (!image_there) options.size = 100000;
        uint64_t looks = 0;
        options.interrupted = [&] { return ++looks >= at; };
        const auto created = CreateImage(files, options);
        if (created) {
          EXPECT_GT(at, 2u);
          EXPECT_NE(files.Find(kAddCowPath), nullptr);
          EXPECT_NE(files.Find(kImagePath), nullptr);
          break;
        }
        EXPECT_TRUE(FailsWith(created, kErrInterrupted));
        EXPECT_EQ(files.List(), before);
      }
    }
  }
}

}  // namespace
}  // namespace addcow
