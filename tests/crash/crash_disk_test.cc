// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The double that the crash tests stand on, tested itself: were it too kind,
// they would prove nothing.

#include "tests/support/crash_disk.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/crash_model.h"
#include "tests/support/expect.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

// Two files of 4096 bytes of value 1.
class CrashDiskTest : public testing::Test {
 protected:
  CrashDiskTest() {
    FakeFileSystem initial;
    initial.Put("/d/a", Repeat(1, 4096));
    initial.Put("/d/b", Repeat(1, 4096));
    disk_.emplace(initial);
    a_ = std::move(*disk_->Open("/d/a", OpenMode::kReadWrite));
    b_ = std::move(*disk_->Open("/d/b", OpenMode::kReadWrite));
  }

  using Choice = CrashDisk::Choice;
  std::vector<std::byte> After(const Choice& choice, const std::string& path) {
    const auto inode = disk_->Crash(choice)->Find(path);
    return inode == nullptr ? std::vector<std::byte>() : inode->Bytes(0, inode->size());
  }
  std::vector<std::byte> AfterLosingAll(const std::string& path) { return After({}, path); }
  static constexpr Choice kKeepAll{.mask = UINT64_MAX};

  std::optional<CrashDisk> disk_;
  std::unique_ptr<File> a_;
  std::unique_ptr<File> b_;
};

TEST_F(CrashDiskTest, ProgramSeesItsWritesAtOnce) {
  ASSERT_OK(a_->Write(Repeat(2, 512), 0));
  std::vector<std::byte> buffer(512);
  ASSERT_OK(a_->ReadExactly(buffer, 0));
  EXPECT_EQ(buffer, Repeat(2, 512));
}

TEST_F(CrashDiskTest, UnsyncedWriteIsKeptOrLost) {
  ASSERT_OK(a_->Write(Repeat(2, 4096), 0));
  EXPECT_EQ(AfterLosingAll("/d/a"), Repeat(1, 4096));
  EXPECT_EQ(After(kKeepAll, "/d/a"), Repeat(2, 4096));
}

TEST_F(CrashDiskTest, SyncMakesAWriteDurable) {
  ASSERT_OK(a_->Write(Repeat(2, 4096), 0));
  ASSERT_OK(a_->SyncData());
  EXPECT_EQ(AfterLosingAll("/d/a"), Repeat(2, 4096));
  EXPECT_EQ(disk_->pending(), 0u);
}

TEST_F(CrashDiskTest, SyncOfOneFileSaysNothingOfAnother) {
  ASSERT_OK(a_->Write(Repeat(2, 4096), 0));
  ASSERT_OK(b_->Write(Repeat(2, 4096), 0));
  ASSERT_OK(b_->SyncData());
  EXPECT_EQ(AfterLosingAll("/d/a"), Repeat(1, 4096));
  EXPECT_EQ(AfterLosingAll("/d/b"), Repeat(2, 4096));
}

TEST_F(CrashDiskTest, LaterWriteMayBeKeptAndTheEarlierLost) {
  ASSERT_OK(a_->Write(Repeat(2, 512), 0));
  ASSERT_OK(b_->Write(Repeat(2, 512), 0));
  const Choice only_second{.mask = 2};
  EXPECT_EQ(After(only_second, "/d/a"), Repeat(1, 4096));
  EXPECT_NE(After(only_second, "/d/b"), Repeat(1, 4096));
}

TEST_F(CrashDiskTest, WriteTearsBetweenSectorsAndNowhereElse) {
  ASSERT_OK(a_->Write(Repeat(2, 2000), 100));
  const auto whole = After(kKeepAll, "/d/a");
  bool torn = false;
  for (uint64_t seed = 0; seed < 200; seed++) {
    const auto bytes = After({.torn = true, .seed = seed}, "/d/a");
    size_t kept = 0;
    for (size_t at = 0; at < 4096; at += 512) {
      const auto sector = std::span(bytes).subspan(at, 512);
      const bool is_new = std::ranges::equal(sector, std::span(whole).subspan(at, 512));
      const bool is_old = std::ranges::equal(sector, Repeat(1, 512));
      ASSERT_TRUE(is_new || is_old) << at;
      if (is_new && !is_old) kept++;
    }
    torn = torn || (kept != 0 && kept != 5);
  }
  EXPECT_TRUE(torn);
}

