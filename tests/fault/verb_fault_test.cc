// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation of the tool's verbs fails, in every way. "create" is in
// create_fault_test.cc. Whatever fails:
//
// - a verb that reports success has given the same answer as without faults;
//   one that fails gives an errno that is the fault's, or EIO;
// - verbs that only look have changed nothing;
// - verbs that write have changed nothing that is read, leave the image sound,
//   and do all of their work when they are run again;
// - no file is left open.

#include <gtest/gtest.h>

#include <fmt/format.h>

#include "common/ops/check.h"
#include "common/ops/convert.h"
#include "common/ops/flatten.h"
#include "common/ops/info.h"
#include "common/ops/map.h"
#include "common/ops/rebase.h"
#include "common/ops/summary.h"
#include "tests/fault/sweep.h"
#include "tests/support/expect_reads.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/forms.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

Result<std::string> Info(FileSystem& files) {
  ADDCOW_TRY_ASSIGN(const ImageInfo info, GetInfo(files, kAddCowPath));
  return fmt::format("{} {} {} {} {} {} {} {} {}", info.image_path, info.backing_path,
                     info.virtual_size, info.actual_size, info.header.all_allocated,
                     info.header.subclusters, info.allocated_clusters, info.partial_clusters,
                     info.allocated_subclusters);
}

Result<std::string> Map(FileSystem& files) {
  std::string text;
  ADDCOW_TRY(MapImage(files, kAddCowPath, NoLog, [&](const MapEntry& entry) {
    text += fmt::format("{}+{} {} {} {}\n", entry.start, entry.length, entry.depth,
                        entry.present, entry.data);
    return true;
  }));
  return text;
}

Result<std::string> Summarize(FileSystem& files) {
  ADDCOW_TRY_ASSIGN(const ImageSummary summary,
                    SummarizeImage(files, {.add_cow_path = kAddCowPath}, NoLog,
                                   [](uint64_t) { return 3 * kSubclusterSize; }));
  std::string text;
  for (const KindBytes& part : summary.disk.parts())
    text += fmt::format("{} {} {} {}\n", part[DiskKind::kImage], part[DiskKind::kPartial],
                        part[DiskKind::kBacking], part[DiskKind::kHole]);
  return text;
}

Result<std::string> Check(FileSystem& files, Repair repair) {
  ADDCOW_TRY_ASSIGN(const CheckReport report, CheckImage(files, kAddCowPath, repair));
  if (report.error) {
    EXPECT_EQ(report.check_errors, 1u);
    return Fail(*report.error);
  }
  return fmt::format("{} {} {} {} {} {} {} {} {} {}", report.total_clusters,
                     report.allocated_clusters, report.partial_clusters, report.check_errors,
                     report.missing_bits, report.leaked_clusters, report.leaked_subclusters,
                     report.stray_bits, report.fixed_bits, report.fixed_leaks);
}

Result<std::string> Flatten(FileSystem& files) {
  ADDCOW_TRY_ASSIGN(const FlattenResult result,
                    FlattenImage(files, kAddCowPath, NoLog, [](uint64_t, uint64_t) {}));
  return fmt::format("{} {} {}", result.copied, result.image_path, result.backing_path);
}

Result<std::string> Rebase(FileSystem& files, const char* backing, const char* image) {
  RebaseOptions options{.add_cow_path = kAddCowPath, .backing = {}, .image_name = {}};
  if (backing != nullptr) options.backing = NamedFile{backing, "raw"};
  if (image != nullptr) options.image_name = image;
  ADDCOW_TRY_ASSIGN(const RebaseResult result, RebaseUnsafely(files, options));
  return fmt::format("{} {}", result.header.backing->name, result.header.image.name);
}

Result<std::string> Convert(FileSystem& files, const Form& form, bool subclusters) {
  ADDCOW_TRY_ASSIGN(const ConvertResult result,
                    ConvertImage(files,
                                 {.source = {.add_cow_path = kAddCowPath},
                                  .revision = form.revision,
                                  .cluster_size = form.cluster_size,
                                  .subclusters = subclusters},
                                 NoLog));
  return fmt::format("{} {} {} {}", result.after.cluster_size, result.after.subclusters,
                     result.after.no_subclusters, result.virtual_size);
}

// An image with leaks: old bytes under most of its 0 bits.
const ImageSpec kLeaking{.size = 14 * kClusterSize + 1,
                         .backing_size = 10 * kClusterSize + 100,
                         .allocated = {3, 7, 12}};

// One with ALL_ALLOCATED, for which SpoilBits makes bits wrong.
const ImageSpec kSpoilt{.size = 14 * kClusterSize + 1, .all_allocated = true};

void SpoilBits(FakeFileSystem& files) {
  FakeInode& add_cow = *files.Find(kAddCowPath);
  ASSERT_TRUE(add_cow.Write(Repeat(0x4b, 1), kBitmapOffset + 1));    // the last one is 1
  ASSERT_TRUE(add_cow.Write(Repeat(0xf0, 100), kBitmapOffset + 2));  // past the last cluster
}

// For kLeaking: of some clusters, one of which is allocated, and of the last; and with
// one that is past the end.
const std::vector<uint64_t> kSubclusters = {0, 5, 6, 7 * 16 + 3, 9 * 16 + 15, 14 * 16};
const std::vector<uint64_t> kStray = {0, 5, 6, 7 * 16 + 3, 9 * 16 + 15, 14 * 16, 227};

struct Verb {
  const char* name;
  ImageSpec spec;
  bool writes;
  std::function<Result<std::string>(FileSystem&)> run;
  std::vector<uint64_t> subclusters = {};
};

