// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/io/durable_create: the order of its steps, and that whatever step
// fails nothing is left behind. What a crash leaves is in
// tests/crash/durable_create_test.cc.

#include "common/io/durable_create.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class DurableCreateTest : public testing::Test {
 protected:
  DurableCreateTest() { fake_.MakeDirectory("/vm"); }

  Status Create(RenameMode mode = RenameMode::kKeepExisting) {
    return DurableCreate(log_system_, "/vm/new", mode, [](File& file) -> Status {
      ADDCOW_TRY(file.Write(Repeat(1, 10), 0));
      return file.Truncate(100);
    });
  }
  std::vector<std::byte> Contents(const std::string& path) {
    const auto inode = fake_.Find(path);
    return inode == nullptr ? std::vector<std::byte>() : inode->Bytes(0, inode->size());
  }
  std::vector<std::byte> Complete() {
    auto bytes = Repeat(1, 10);
    bytes.resize(100);
    return bytes;
  }

  const std::string temporary_ = fmt::format("/vm/new.{}.tmp", ::getpid());
  FakeFileSystem fake_;
  FaultPlan faults_;
  OperationLog log_;
  ForwardingFileSystem fault_system_{fake_, faults_};
  ForwardingFileSystem log_system_{fault_system_, log_};
};

TEST_F(DurableCreateTest, MakesTheFile) {
  ASSERT_OK(Create());
  EXPECT_EQ(Contents("/vm/new"), Complete());
  EXPECT_EQ(fake_.List(), std::vector<std::string>{"/vm/new"});
}

TEST_F(DurableCreateTest, SyncsContentsThenRenamesThenSyncsTheDirectory) {
  ASSERT_OK(Create());
  EXPECT_EQ(log_.Changes(), (std::vector<std::string>{
                                "create " + temporary_, "write " + temporary_ + " 0+10",
                                "truncate " + temporary_ + " 100", "sync " + temporary_,
                                "rename " + temporary_ + " /vm/new", "sync directory /vm"}));
}

// The temporary name means nothing to who gets the message.
TEST_F(DurableCreateTest, EveryFailureNamesTheFileThatWasAskedFor) {
  for (uint64_t at = 1;; at++) {
    faults_.Set({.at = at, .error = ENOSPC});
    const Status created = Create();
    if (!faults_.fired()) break;
    ASSERT_FALSE(created.has_value()) << at;
    EXPECT_EQ(created.error().Message().find(".tmp"), std::string::npos) << at;
    EXPECT_NE(created.error().Message().find("/vm"), std::string::npos) << at;
    (void)fake_.Remove("/vm/new");
  }
}

// Else a file could not have the longest name that its file system allows.
TEST_F(DurableCreateTest, TemporaryNameIsNoLongerThanALongName) {
  const std::string suffix = fmt::format(".{}.tmp", ::getpid());
  // The cut is after a two-byte character in one of the names, in the other
  // within one.
  for (const size_t first : {size_t{230}, size_t{231}}) {
    std::string name(255, 'n');
    for (size_t at = first; at + 1 < name.size(); at += 2) name.replace(at, 2, "\xc3\xbc");
    log_.Clear();
    ASSERT_OK(DurableCreate(log_system_, "/vm/" + name, RenameMode::kKeepExisting,
                            [](File& file) { return file.Write(Repeat(1, 10), 0); }));
    EXPECT_NE(fake_.Find("/vm/" + name), nullptr);
    const std::string created = log_.Changes().front();
    ASSERT_TRUE(created.starts_with("create /vm/n")) << created;
    const std::string temporary = created.substr(std::string("create /vm/").size());
    EXPECT_LE(temporary.size(), name.size());
    ASSERT_TRUE(temporary.ends_with(suffix)) << temporary;
    const std::string kept = temporary.substr(0, temporary.size() - suffix.size());
    EXPECT_TRUE(name.starts_with(kept)) << temporary;
    EXPECT_FALSE(kept.ends_with('\xc3')) << "half a character: " << temporary;
  }
}