TEST_F(CrashDiskTest, SectorIsAsTheLastKeptWriteLeftIt) {
  ASSERT_OK(a_->Write(Repeat(2, 10), 0));
  ASSERT_OK(a_->Write(Repeat(3, 10), 10));
  // The second write's sector has the first one's bytes in it.
  const auto bytes = After({.mask = 2}, "/d/a");
  EXPECT_EQ(bytes[0], std::byte{2});
  EXPECT_EQ(bytes[10], std::byte{3});
}

TEST_F(CrashDiskTest, PunchIsLikeAWriteOfZeroes) {
  ASSERT_OK(a_->PunchHole(0, 4096));
  EXPECT_EQ(AfterLosingAll("/d/a"), Repeat(1, 4096));
  EXPECT_EQ(After(kKeepAll, "/d/a"), Repeat(0, 4096));
  ASSERT_OK(a_->SyncData());
  EXPECT_EQ(AfterLosingAll("/d/a"), Repeat(0, 4096));
}

TEST_F(CrashDiskTest, WhatIsWrittenDuringASyncIsNotCovered) {
  ASSERT_OK(a_->Write(Repeat(2, 512), 0));
  bool inside = false;
  disk_->SetHook([&](const Operation& operation) {
    if (IsSync(operation.kind) && !std::exchange(inside, true)) {
      EXPECT_OK(a_->Write(Repeat(3, 512), 512));
    }
    return 0;
  });
  ASSERT_OK(a_->SyncData());
  EXPECT_TRUE(inside);
  const auto bytes = AfterLosingAll("/d/a");
  EXPECT_EQ(bytes[0], std::byte{2});
  EXPECT_EQ(bytes[512], std::byte{1});
}

TEST_F(CrashDiskTest, FailedSyncIsNotMadeGoodByALaterOne) {
  ASSERT_OK(a_->Write(Repeat(2, 512), 0));
  disk_->SetHook([](const Operation& operation) { return IsSync(operation.kind) ? EIO : 0; });
  EXPECT_TRUE(FailsWith(a_->SyncData(), EIO));
  disk_->SetHook(nullptr);
  ASSERT_OK(a_->SyncData());
  EXPECT_EQ(AfterLosingAll("/d/a"), Repeat(1, 4096));
}

TEST_F(CrashDiskTest, RewritingWhatAFailedSyncLostMakesItGood) {
  ASSERT_OK(a_->Write(Repeat(2, 512), 0));
  disk_->SetHook([](const Operation& operation) { return IsSync(operation.kind) ? EIO : 0; });
  EXPECT_FALSE(a_->SyncData());
  disk_->SetHook(nullptr);
  ASSERT_OK(a_->Write(Repeat(3, 512), 0));
  ASSERT_OK(a_->SyncData());
  EXPECT_EQ(After({}, "/d/a")[0], std::byte{3});
  EXPECT_EQ(After(kKeepAll, "/d/a")[0], std::byte{3});
}

TEST_F(CrashDiskTest, HookCanFailAChange) {
  disk_->SetHook([](const Operation&) { return ENOSPC; });
  EXPECT_TRUE(FailsWith(a_->Write(Repeat(2, 512), 0), ENOSPC));
  EXPECT_EQ(disk_->pending(), 0u);
}