const Verb kVerbs[] = {
    {"Info", kLeaking, false, Info},
    {"Map", kLeaking, false, Map},
    {"Summary", kLeaking, false, Summarize},
    {"Check", kLeaking, false, [](FileSystem& files) { return Check(files, Repair::kNone); }},
    {"CheckSpoilt", kSpoilt, false,
     [](FileSystem& files) { return Check(files, Repair::kNone); }},
    {"RepairLeaks", kLeaking, true,
     [](FileSystem& files) { return Check(files, Repair::kLeaks); }},
    {"RepairAll", kSpoilt, true, [](FileSystem& files) { return Check(files, Repair::kAll); }},
    {"Flatten", kLeaking, true, Flatten},
    {"RebaseBacking", kLeaking, true,
     [](FileSystem& files) { return Rebase(files, "../vm/base.img", nullptr); }},
    {"RebaseImage", kLeaking, true,
     [](FileSystem& files) { return Rebase(files, nullptr, "../vm/disk.raw"); }},
    {"SubclustersInfo", kLeaking, false, Info, kSubclusters},
    {"SubclustersMap", kLeaking, false, Map, kSubclusters},
    {"SubclustersSummary", kLeaking, false, Summarize, kSubclusters},
    {"SubclustersCheck", kLeaking, false,
     [](FileSystem& files) { return Check(files, Repair::kNone); }, kSubclusters},
    {"SubclustersRepairLeaks", kLeaking, true,
     [](FileSystem& files) { return Check(files, Repair::kLeaks); }, kSubclusters},
    {"SubclustersRepairAll", kLeaking, true,
     [](FileSystem& files) { return Check(files, Repair::kAll); }, kStray},
    {"SubclustersFlatten", kLeaking, true, Flatten, kSubclusters},
    {"SubclustersRebaseBacking", kLeaking, true,
     [](FileSystem& files) { return Rebase(files, "../vm/base.img", nullptr); }, kSubclusters},
    {"SubclustersRebaseImage", kLeaking, true,
     [](FileSystem& files) { return Rebase(files, nullptr, "../vm/disk.raw"); }, kSubclusters},
    {"Upgrade4k", kLeaking, true,
     [](FileSystem& files) { return Convert(files, k4kForm, true); }, kSubclusters},
    {"Upgrade2M", kLeaking, true,
     [](FileSystem& files) { return Convert(files, k2MForm, true); }, kSubclusters},
    {"UpgradeCopyingUp", kLeaking, true,
     [](FileSystem& files) { return Convert(files, k64kForm, false); }, kSubclusters},
    {"Downgrade4k", InForm(kLeaking, k4kForm), true,
     [](FileSystem& files) { return Convert(files, kVersion1Form, true); }},
    {"DowngradeCopyingUp", InForm(kLeaking, k8kForm), true,
     [](FileSystem& files) { return Convert(files, kVersion1Form, false); }, kSubclusters},
};

using VerbCase = std::tuple<Verb, Sweep>;

class VerbFault : public testing::TestWithParam<VerbCase> {};

// A second bitmap that is used no more may stay: the flags were written, and a failed
// sync kept it from being cut off. Nobody reads it, for all is allocated.
void CutUnusedBitmap(FakeFileSystem& files, uint64_t size) {
  FakeInode& add_cow = *files.Find(kAddCowPath);
  if (add_cow.size() <= size) return;
  ASSERT_TRUE(add_cow.Truncate(size));
}

TEST_P(VerbFault, FailsCleanlyOrDoesItsWork) {
  const auto& [verb, sweep] = GetParam();
  FakeFileSystem made;
  made.MakeDirectory(kDirectory);
  ASSERT_OK_AND_ASSIGN(std::vector<std::byte> contents,
                       MakeTestImage(made, kDirectory, verb.spec));
  if (!verb.subclusters.empty()) {
    AddSubclusters(made, verb.subclusters, &contents);
  }
  if (verb.spec.all_allocated) SpoilBits(made);
  const auto undisturbed = made.Clone();
  ASSERT_OK_AND_ASSIGN(const std::string answer, verb.run(*undisturbed));
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan::Fault fault = sweep.At(at);
    // Were removing to fail too, what rebase made beside could not be removed.
    fault.where = [](const Operation& operation) { return operation.kind != OpKind::kRemove; };
    FaultPlan plan(fault);
    ForwardingFileSystem faulty(*files, plan);
    const Result<std::string> result = verb.run(faulty);
    SCOPED_TRACE("after a fault of " + plan.hit());
    EXPECT_EQ(files->open_files(), 0);
    if (result) {
      EXPECT_EQ(*result, answer);
    } else {
      EXPECT_TRUE(FailsOfFault(result, plan, sweep));
    }
    if (verb.writes) {
      ExpectReads(*files, contents);
      EXPECT_TRUE(files->Find(kBackingPath)->SameBytes(*made.Find(kBackingPath)));
      ASSERT_OK_AND_ASSIGN(const CheckReport left,
                           CheckImage(*files, kAddCowPath, Repair::kNone));
      EXPECT_FALSE(left.error);
      if (!verb.spec.all_allocated) {
        EXPECT_EQ(left.corruptions(), 0u);
      }
      EXPECT_OK(verb.run(*files));
      CutUnusedBitmap(*files, undisturbed->Find(kAddCowPath)->size());
      EXPECT_EQ(files->DifferenceFrom(*undisturbed), "") << "run again";
    } else {
      EXPECT_EQ(files->DifferenceFrom(made), "");
    }
    if (SweepEnds(at, plan.fired())) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Sweeps, VerbFault,
                         testing::Combine(testing::ValuesIn(kVerbs),
                                          testing::ValuesIn(kSweeps)),
                         kCaseAndSweepName);

}  // namespace
}  // namespace addcow
