// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The fixture of the tests of the tool's verbs when the power fails: one runs on files
// that are durable, and at every moment on its way what a crash may leave is looked at.

#ifndef ADDCOW_TESTS_CRASH_OPS_CRASH_H
#define ADDCOW_TESTS_CRASH_OPS_CRASH_H

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/support/crash_disk.h"
#include "tests/support/expect_reads.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {

class OpsCrash : public testing::Test {
 protected:
  OpsCrash() { files_.MakeDirectory(kDirectory); }

  void MakeImage(const ImageSpec& spec, const std::vector<uint64_t>& subclusters = {}) {
    auto contents = MakeTestImage(files_, kDirectory, spec);
    ASSERT_OK(contents);
    contents_ = std::move(*contents);
    if (!subclusters.empty()) AddSubclusters(files_, subclusters, &contents_);
  }

  // Runs `verb` on files_ and calls `check(files, returned)` for what crashes
  // on its way and after it leave.
  template <typename Verb, typename Check>
  void Run(Verb verb, Check check) {
    Random random(TestSeed());
    CrashDisk disk(files_);
    uint64_t states = 0;
    const auto check_all = [&](bool returned) {
      for (const CrashDisk::Choice& choice :
           disk.Choices(random, {.exhaustive = 8, .samples = 32})) {
        SCOPED_TRACE(disk.Describe(choice));
        check(*disk.Crash(choice), returned);
        states++;
      }
    };
    disk.SetHook([&](const Operation&) {
      if (!HasFailure()) check_all(false);
      return 0;
    });
    verb(disk);
    disk.SetHook(nullptr);
    if (!HasFailure()) check_all(true);
    EXPECT_GT(states, 4u);
  }

  void ExpectReads(FakeFileSystem& files, const std::vector<std::byte>& contents) {
    addcow::ExpectReads(files, contents, kDirectory, OpenMode::kReadWrite);
  }

  FakeFileSystem files_;
  std::vector<std::byte> contents_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_CRASH_OPS_CRASH_H
