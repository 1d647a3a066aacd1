// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation of an export fails, in every way. Whatever fails: the image is as it was;
// where it is exported to lies what was there, or, with success, the whole disk; nothing else
// is left, no file is open, and it can be run again. The error names the file.

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/fault/sweep.h"
#include "tests/support/export_fixture.h"

namespace addcow {
namespace {

struct ExportFaultCase {
  const char* name;
  ImageSpec spec;
  std::vector<uint64_t> subclusters = {};
  bool replaces = false;

  friend void PrintTo(const ExportFaultCase& one, std::ostream* out) { *out << one.name; }
};

const ExportFaultCase kExportFaults[] = {
    {"Whole", {.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1, 2}}},
    {"InPart", {.size = 4 * kC - 100, .backing_size = 4 * kC, .allocated = {1}}, {0, 33, 63}},
    {"Zeroes", {.size = 4 * kC, .backing_size = 4 * kC, .garbage = false, .allocated = {0, 3}}},
    {"WithoutBase", {.size = 3 * kC, .backing_size = std::nullopt, .all_allocated = true}},
    {"Replaced", {.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1}}, {}, true},
};

using ExportFaultParameter = std::tuple<ExportFaultCase, Sweep>;

class ExportFault : public testing::TestWithParam<ExportFaultParameter> {};

// The file whose operation failed, by the name that users know. `hit`: the plan's.
std::string NameOfFault(const std::string& hit) {
  const std::string path = hit.substr(std::min(hit.find('/'), hit.size()));
  return path.starts_with(kExportPath) ? kExportPath : path.substr(0, path.find(' '));
}

TEST_P(ExportFault, LeavesTheImageAndAWholeFileOrNone) {
  const auto& [one, sweep] = GetParam();
  ExportedImage image;
  FakeFileSystem made;
  image.PutInto(made, one.spec, one.subclusters);
  if (one.replaces) ExportedImage::PutOld(made);
  const ExportOptions options = ExportedImage::Options(one.replaces);
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan::Fault fault = sweep.At(at);
    // Were removing to fail too, what was made could not be removed.
    fault.where = [](const Operation& operation) { return operation.kind != OpKind::kRemove; };
    FaultPlan plan(fault);
    ForwardingFileSystem faulty(*files, plan);
    const auto exported = image.Export(faulty, options);
    SCOPED_TRACE("after a fault of " + plan.hit());
    EXPECT_EQ(files->open_files(), 0);
    ExportedImage::ExpectOnlyOutput(made, *files);
    if (exported) {
      image.ExpectExported(*files);
    } else {
      EXPECT_TRUE(plan.fired() && sweep.visible);
      EXPECT_TRUE(FailsWith(exported, sweep.error));
      // With one that lasts it may be another's.
      if (sweep.lasting == FaultPlan::Lasting::kTransient) {
        EXPECT_TRUE(FailsSaying(exported, NameOfFault(plan.hit())));
      }
      const auto output = files->Find(kExportPath);
      const auto old = made.Find(kExportPath);
      // Only where replacing it succeeded, and then the directory's sync failed.
      if (old != nullptr && output != nullptr && !output->SameBytes(*old)) {
        image.ExpectExported(*files);
      } else {
        EXPECT_EQ(files->DifferenceFrom(made), "");
        EXPECT_OK(image.Export(*files, options));
        image.ExpectExported(*files);
      }
    }
    if (SweepEnds(at, plan.fired())) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Sweeps, ExportFault,
                         testing::Combine(testing::ValuesIn(kExportFaults),
                                          testing::ValuesIn(kSweeps)),
                         kCaseAndSweepName);

}  // namespace
}  // namespace addcow