TEST_F(CrashDiskTest, NewSizeIsKeptOrLostApartFromTheData) {
  ASSERT_OK(a_->Write(Repeat(2, 512), 4096));
  std::set<std::pair<size_t, int>> seen;
  for (uint64_t seed = 0; seed < 200; seed++) {
    const auto bytes = After({.torn = true, .seed = seed}, "/d/a");
    seen.insert({bytes.size(), bytes.size() > 4096 ? static_cast<int>(bytes[4096]) : -1});
  }
  EXPECT_EQ(seen, (std::set<std::pair<size_t, int>>{{4096, -1}, {4608, 0}, {4608, 2}}));
}

TEST_F(CrashDiskTest, NewFileIsThereOnlyAfterItsDirectoryIsSynced) {
  ASSERT_OK_AND_ASSIGN(const auto file, disk_->Create("/d/c"));
  ASSERT_OK(file->Write(Repeat(2, 512), 0));
  ASSERT_OK(file->Sync());
  EXPECT_EQ(disk_->CrashLosingAll()->Find("/d/c"), nullptr);
  ASSERT_OK(disk_->SyncDirectory("/d"));
  EXPECT_EQ(AfterLosingAll("/d/c"), Repeat(2, 512));
}

TEST_F(CrashDiskTest, NamedFileMayHaveLostItsContents) {
  ASSERT_OK_AND_ASSIGN(const auto file, disk_->Create("/d/c"));
  ASSERT_OK(file->Write(Repeat(2, 512), 0));
  ASSERT_OK(disk_->SyncDirectory("/d"));
  EXPECT_EQ(AfterLosingAll("/d/c"), Repeat(0, 0));
  EXPECT_NE(disk_->CrashLosingAll()->Find("/d/c"), nullptr);
}

TEST_F(CrashDiskTest, RenameIsKeptWholeOrNotAtAll) {
  ASSERT_OK(disk_->Rename("/d/a", "/d/c", RenameMode::kReplace));
  for (uint64_t seed = 0; seed < 50; seed++) {
    const auto names = disk_->Crash({.torn = true, .seed = seed})->List();
    EXPECT_TRUE(names == (std::vector<std::string>{"/d/a", "/d/b"}) ||
                names == (std::vector<std::string>{"/d/b", "/d/c"}));
  }
  ASSERT_OK(disk_->SyncDirectory("/d"));
  EXPECT_EQ(disk_->CrashLosingAll()->List(), (std::vector<std::string>{"/d/b", "/d/c"}));
}

TEST_F(CrashDiskTest, RemovedFileMayBeBack) {
  ASSERT_OK(disk_->Remove("/d/a"));
  EXPECT_EQ(AfterLosingAll("/d/a"), Repeat(1, 4096));
  EXPECT_EQ(disk_->Crash(kKeepAll)->Find("/d/a"), nullptr);
}

TEST_F(CrashDiskTest, FewEntriesGiveEverySubset) {
  for (uint64_t i = 0; i < 3; i++) ASSERT_OK(a_->Write(Repeat(2, 512), i * 512));
  Random random(1);
  std::set<std::vector<std::byte>> states;
  for (const Choice& choice : disk_->Choices(random, {.exhaustive = 3}))
    states.insert(After(choice, "/d/a"));
  EXPECT_EQ(states.size(), 8u);
}

TEST_F(CrashDiskTest, KnownEntriesGiveTheSubsetsWithANewOne) {
  ASSERT_OK(a_->Write(Repeat(2, 512), 0));
  ASSERT_OK(a_->Write(Repeat(2, 512), 512));
  Random random(1);
  std::set<uint64_t> masks;
  for (const Choice& choice : disk_->Choices(random, {.exhaustive = 3, .known = 1}))
    if (!choice.torn) masks.insert(choice.mask);
  EXPECT_EQ(masks, (std::set<uint64_t>{2, 3}));
}

TEST_F(CrashDiskTest, RetiredTellsThatTheLogIsNotTheOldOneGrown) {
  const uint64_t before = disk_->retired();
  ASSERT_OK(a_->Write(Repeat(2, 512), 0));
  EXPECT_EQ(disk_->retired(), before);
  ASSERT_OK(b_->SyncData());
  EXPECT_NE(disk_->retired(), before);
}

