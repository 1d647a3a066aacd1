// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow upgrade and downgrade when the power fails at any moment: the image has the old
// form or the new one, whole; the disk reads the same from either; and the verb can be
// run again.

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "common/ops/convert.h"
#include "tests/crash/ops_crash.h"
#include "tests/support/fault_file.h"
#include "tests/support/forms.h"

namespace addcow {
namespace {

Result<ConvertResult> Convert(FileSystem& files, const Form& form, bool subclusters) {
  return ConvertImage(files,
                      {.source = {.add_cow_path = kAddCowPath},
                       .revision = form.revision,
                       .cluster_size = form.cluster_size,
                       .subclusters = subclusters},
                      [](LogLevel, const std::string&) {});
}

using FromTo = std::tuple<Form, Form>;

class ConvertCrash : public OpsCrash, public testing::WithParamInterface<FromTo> {
 protected:
  // Runs it there, and looks at all that a crash may leave.
  void ExpectOldOrNew(const ImageSpec& spec, bool subclusters) {
    MakeImage(spec);
    const Form& to = std::get<1>(GetParam());
    const Header old = TestHeader(files_);
    Header now = old;
    Run(
        [&](FileSystem& disk) {
          ASSERT_OK_AND_ASSIGN(const ConvertResult result, Convert(disk, to, subclusters));
          now = result.after;
        },
        [&](FakeFileSystem& files, bool returned) {
          const Header found = TestHeader(files);
          if (returned) {
            EXPECT_EQ(found, now);
          } else {
            const bool is_old = found.revision == old.revision &&
                                found.cluster_size == old.cluster_size &&
                                found.no_subclusters == old.no_subclusters;
            const bool is_new = found.revision == to.revision &&
                                found.cluster_size == to.cluster_size &&
                                found.no_subclusters == !subclusters;
            EXPECT_TRUE(is_old || is_new);
          }
          ExpectSound(files, spec);
          if (returned) return;
          ASSERT_OK(Convert(files, to, subclusters));
          ExpectSound(files, spec);
        });
    EXPECT_EQ(now.cluster_size, to.cluster_size);
    if (!subclusters) {
      EXPECT_FALSE(now.subclusters);
    }
  }

  void ExpectSound(FakeFileSystem& files, const ImageSpec& spec) {
    ASSERT_OK_AND_ASSIGN(const CheckReport report,
                         CheckImage(files, kAddCowPath, Repair::kNone));
    EXPECT_EQ(report.corruptions() + report.check_errors, 0u);
    const bool all = TestHeader(files).all_allocated;
    EXPECT_TRUE(all || !spec.all_allocated);
    const auto backing = files.Find(kBackingPath);
    if (all) (void)files.Remove(kBackingPath);
    auto image = OpenTestImage(files, kDirectory, OpenMode::kReadOnly);
    ASSERT_OK(image);
    EXPECT_EQ(Difference(ReadAll(**image), contents_), "");
    if (all && backing != nullptr) files.PutName(kBackingPath, backing);
  }

  // Small, so that many states can be looked at; of the largest clusters it has one.
  static ImageSpec Spec() {
    ImageSpec spec =
        InForm({.size = 3 * kC - 100, .backing_size = 2 * kC + 50}, std::get<0>(GetParam()));
    Random random(TestSeed());
    SetUnits(spec, RandomUnits(spec.size, 16, random));
    return spec;
  }
};

std::vector<FromTo> Ways() {
  std::vector<FromTo> ways;
  const Form forms[] = {kVersion1Form, k4kForm, k64kForm, k2MForm};
  for (const Form& from : forms)
    for (const Form& to : forms)
      if (from.name != to.name) ways.emplace_back(from, to);
  return ways;
}

INSTANTIATE_TEST_SUITE_P(, ConvertCrash, testing::ValuesIn(Ways()),
                         [](const testing::TestParamInfo<FromTo>& one) {
                           return std::string(std::get<0>(one.param).name) + "To" +
                                  std::get<1>(one.param).name;
                         });

TEST_P(ConvertCrash, LeavesTheOldFormOrTheNewAndTheSameDisk) { ExpectOldOrNew(Spec(), true); }

TEST_P(ConvertCrash, SoItDoesWhereItCopiesUp) { ExpectOldOrNew(Spec(), false); }

// Then all is, before the new form comes.
TEST_P(ConvertCrash, SoItDoesWhereThatAllocatesAll) {
  ImageSpec spec = Spec();
  Units units(DivideUp(spec.size, kSubclusterSize), true);
  units[5] = units.back() = false;
  SetUnits(spec, units);
  ExpectOldOrNew(spec, false);
}

TEST_P(ConvertCrash, SoItDoesWithAllAllocated) {
  ImageSpec spec = Spec();
  spec.subclusters.clear();
  spec.all_allocated = true;
  ExpectOldOrNew(spec, true);
}

// The new file has its name then, but not for sure. What the next process has flushed
// must not go with it.
TEST_F(OpsCrash, KilledBeforeTheNameOfTheNewFileWasDurable) {
  MakeImage({.size = 2 * kC, .backing_size = 2 * kC, .subclusters = {3}});
  CrashDisk disk(files_);
  FaultPlan faults({.at = 1,
                    .error = EIO,
                    .lasting = FaultPlan::Lasting::kPersistent,
                    .where = [](const Operation& operation) {
                      return operation.kind == OpKind::kSyncDirectory;
                    }});
  ForwardingFileSystem killed(disk, faults);
  EXPECT_FALSE(Convert(killed, k4kForm, true));
  EXPECT_EQ(TestHeader(disk.live()).cluster_size, 4 * kKiB);
  ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(disk));
  ASSERT_OK(image->Write(Repeat(1, 5000), 10000));
  ASSERT_OK(image->Flush());
  std::ranges::fill(std::span(contents_).subspan(10000, 5000), std::byte{1});
  ExpectReads(*disk.CrashLosingAll(), contents_);
}

}  // namespace
}  // namespace addcow
