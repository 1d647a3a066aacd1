// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The crash search, at the length that "make check" has time for. The long
// one is "make crash-search".
//
// ADDCOW_SEED repeats a run, ADDCOW_CRASH_STATES makes it shorter or longer.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <iostream>
#include <sstream>

#include "tests/crash/crash_search.h"

#ifndef __has_feature  // clang's
#define __has_feature(feature) 0
#endif

namespace addcow {
namespace {

// How many are looked at if nobody says. Ten times slower are sanitizers, and
// code that is not optimised.
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer) || \
    __has_feature(thread_sanitizer) || !defined(__OPTIMIZE__)
constexpr uint64_t kStates = 10000;
#else
constexpr uint64_t kStates = 200000;
#endif

// With so many states none of the kinds below is left out by chance.
constexpr uint64_t kManyStates = 100000;

TEST(RandomCrash, EverySectorReadsAVersionThatMayBeThere) {
  const uint64_t wanted = EnvironmentNumber("ADDCOW_CRASH_STATES", kStates);
  const CrashSearchReport report = SearchCrashes(TestSeed(), wanted);
  ASSERT_EQ(report.wrong, "") << "repeat it with ADDCOW_SEED=" << report.wrong_seed;
  std::cout << fmt::format("# {} states of {} disks\n", report.states, report.disks);
  std::istringstream lines(report.Counted());
  for (std::string line; std::getline(lines, line);) std::cout << "# " << line << '\n';
  EXPECT_GE(report.states, wanted);
  if (wanted < kManyStates) return;
  for (const char* what : {"write",
                           "whole-cluster write",
                           "zero",
                           "trim",
                           "copy-up",
                           "read",
                           "FUA",
                           "FUA beside a flush",
                           "FUA without room",
                           "flush",
                           "flatten",
                           "flatten killed",
                           "ALL_ALLOCATED",
                           "fill",
                           "backing file let go",
                           "clean close",
                           "SUBCLUSTERS",
                           "SUBCLUSTERS dropped",
                           "create",
                           "rebase",
                           "rebase of data",
                           "rebase of data killed",
                           "commit",
                           "commit killed",
                           "conversion",
                           "conversion killed",
                           "grow",
                           "shrink",
                           "resize killed",
                           "disk with clusters of 4 KiB",
                           "disk with clusters of 64 KiB",
                           "disk with clusters of 2048 KiB",
                           "race",
                           "power failure",
                           "process killed",
                           "killed in a flush",
                           "failed sync",
                           "failed change",
                           "moment with every subset",
                           "moment with samples"})
    EXPECT_GT(report.counts.contains(what) ? report.counts.at(what) : 0, 0u) << what;
}

}  // namespace
}  // namespace addcow
