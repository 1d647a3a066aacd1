// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The proof that the crash search can find bugs: each of those in
// mutants.list is put into the engine, and must be found. This program has
// the changed copies of the engine's sources; with none of the bugs switched
// on the search finds nothing in them.

#include "tests/crash/mutant.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <ostream>

#include "tests/crash/crash_search.h"
#include "tests/support/random.h"

namespace addcow {
namespace {

struct MutantInfo {
  const char* name;
  const char* why;
};

void PrintTo(const MutantInfo& mutant, std::ostream* out) { *out << mutant.why; }

const MutantInfo kMutants[] = {
#include "tests/crash/mutated/names.inc"
};

// Far more than any of them needs: some are found once in some hundred thousand.
constexpr uint64_t kMutantStates = 4000000;

// The same each time, so that how long this takes is no matter of luck: a search with
// another seed may need a million states for one of them. ADDCOW_SEED takes another.
uint64_t MutantSeed() { return EnvironmentNumber("ADDCOW_SEED", 2); }

class CrashSearchFinds : public testing::TestWithParam<MutantInfo> {
 protected:
  void TearDown() override { active_mutant = {}; }
};

TEST_P(CrashSearchFinds, TheMutant) {
  // How strong the search is does not depend on how it was compiled.
#if defined(__SANITIZE_ADDRESS__) || !defined(__OPTIMIZE__)
  GTEST_SKIP()
      << "too slow in this build; one with optimisation and without sanitizers does it";
#endif
  active_mutant = GetParam().name;
  const CrashSearchReport report = SearchCrashes(MutantSeed(), kMutantStates);
  ASSERT_NE(report.wrong, "") << GetParam().name << ": " << GetParam().why
                              << ", and nothing was wrong in " << report.states
                              << " states; ADDCOW_SEED=" << MutantSeed();
  std::cout << fmt::format("# {}: found after {} states of {} disks: {}\n", GetParam().why,
                           report.states, report.disks,
                           report.wrong.substr(0, report.wrong.find('\n')));
}

std::string TestName(const testing::TestParamInfo<MutantInfo>& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Mutants, CrashSearchFinds, testing::ValuesIn(kMutants), TestName);

TEST(CrashSearch, FindsNothingWithoutAMutant) {
  const CrashSearchReport report = SearchCrashes(TestSeed(), 5000);
  EXPECT_EQ(report.wrong, "") << "repeat it with ADDCOW_SEED=" << report.wrong_seed;
}

}  // namespace
}  // namespace addcow