TEST_F(DurableCreateTest, TemporaryFilesThatACrashLeftAreNotInTheWay) {
  fake_.Put(temporary_, Repeat(9, 5));
  fake_.Put(fmt::format("/vm/new.{}-2.tmp", ::getpid()), Repeat(9, 5));
  ASSERT_OK(Create());
  EXPECT_EQ(Contents("/vm/new"), Complete());
  EXPECT_EQ(Contents(temporary_), Repeat(9, 5));
  EXPECT_EQ(fake_.List().size(), 3u);
}

TEST_F(DurableCreateTest, KeepsAnExistingFile) {
  fake_.Put("/vm/new", Repeat(9, 5));
  EXPECT_TRUE(FailsWith(Create(RenameMode::kKeepExisting), EEXIST));
  EXPECT_EQ(Contents("/vm/new"), Repeat(9, 5));
  EXPECT_EQ(fake_.List(), std::vector<std::string>{"/vm/new"});
}

TEST_F(DurableCreateTest, ReplacesAnExistingFileIfTold) {
  fake_.Put("/vm/new", Repeat(9, 5));
  ASSERT_OK(Create(RenameMode::kReplace));
  EXPECT_EQ(Contents("/vm/new"), Complete());
}

TEST_F(DurableCreateTest, FailedFillIsTheErrorAndLeavesNothing) {
  const Status status = DurableCreate(
      log_system_, "/vm/new", RenameMode::kKeepExisting,
      [](File&) -> Status { return Fail(Error::Because(EINVAL, "/vm/new", "no")); });
  EXPECT_TRUE(FailsSaying(status, "/vm/new: no"));
  EXPECT_EQ(fake_.List(), std::vector<std::string>{});
}

// Which operation fails, with what, and what was there before.
TEST_F(DurableCreateTest, WhateverFailsNothingIsLeftBehind) {
  for (const int error : {EIO, ENOSPC}) {
    for (uint64_t at = 1;; at++) {
      faults_.Set({.at = at, .error = error});
      const Status status = Create();
      if (!faults_.fired()) {
        EXPECT_OK(status);
        EXPECT_EQ(at, 7u);  // as many steps as in the test of their order
        faults_.Clear();
        ASSERT_OK(fake_.Remove("/vm/new"));
        break;
      }
      EXPECT_TRUE(FailsWith(status, error)) << faults_.hit();
      EXPECT_EQ(fake_.List(), std::vector<std::string>{}) << faults_.hit();
    }
  }
}

TEST_F(DurableCreateTest, FailureNeverTakesAnExistingFileAway) {
  for (uint64_t at = 1;; at++) {
    fake_.Put("/vm/new", Repeat(9, 5));
    faults_.Set({.at = at, .error = EIO});
    const Status status = Create(RenameMode::kReplace);
    if (!faults_.fired()) break;
    EXPECT_TRUE(FailsWith(status, EIO)) << faults_.hit();
    EXPECT_EQ(fake_.List(), std::vector<std::string>{"/vm/new"}) << faults_.hit();
    // Once it is replaced it cannot be taken back, but it is complete.
    const auto contents = Contents("/vm/new");
    EXPECT_TRUE(contents == Repeat(9, 5) || contents == Complete()) << faults_.hit();
  }
}

TEST_F(DurableCreateTest, InterruptedCallsAreInvisible) {
  for (uint64_t at = 1;; at++) {
    faults_.Set({.at = at, .error = EINTR});
    ASSERT_OK(Create(RenameMode::kReplace)) << faults_.hit();
    EXPECT_EQ(Contents("/vm/new"), Complete());
    if (!faults_.fired()) break;
  }
}

TEST_F(DurableCreateTest, FindsWhatNobodyFinishes) {
  constexpr int kNobody = 0x7ffffffe;  // no process has such a number
  const std::string left = fmt::format("/vm/new.{}.tmp", kNobody);
  const std::string again = fmt::format("/vm/new.{}-2.tmp", kNobody);
  for (const std::string& name :
       {left, again, temporary_, fmt::format("/vm/new.{}.tmp", ::getppid()),
        fmt::format("/vm/other.{}.tmp", kNobody), fmt::format("/vm/new.{}", kNobody),
        fmt::format("/vm/new.{}-1.tmp", kNobody), std::string("/vm/new.x.tmp"),
        std::string("/vm/new..tmp"), std::string("/vm/new.-5.tmp"), std::string("/vm/new.tmp")})
    fake_.Put(name);
  fake_.PutSymbolicLink(fmt::format("/vm/new.{}-3.tmp", kNobody), "/vm/new");
  EXPECT_EQ(LeftUnfinished(fake_, "/vm/new"), (std::vector<std::string>{again, left}));
  EXPECT_TRUE(LeftUnfinished(fake_, "/vm/ne").empty());
  EXPECT_TRUE(LeftUnfinished(fake_, "/nothing/new").empty());
}