TEST_F(CrashDiskTest, ManyEntriesGiveAsManyChoicesAsAskedFor) {
  for (uint64_t i = 0; i < 100; i++) ASSERT_OK(a_->Write(Repeat(2, 512), 0));
  Random random(1);
  EXPECT_EQ(disk_->Choices(random, {.samples = 20}).size(), 22u);
}

// The model.

TEST(CrashModel, AcceptsEveryVersionSinceTheFlush) {
  CrashModel model(Repeat(1, 1024));
  model.Write(Repeat(2, 512), 0);
  model.Write(Repeat(3, 512), 0);
  for (const unsigned value : {1u, 2u, 3u}) {
    auto disk = Repeat(1, 1024);
    std::fill_n(disk.begin(), 512, static_cast<std::byte>(value));
    EXPECT_EQ(model.Check(disk), "");
  }
}

TEST(CrashModel, RefusesWhatWasNeverWritten) {
  CrashModel model(Repeat(1, 1024));
  model.Write(Repeat(2, 512), 0);
  EXPECT_NE(model.Check(Repeat(0, 1024)), "");
  EXPECT_NE(model.Check(Repeat(2, 1024)), "");
  EXPECT_NE(model.Check(Repeat(1, 512)), "");
}

TEST(CrashModel, RefusesWhatAFlushHasReplaced) {
  CrashModel model(Repeat(1, 512));
  model.Write(Repeat(2, 512), 0);
  const auto moment = model.Now();
  model.Write(Repeat(3, 512), 0);
  model.Flushed(moment);
  EXPECT_NE(model.Check(Repeat(1, 512)), "");
  EXPECT_EQ(model.Check(Repeat(2, 512)), "");
  EXPECT_EQ(model.Check(Repeat(3, 512)), "");
}

TEST(CrashModel, FlushOfARangeCoversOnlyItsSectors) {
  CrashModel model(Repeat(1, 1024));
  model.Write(Repeat(2, 1024), 0);
  model.Flushed(model.Now(), 600, 10);
  auto disk = Repeat(1, 1024);
  EXPECT_NE(model.Check(disk), "");
  std::fill_n(disk.begin() + 512, 512, std::byte{2});
  EXPECT_EQ(model.Check(disk), "");
}

TEST(CrashModel, FlushDoesNotCoverWhatIsUnderWay) {
  CrashModel model(Repeat(1, 1024));
  model.Write(Repeat(2, 512), 0);
  model.SetUnderWay(0, 512, true);
  EXPECT_EQ(model.Latest()[0], model.Now()[0] + 1);
  model.Flushed(model.Now());
  EXPECT_EQ(model.Check(Repeat(1, 1024)), "");
  model.SetUnderWay(0, 512, false);
  model.Flushed(model.Now());
  EXPECT_NE(model.Check(Repeat(1, 1024)), "");
}

TEST(CrashModel, RequestThatFailedMayHaveLeftWhatItFound) {
  CrashModel model(Repeat(1, 1024));
  model.Write(Repeat(2, 1024), 0);
  model.GoOnWith(Repeat(1, 1024), 0, 512);
  model.Flushed(model.Now());
  EXPECT_NE(model.Check(Repeat(1, 1024)), "");
  auto disk = Repeat(2, 1024);
  EXPECT_NE(model.Check(disk), "");
  std::fill_n(disk.begin(), 512, std::byte{1});
  EXPECT_EQ(model.Check(disk), "");
}

TEST(CrashModel, TornSectorIsRefused) {
  CrashModel model(Repeat(1, 512));
  model.Write(Repeat(2, 512), 0);
  auto disk = Repeat(1, 512);
  disk[0] = std::byte{2};
  EXPECT_NE(model.Check(disk), "");
}

}  // namespace
}  // namespace addcow
