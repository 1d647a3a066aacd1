// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation of commit, and of a rebase of data, fails, in every way. Whatever fails:
// every disk reads as before, the image is sound, no file is left open, and the same verb, run
// again, does all of its work.

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "common/ops/commit.h"
#include "common/ops/rebase_data.h"
#include "tests/fault/sweep.h"
#include "tests/support/expect_reads.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/forms.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

constexpr const char* kOtherDirectory = "/other";
constexpr const char* kOtherImage = "/other/x.add-cow";

Status CommitOne(FileSystem& files) {
  ADDCOW_TRY(CommitImages(files, {.add_cow_paths = {kAddCowPath}}));
  return {};
}
Status CommitBoth(FileSystem& files) {
  ADDCOW_TRY(CommitImages(files, {.add_cow_paths = {kAddCowPath, kOtherImage}}));
  return {};
}
Status RebaseOntoNew(FileSystem& files) {
  ADDCOW_TRY(RebaseSafely(
      files, {.add_cow_path = kAddCowPath, .backing = NamedFile{"../other/base.img", "raw"}},
      NoLog, [](uint64_t, uint64_t) {}));
  return {};
}
Status RebaseOntoNothing(FileSystem& files) {
  ADDCOW_TRY(RebaseSafely(files, {.add_cow_path = kAddCowPath, .no_backing = true}, NoLog,
                          [](uint64_t, uint64_t) {}));
  return {};
}

struct DataVerb {
  const char* name;
  ImageSpec spec;
  bool empties;
  std::function<Status(FileSystem&)> run;
  std::vector<uint64_t> subclusters = {};
};

const ImageSpec kLayer{
    .size = 7 * kClusterSize + 1, .backing_size = 7 * kClusterSize + 1, .allocated = {3, 5}};
const ImageSpec kLonger{.size = 7 * kClusterSize + 1,
                        .backing_size = 4 * kClusterSize + 100,
                        .garbage = false,
                        .allocated = {3, 5}};
const ImageSpec kUpper{.size = 4 * kClusterSize,
                       .backing_size = 4 * kClusterSize,
                       .allocated = {1, 2},
                       .on_image = true};

const DataVerb kDataVerbs[] = {
    {"Commit", kLayer, true, CommitOne},
    {"CommitPartial", kLayer, true, CommitOne, {1, 2, 40, 70}},
    {"CommitGrows", kLonger, true, CommitOne},
    {"CommitIntoImage", kUpper, true, CommitOne},
    {"CommitTwo", kLayer, true, CommitBoth},
    {"CommitOfRevision20", InForm(kLonger, k4kForm), true, CommitOne},
    {"Rebase", kLayer, false, RebaseOntoNew},
    {"RebasePartial", kLonger, false, RebaseOntoNew, {1, 2, 40, 70}},
    {"RebaseOntoNothing", kLonger, false, RebaseOntoNothing},
};

using DataVerbCase = std::tuple<DataVerb, Sweep>;

class DataVerbFault : public testing::TestWithParam<DataVerbCase> {};

TEST_P(DataVerbFault, EveryDiskReadsAsBefore) {
  const auto& [verb, sweep] = GetParam();
  FakeFileSystem made;
  made.MakeDirectory(kDirectory);
  made.MakeDirectory(kOtherDirectory);
  ASSERT_OK_AND_ASSIGN(std::vector<std::byte> contents,
                       MakeTestImage(made, kDirectory, verb.spec));
  ASSERT_OK_AND_ASSIGN(const std::vector<std::byte> other,
                       MakeTestImage(made, kOtherDirectory,
                                     {.size = 6 * kClusterSize,
                                      .backing_size = 6 * kClusterSize,
                                      .allocated = {0},
                                      .seed = 2}));
  if (!verb.subclusters.empty()) AddSubclusters(made, verb.subclusters, &contents);
  const auto expect_reads = [&](FakeFileSystem& files) {
    ExpectReads(files, contents);
    ExpectReads(files, other, kOtherDirectory);
  };
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan::Fault fault = sweep.At(at);
    // Were removing to fail too, what was made beside could not be removed.
    fault.where = [](const Operation& operation) { return operation.kind != OpKind::kRemove; };
    FaultPlan plan(fault);
    ForwardingFileSystem faulty(*files, plan);
    const Status result = verb.run(faulty);
    SCOPED_TRACE("after a fault of " + plan.hit());
    EXPECT_EQ(files->open_files(), 0);
    if (!result) {
      EXPECT_TRUE(FailsOfFault(result, plan, sweep));
    }
    expect_reads(*files);
    EXPECT_OK(verb.run(*files));
    expect_reads(*files);
    ASSERT_OK_AND_ASSIGN(const CheckReport left,
                         CheckImage(*files, kAddCowPath, Repair::kNone));
    EXPECT_FALSE(left.error);
    EXPECT_EQ(left.corruptions(), 0u);
    if (verb.empties) {
      EXPECT_EQ(left.allocated_clusters + left.partial_clusters, 0u);
    }
    if (SweepEnds(at, plan.fired())) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Sweeps, DataVerbFault,
                         testing::Combine(testing::ValuesIn(kDataVerbs),
                                          testing::ValuesIn(kSweeps)),
                         kCaseAndSweepName);

}  // namespace
}  // namespace addcow