// A file system with neither RENAME_NOREPLACE nor hard links.
TEST_F(DurableCreateTest, LastRungTakesTheNameWithAnEmptyFile) {
  fake_.ForbidKeepExisting();
  ASSERT_OK(Create());
  EXPECT_EQ(Contents("/vm/new"), Complete());
  EXPECT_EQ(fake_.List(), std::vector<std::string>{"/vm/new"});
  const auto changes = log_.Changes();
  ASSERT_GE(changes.size(), 4u);
  EXPECT_EQ(
      std::vector(changes.end() - 4, changes.end()),
      (std::vector<std::string>{"rename " + temporary_ + " /vm/new", "create /vm/new",
                                "rename " + temporary_ + " /vm/new", "sync directory /vm"}));
}

TEST_F(DurableCreateTest, LastRungReplacesNoFile) {
  fake_.ForbidKeepExisting();
  fake_.Put("/vm/new", Repeat(9, 9));
  EXPECT_TRUE(FailsWith(Create(), EEXIST));
  EXPECT_EQ(Contents("/vm/new"), Repeat(9, 9));
  EXPECT_EQ(fake_.List(), std::vector<std::string>{"/vm/new"});
}

TEST_F(DurableCreateTest, WhateverFailsOnTheLastRungNothingIsLeftBehind) {
  fake_.ForbidKeepExisting();
  for (uint64_t at = 1;; at++) {
    FaultPlan::Fault fault{.at = at, .error = EIO};
    fault.where = [](const Operation& operation) { return operation.kind != OpKind::kRemove; };
    faults_.Set(fault);
    const Status created = Create();
    if (!faults_.fired()) {
      EXPECT_OK(created);
      EXPECT_GT(at, 6u);
      break;
    }
    EXPECT_TRUE(FailsWith(created, EIO)) << faults_.hit();
    EXPECT_TRUE(fake_.List().empty()) << faults_.hit();
  }
}

TEST_F(DurableCreateTest, TheNewFileHasTheRightsThatItIsToHave) {
  FileInfo model;
  model.permissions = 0640;
  model.owner = 5;
  model.group = 7;
  const auto fill = [](File&) -> Status { return {}; };
  ASSERT_OK(DurableCreate(fake_, "/vm/new", RenameMode::kReplace, fill, nullptr,
                          {.kind = NewRights::Kind::kSame, .model = model}));
  EXPECT_EQ(fake_.Find("/vm/new")->Info()->permissions, 0640u);
  EXPECT_EQ(fake_.Find("/vm/new")->Info()->owner, 5u);
  EXPECT_EQ(fake_.Find("/vm/new")->Info()->group, 7u);
}

TEST(RightsWithin, NobodyButTheOwnerMayDoMoreThanWithTheModel) {
  const auto within = [](uint32_t permissions, bool same_group) {
    FileInfo model;
    model.permissions = permissions;
    return RightsWithin(model, same_group);
  };
  EXPECT_EQ(within(0600, true), 0600u);
  EXPECT_EQ(within(0640, true), 0640u);
  EXPECT_EQ(within(0755, true), 0644u);
  EXPECT_EQ(within(0666, true), 0666u);
  // A base that nobody may write has an image file that its owner may.
  EXPECT_EQ(within(0444, true), 0644u);
  // Another group: who is in it may have been in the model's or not.
  EXPECT_EQ(within(0660, false), 0600u);
  EXPECT_EQ(within(0664, false), 0644u);
  EXPECT_EQ(within(0604, false), 0600u);
}

}  // namespace
}  // namespace addcow
