// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/io/durable_create when the power fails at any moment: the file is
// there complete, or it is not there, or the one before it still is.

#include "common/io/durable_create.h"

#include <gtest/gtest.h>

#include "tests/support/crash_disk.h"
#include "tests/support/expect.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class DurableCreateCrash : public testing::Test {
 protected:
  // Runs DurableCreate and calls `check` for every state that a crash may
  // leave on its way, with the file's contents (nothing: no such file), and
  // whether it had returned.
  template <typename Check>
  void Run(const FakeFileSystem& initial, RenameMode mode, Check check) {
    Random random(TestSeed());
    CrashDisk disk(initial);
    uint64_t states = 0;
    const auto check_all = [&](bool returned) {
      for (const CrashDisk::Choice& choice :
           disk.Choices(random, {.exhaustive = 12, .samples = 64})) {
        SCOPED_TRACE(disk.Describe(choice));
        const auto inode = disk.Crash(choice)->Find("/d/new");
        std::optional<std::vector<std::byte>> contents;
        if (inode != nullptr) contents = inode->Bytes(0, inode->size());
        check(contents, returned);
        states++;
      }
    };
    disk.SetHook([&](const Operation&) {
      check_all(false);
      return 0;
    });
    ASSERT_OK(DurableCreate(disk, "/d/new", mode, [&](File& file) -> Status {
      for (uint64_t i = 0; i < 3; i++) ADDCOW_TRY(file.Write(Repeat(7, 4096), i * 4096));
      return {};
    }));
    check_all(true);
    EXPECT_GT(states, 20u);
  }

  const std::vector<std::byte> complete_ = Repeat(7, 3 * 4096);
  const std::vector<std::byte> old_ = Repeat(9, 100);
};

TEST_F(DurableCreateCrash, NewFileIsCompleteOrNotThere) {
  FakeFileSystem initial;
  initial.MakeDirectory("/d");
  Run(initial, RenameMode::kKeepExisting, [&](const auto& contents, bool returned) {
    EXPECT_TRUE(contents == complete_ || (!contents && !returned));
  });
}

TEST_F(DurableCreateCrash, ReplacedFileIsTheOldOneOrTheNew) {
  FakeFileSystem initial;
  initial.Put("/d/new", old_);
  Run(initial, RenameMode::kReplace, [&](const auto& contents, bool returned) {
    EXPECT_TRUE(contents == complete_ || (contents == old_ && !returned));
  });
}

}  // namespace
}  // namespace addcow
