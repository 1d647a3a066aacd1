// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation of an import fails, in every way: one that failed leaves nothing behind,
// and can be run again.

#include <gtest/gtest.h>

#include "tests/fault/sweep.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/import_fixture.h"

namespace addcow {
namespace {

class ImportFault : public testing::TestWithParam<Sweep> {};

TEST_P(ImportFault, LeavesNothingBehind) {
  const Sweep& sweep = GetParam();
  ImportLayerFixture layer;
  FakeFileSystem made;
  layer.PutInto(made);
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan::Fault fault = sweep.At(at);
    // Were removing to fail too, what was made could not be removed.
    fault.where = [](const Operation& operation) { return operation.kind != OpKind::kRemove; };
    FaultPlan plan(fault);
    ForwardingFileSystem faulty(*files, plan);
    const auto imported = layer.Import(faulty, layer.Options());
    SCOPED_TRACE("after a fault of " + plan.hit());
    EXPECT_EQ(files->open_files(), 0);
    if (!imported) {
      EXPECT_TRUE(plan.fired() && sweep.visible);
      EXPECT_TRUE(FailsWith(imported, sweep.error));
      EXPECT_EQ(files->DifferenceFrom(made), "");
      EXPECT_OK(layer.Import(*files, layer.Options()));
    }
    layer.ExpectRead(*files);
    if (SweepEnds(at, plan.fired())) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Sweeps, ImportFault, testing::ValuesIn(kSweeps), SweepName);

}  // namespace
}  // namespace addcow
