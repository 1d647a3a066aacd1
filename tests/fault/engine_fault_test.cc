// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation that the engine asks of its files and of the file system
// fails once, in every way, in a script that uses all of the engine. Whatever
// fails:
//
// - a request that failed has left, byte by byte, the old or the new content,
//   and its error is one that a client sees as EIO or ENOSPC;
// - one that succeeded reads back, and after a flush that succeeded it is in
//   the files, for the process that opens them next;
// - the image is sound, the backing file unchanged, no file left open;
// - later requests work, or are refused where a sync has failed.

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "tests/fault/engine_script.h"
#include "tests/fault/sweep.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"

namespace addcow {
namespace {

// When the fault ends, if it has not by then.
enum class Until {
  kClosed,     // never: the process ends with it
  kScriptRan,  // before later requests
};

// Which bits the image has at first, and may get.
enum class Grain { kClusters, kNewSubclusters, kFoundSubclusters };

struct Setting {
  Until until;
  Grain grain;
  const char* name;
  Form form = kVersion1Form;
  bool on_image = false;  // the backing file is an add-cow file
};

constexpr Setting kSettings[] = {
    {Until::kScriptRan, Grain::kClusters, "ThenMoreWithoutSubclusters"},
    {Until::kScriptRan, Grain::kNewSubclusters, "ThenMore"},
    {Until::kClosed, Grain::kNewSubclusters, "UntilClosed"},
    {Until::kClosed, Grain::kFoundSubclusters, "UntilClosedWithSubclusters"},
    {Until::kScriptRan, Grain::kNewSubclusters, "ThenMoreOnAnImage", kVersion1Form, true},
};

// With clusters as small as subclusters, and with large ones. Those take longer, for
// their disks do; so in some of the ways.
constexpr Setting kOtherForms[] = {
    {Until::kScriptRan, Grain::kClusters, "ThenMoreOf4k", k4kForm},
    {Until::kClosed, Grain::kFoundSubclusters, "UntilClosedOf2M", k2MForm},
};
constexpr Sweep kOtherFormsSweeps[] = {
    kSweeps[0],  // an error once
    kSweeps[3],  // no room for ever
    kSweeps[4],  // torn once
    kSweeps[7],  // short once
};

using EngineCase = std::tuple<Sweep, Setting>;

class EngineFault : public testing::TestWithParam<EngineCase> {
 protected:
  // What the next process finds in the files. `bytes`: memory for them.
  static void ExpectSound(FakeFileSystem& files, const EngineScript& script,
                          std::vector<std::byte>& bytes) {
    {
      auto reopened = OpenTestImage(files);
      ASSERT_OK(reopened);
      ReadAll(**reopened, bytes);
      EXPECT_EQ(script.Check(bytes, true), "") << "reopened";
    }
    const auto report = CheckImage(files, kAddCowPath, Repair::kNone);
    ASSERT_OK(report);
    EXPECT_EQ(report->corruptions() + report->check_errors, 0u);
  }
};

TEST_P(EngineFault, NothingAcknowledgedIsLost) {
  const auto& [sweep, setting] = GetParam();
  const auto& [until, grain, name, form, on_image] = setting;
  const bool subclusters = grain != Grain::kClusters;
  ImageSpec spec = EngineScript::Spec(form);
  spec.on_image = on_image;
  const uint64_t first = EngineScript::Start(form.cluster_size) / kSubclusterSize;
  if (grain == Grain::kFoundSubclusters)
    for (const uint64_t subcluster : {1u, 16u, 130u, 170u, 223u})
      spec.subclusters.push_back(first + subcluster);
  FakeFileSystem made;
  made.MakeDirectory(kDirectory);
  ASSERT_OK_AND_ASSIGN(const std::vector<std::byte> contents,
                       MakeTestImage(made, kDirectory, spec));
  std::vector<std::byte> bytes;
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan plan(sweep.At(at));
    SyncWatch watch;
    ForwardingFileSystem faulty(*files, plan);
    ForwardingFileSystem watched(faulty, watch);
    std::vector<std::string> messages;
    auto image =
        OpenTestImage(watched, kDirectory, OpenMode::kReadWrite, &messages, subclusters);
    bool fired = plan.fired();
    if (image) {
      EngineScript script(**image, contents);
      script.Run();
      fired = plan.fired();
      SCOPED_TRACE("after a fault of " + plan.hit());
      if (until == Until::kClosed) {
        script.Close();
        fired = plan.fired();
        plan.Clear();  // what is looked at now must be seen
        ReadAll(**image, bytes);
        EXPECT_EQ(script.Check(bytes, false), "") << "in process";
      } else {
        plan.Clear();
        ExpectSound(*files->Clone(), script, bytes);
        script.RunAfterFault(watch.failed());
        script.Close();
      }
      EXPECT_EQ(script.wrong(), "");
      EXPECT_EQ(script.ends(), watch.failed() ? 1u : 0u);
      EXPECT_EQ(messages, std::vector<std::string>());
      image->reset();
      EXPECT_EQ(files->open_files(), 0);
      ExpectSound(*files, script, bytes);
      if (!sweep.visible || !fired) {
        EXPECT_EQ(script.failures(), 0u);
      }
    } else {
      SCOPED_TRACE("not opened for a fault of " + plan.hit());
      EXPECT_TRUE(sweep.visible);
      EXPECT_TRUE(FailsWith(image, sweep.error));
      EXPECT_EQ(files->open_files(), 0);
      plan.Clear();
      ASSERT_OK_AND_ASSIGN(auto again, OpenTestImage(watched));
      EXPECT_EQ(Difference(ReadAll(*again), contents), "");
    }
    for (const std::string& path : made.List()) {
      if (path == kAddCowPath || path == kImagePath) continue;
      EXPECT_TRUE(files->Find(path)->SameBytes(*made.Find(path))) << path;
    }
    if (SweepEnds(at, fired, 10)) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Sweeps, EngineFault,
                         testing::Combine(testing::ValuesIn(kSweeps),
                                          testing::ValuesIn(kSettings)),
                         kCaseAndSweepName);
INSTANTIATE_TEST_SUITE_P(OtherForms, EngineFault,
                         testing::Combine(testing::ValuesIn(kOtherFormsSweeps),
                                          testing::ValuesIn(kOtherForms)),
                         kCaseAndSweepName);

}  // namespace
}  // namespace addcow
