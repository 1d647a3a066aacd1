// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation of "addcow resize" fails, in every way. Whatever fails:
//
// - the disk has the old size or the new one, and reads as that disk; with success, the
//   new one;
// - an error is the fault's, or EIO; no file is left open;
// - run again it does all of its work, and leaves what a run without faults does.

#include <gtest/gtest.h>

#include "tests/fault/sweep.h"
#include "tests/support/expect_reads.h"
#include "tests/support/resize_fixture.h"

namespace addcow {
namespace {

struct ResizeFaultCase {
  const char* name;
  ImageSpec spec;
  uint64_t size;

  friend void PrintTo(const ResizeFaultCase& one, std::ostream* out) { *out << one.name; }
};

const ResizeFaultCase kResizeFaults[] = {
    {"Grow",
     {.size = 5 * kClusterSize - 100, .backing_size = 9 * kClusterSize, .allocated = {1}},
     8 * kClusterSize},
    {"GrowWithSubclusters",
     {.size = 5 * kClusterSize - 100,
      .backing_size = 9 * kClusterSize,
      .allocated = {1},
      .subclusters = {5, 79}},
     8 * kClusterSize},
    {"GrowAcow8k",
     {.size = 9 * 8 * kKiB - 100,
      .backing_size = 12 * 8 * kKiB,
      .allocated = {1},
      .revision = Revision::kAcow,
      .cluster_size = 8 * kKiB},
     15 * 8 * kKiB},
    {"GrowAllAllocated",
     {.size = 5 * kClusterSize - 100, .backing_size = 9 * kClusterSize, .all_allocated = true},
     8 * kClusterSize},
    {"Shrink",
     {.size = 8 * kClusterSize, .backing_size = 9 * kClusterSize, .allocated = {1, 4, 6}},
     4 * kClusterSize + 100},
    {"ShrinkWithSubclusters",
     {.size = 8 * kClusterSize,
      .backing_size = 9 * kClusterSize,
      .allocated = {1},
      .subclusters = {5, 66, 79, 100}},
     4 * kClusterSize + 100},
};

using ResizeFaultParameter = std::tuple<ResizeFaultCase, Sweep>;

class ResizeFault : public testing::TestWithParam<ResizeFaultParameter> {};

TEST_P(ResizeFault, TheDiskHasTheOldSizeOrTheNew) {
  const auto& [one, sweep] = GetParam();
  FakeFileSystem made;
  made.MakeDirectory(kDirectory);
  ASSERT_OK_AND_ASSIGN(const auto old_disk, MakeTestImage(made, kDirectory, one.spec));
  auto new_disk = old_disk;
  new_disk.resize(one.size);
  const auto undisturbed = made.Clone();
  ASSERT_OK(ResizeTestImage(*undisturbed, ResizeTo(one.size)));
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan plan(sweep.At(at));
    ForwardingFileSystem faulty(*files, plan);
    const auto result = ResizeTestImage(faulty, ResizeTo(one.size));
    SCOPED_TRACE("after a fault of " + plan.hit());
    EXPECT_EQ(files->open_files(), 0);
    const uint64_t size = files->Find(kImagePath)->size();
    if (result) {
      EXPECT_EQ(size, one.size);
    } else {
      EXPECT_TRUE(FailsOfFault(result, plan, sweep));
      EXPECT_TRUE(size == one.size || size == one.spec.size);
    }
    ExpectReads(*files, size == one.size ? new_disk : old_disk);
    ASSERT_OK_AND_ASSIGN(const CheckReport left,
                         CheckImage(*files, kAddCowPath, Repair::kNone));
    EXPECT_EQ(left.corruptions() + left.check_errors, 0u);
    EXPECT_OK(ResizeTestImage(*files, ResizeTo(one.size)));
    EXPECT_EQ(files->DifferenceFrom(*undisturbed), "") << "run again";
    if (SweepEnds(at, plan.fired())) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Sweeps, ResizeFault,
                         testing::Combine(testing::ValuesIn(kResizeFaults),
                                          testing::ValuesIn(kSweeps)),
                         kCaseAndSweepName);

}  // namespace
}  // namespace addcow
