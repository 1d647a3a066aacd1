// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/ops: check. What it says of what is on the disk, that it writes only what it
// was told to, and that no repair, failed ones included, changes what is read. With
// subclusters: ops_check_subclusters_test.cc.

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class CheckTest : public testing::Test {
 protected:
  CheckTest() { fake_.MakeDirectory(kDirectory); }

  // In place of the files of an earlier Make.
  void Make(const ImageSpec& spec) {
    for (const char* path : {kAddCowPath, kImagePath, kBackingPath}) (void)fake_.Remove(path);
    auto disk = MakeTestImage(fake_, kDirectory, spec);
    ASSERT_OK(disk);
    disk_ = std::move(*disk);
  }
  CheckReport Check(Repair repair = Repair::kNone) {
    log_.Clear();
    auto report = CheckImage(seam_, kAddCowPath, repair);
    EXPECT_OK(report);
    return report ? *report : CheckReport();
  }
  void Poke(uint64_t offset, uint8_t value) {
    ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(Repeat(value, 1), offset).has_value());
  }
  void ExpectDiskUnchanged() {
    auto image = OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly);
    ASSERT_OK(image);
    EXPECT_EQ(Difference(ReadAll(**image), disk_), "");
  }
  // The counts of wrong things that are left.
  static void ExpectFound(const CheckReport& report, uint64_t corruptions, uint64_t leaks) {
    EXPECT_EQ(report.check_errors, 0u);
    EXPECT_EQ(report.corruptions(), corruptions);
    EXPECT_EQ(report.leaked_clusters, leaks);
  }

  FakeFileSystem fake_;
  OperationLog log_;
  ForwardingFileSystem seam_{fake_, log_};
  std::vector<std::byte> disk_;
};

TEST_F(CheckTest, SoundImage) {
  Make({.size = 10 * kClusterSize + 1, .garbage = false, .allocated = {0, 10}});
  const CheckReport report = Check();
  ExpectFound(report, 0, 0);
  EXPECT_EQ(report.total_clusters, 11u);
  EXPECT_EQ(report.allocated_clusters, 2u);
  EXPECT_EQ(log_.Changes(), std::vector<std::string>{});
}

TEST_F(CheckTest, StorageUnderAZeroBitIsALeak) {
  Make({.size = 10 * kClusterSize + 1, .allocated = {0, 10}});  // full of old bytes
  ExpectFound(Check(), 0, 9);
  EXPECT_EQ(log_.Changes(), std::vector<std::string>{});
  const CheckReport report = Check(Repair::kLeaks);
  ExpectFound(report, 0, 0);
  EXPECT_EQ(report.fixed_leaks, 9u);
  EXPECT_EQ(fake_.Find(kImagePath)->Info()->allocated_bytes, kClusterSize + 4096);
  EXPECT_EQ(fake_.Find(kImagePath)->size(), 10 * kClusterSize + 1);
  ExpectDiskUnchanged();
}

TEST_F(CheckTest, OnlyClustersWithStorageLeak) {
  Make({.size = 10 * kClusterSize, .garbage = false, .allocated = {2}});
  for (const uint64_t offset : {uint64_t{5}, 3 * kClusterSize, 4 * kClusterSize - 1})
    ASSERT_TRUE(fake_.Find(kImagePath)->Write(Repeat(1, 1), offset).has_value());
  ExpectFound(Check(), 0, 2);
}

TEST_F(CheckTest, AFileThatCannotTellHolesHasNoLeaks) {
  Make({.garbage = false});
  fake_.Find(kImagePath)->SetAbilities({.seek = false});
  ExpectFound(Check(), 0, 0);
  fake_.Find(kImagePath)->SetAbilities({.is_block_device = true});
  ExpectFound(Check(), 0, 0);
}

TEST_F(CheckTest, StorageThatReadsAsZeroesIsNoLeak) {
  Make({.size = 10 * kClusterSize, .garbage = false, .allocated = {2}});
  const auto image = fake_.Find(kImagePath);
  // Without holes at all, as on exFAT: everything but cluster 2 reads as zeroes.
  ASSERT_TRUE(image->ZeroRange(0, 2 * kClusterSize).has_value());
  ASSERT_TRUE(image->ZeroRange(3 * kClusterSize, 7 * kClusterSize).has_value());
  const uint64_t storage = image->Info()->allocated_bytes;
  ASSERT_GE(storage, 9 * kClusterSize);
  ExpectFound(Check(), 0, 0);
  // One byte at the end of a cluster is data.
  ASSERT_TRUE(image->Write(Repeat(1, 1), 6 * kClusterSize - 1).has_value());
  ExpectFound(Check(), 0, 1);
  EXPECT_EQ(Check(Repair::kLeaks).fixed_leaks, 1u);
  EXPECT_EQ(image->Info()->allocated_bytes, storage - kClusterSize);
}

TEST_F(CheckTest, LeaksAreZeroedWhereThereAreNoHoles) {
  for (const bool zero_range : {true, false}) {
    Make({.size = 10 * kClusterSize + 1, .allocated = {0, 10}});  // full of old bytes
    const auto image = fake_.Find(kImagePath);
    image->SetAbilities({.punch_hole = false, .zero_range = zero_range, .seek = false});
    ExpectFound(Check(), 0, 9);
    const CheckReport report = Check(Repair::kLeaks);
    ExpectFound(report, 0, 0);
    EXPECT_EQ(report.fixed_leaks, 9u);
    EXPECT_EQ(image->size(), 10 * kClusterSize + 1);
    ExpectDiskUnchanged();
  }
}

TEST_F(CheckTest, LeaksFarApartAreFoundAndRepairedOneByOne) {
  Make({.size = 2000 * kClusterSize, .garbage = false, .allocated = {2}});
  const auto image = fake_.Find(kImagePath);
  for (const uint64_t cluster : {0u, 1u, 3u, 5u, 1999u})
    ASSERT_TRUE(image->Write(Repeat(1, 1), cluster * kClusterSize + 7).has_value());
  for (uint64_t cluster = 600; cluster < 1200; cluster++)  // more than fits in one repair
    ASSERT_TRUE(image->Write(Repeat(1, 1), cluster * kClusterSize).has_value());
  ExpectFound(Check(), 0, 605);
  EXPECT_EQ(Check(Repair::kLeaks).fixed_leaks, 605u);
  ExpectFound(Check(), 0, 0);
  ExpectDiskUnchanged();
}

// What a server has not flushed looks like a leak. Without locks that can be met.
TEST_F(CheckTest, LeaksOfAnImageInUseCannotBeTold) {
  Make({.size = 10 * kClusterSize});  // full of old bytes
  auto server = OpenTestImage(fake_, kDirectory, OpenMode::kReadWrite);
  ASSERT_OK(server);
  ASSERT_OK_AND_ASSIGN(CheckReport report,
                       CheckImage(fake_, kAddCowPath, Repair::kNone, {.lock = false}));
  EXPECT_TRUE(report.leaks_unknown);
  ExpectFound(report, 0, 0);
  // Nor are they repaired, whatever was said about locks.
  EXPECT_TRUE(
      FailsWith(CheckImage(fake_, kAddCowPath, Repair::kLeaks, {.lock = false}), EBUSY));
  server->reset();
  // Who only reads has nothing to flush.
  server = OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly);
  ASSERT_OK(server);
  ASSERT_OK_AND_ASSIGN(report, CheckImage(fake_, kAddCowPath, Repair::kNone, {.lock = false}));
  EXPECT_FALSE(report.leaks_unknown);
  ExpectFound(report, 0, 10);
}

TEST_F(CheckTest, TheBackingFileNeedNotBeThere) {
  Make({.garbage = false, .allocated = {1}});
  ASSERT_OK(fake_.Remove(kBackingPath));
  ExpectFound(Check(), 0, 0);
  ExpectFound(Check(Repair::kAll), 0, 0);
}

// Asked at its N-th look, for every N: what was repaired counts, and the next
// run does the rest.
TEST_F(CheckTest, ARepairCanBeInterruptedAnywhere) {
  for (const bool all_allocated : {false, true}) {
    for (uint64_t at = 1;; at++) {
      Make({.size = 20 * kClusterSize + 7,
            .allocated = {0, 3, 4, 20},
            .all_allocated = all_allocated});
      Poke(kBitmapOffset + 2, 0xf0);
      uint64_t looks = 0;
      const Interrupted interrupted = [&] { return ++looks >= at; };
      log_.Clear();
      const auto report = CheckImage(seam_, ImageSource{.add_cow_path = kAddCowPath},
                                     Repair::kAll, interrupted);
      ASSERT_OK(report);
      if (!report->interrupted) {
        EXPECT_LT(looks, at);
        EXPECT_GT(at, 5u);
        break;
      }
      // Durable: nothing comes after the last sync of each file.
      const auto changes = log_.Changes();
      ASSERT_GE(changes.size(), 2u);
      EXPECT_EQ(changes[changes.size() - 2], "sync data /vm/disk.raw");
      EXPECT_EQ(changes.back(), "sync data /vm/x.add-cow");
      ExpectDiskUnchanged();
      const CheckReport rest = Check(Repair::kAll);
      ExpectFound(rest, 0, 0);
      EXPECT_EQ(report->fixed_bits + report->fixed_leaks + rest.fixed_bits + rest.fixed_leaks,
                all_allocated ? 4u : 17u);
      ExpectDiskUnchanged();
    }
  }
}

// The flag is honoured, so what is under its 0 bits is the disk: not a leak.
TEST_F(CheckTest, FlagWithoutBitsIsCorruptAndIsNeverPunched) {
  Make({.size = 9 * kClusterSize, .all_allocated = true});
  Poke(kBitmapOffset, 0xf0);
  Poke(kBitmapOffset + 1, 0);
  const CheckReport found = Check();
  ExpectFound(found, 5, 0);
  EXPECT_EQ(found.grown_clusters, 0u);
  EXPECT_EQ(found.allocated_clusters, 9u);
  ExpectFound(Check(Repair::kLeaks), 5, 0);
  EXPECT_EQ(log_.Count(OpKind::kPunchHole), 0u);
  const CheckReport report = Check(Repair::kAll);
  ExpectFound(report, 0, 0);
  EXPECT_EQ(report.fixed_bits, 5u);
  EXPECT_EQ(report.grown_clusters, 0u);
  ExpectDiskUnchanged();
  EXPECT_EQ(fake_.Find(kAddCowPath)->Bytes(kBitmapOffset, 3),
            (std::vector{std::byte{0xff}, std::byte{0x01}, std::byte{0}}));
}

TEST_F(CheckTest, DataIsSyncedBeforeBitsAreSet) {
  Make({.all_allocated = true});
  Poke(kBitmapOffset, 0);
  (void)Check(Repair::kAll);
  const auto changes = log_.Changes();
  ASSERT_GE(changes.size(), 3u);
  EXPECT_EQ(changes[0], "sync data /vm/disk.raw");
  EXPECT_EQ(changes[1], "write /vm/x.add-cow 4096+1");
  EXPECT_EQ(changes.back(), "sync data /vm/x.add-cow");
}

TEST_F(CheckTest, BitsPastTheLastClusterAreSoundAndClearedByRepairAll) {
  Make({.size = 9 * kClusterSize, .garbage = false, .allocated = {8}});
  Poke(kBitmapOffset + 1, 0xff);
  Poke(kBitmapOffset + kBitmapPadding - 1, 0x80);
  ExpectFound(Check(), 0, 0);
  EXPECT_EQ(Check().stray_bits, 8u);
  EXPECT_EQ(Check(Repair::kLeaks).stray_bits, 8u);
  const CheckReport report = Check(Repair::kAll);
  ExpectFound(report, 0, 0);
  EXPECT_EQ(report.stray_bits, 0u);
  EXPECT_EQ(report.allocated_clusters, 1u);
  ExpectDiskUnchanged();
}

TEST_F(CheckTest, WhatBreaksTheFormatIsOneCorruption) {
  const std::function<void()> kBreak[] = {
      [&] { Poke(44, 2); },                                    // header pages
      [&] { (void)fake_.Find(kAddCowPath)->Truncate(100); },   // header cut off
      [&] { (void)fake_.Find(kAddCowPath)->Truncate(4096); },  // no bitmap
      [&] { (void)fake_.Find(kImagePath)->Truncate(0); },      // no disk
      [&] { fake_.PutName(kBackingPath, fake_.Find(kImagePath)); }};
  for (const auto& break_it : kBreak) {
    Make({});
    break_it();
    const CheckReport report = Check();
    ExpectFound(report, 1, 0);
    EXPECT_TRUE(report.error);
    EXPECT_EQ(report.total_clusters, 0u);
  }
}

TEST_F(CheckTest, WhatCannotBeCheckedIsAnError) {
  Make({});
  Poke(8, 2);  // version
  EXPECT_TRUE(FailsWith(CheckImage(fake_, kAddCowPath, Repair::kNone), kErrUnsupported));
  Make({});
  ASSERT_OK(fake_.Remove(kImagePath));
  EXPECT_TRUE(FailsWith(CheckImage(fake_, kAddCowPath, Repair::kNone), ENOENT));
  Make({});
  fake_.ForbidWriting(kImagePath, EACCES);
  EXPECT_OK(CheckImage(fake_, kAddCowPath, Repair::kNone));
  EXPECT_TRUE(FailsWith(CheckImage(fake_, kAddCowPath, Repair::kLeaks), EACCES));
}

TEST_F(CheckTest, ReadErrorsAreCountedNotTakenForCorruption) {
  Make({.allocated = {1}});
  // The header, the bitmap's first byte, the bitmap.
  FaultPlan plan({.at = 3, .where = [](const Operation& operation) {
                    return operation.kind == OpKind::kRead && operation.path == kAddCowPath;
                  }});
  ForwardingFileSystem faulty(fake_, plan);
  ASSERT_OK_AND_ASSIGN(const CheckReport report,
                       CheckImage(faulty, kAddCowPath, Repair::kNone));
  ASSERT_TRUE(plan.fired());
  EXPECT_EQ(report.check_errors, 1u);
  EXPECT_EQ(report.corruptions(), 0u);
}

// By hand: the part that is new has no bits, and nothing is wrong with it.
TEST_F(CheckTest, AGrownDiskIsNotCalledCorrupt) {
  Make({.size = 9 * kClusterSize, .all_allocated = true});
  ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(20 * kClusterSize + 1));
  const CheckReport report = Check();
  ExpectFound(report, 0, 0);
  EXPECT_EQ(report.grown_clusters, 12u);
  EXPECT_EQ(Check(Repair::kAll).grown_clusters, 0u);
  EXPECT_EQ(fake_.Find(kAddCowPath)->Bytes(kBitmapOffset, 4),
            (std::vector{std::byte{0xff}, std::byte{0xff}, std::byte{0x1f}, std::byte{0}}));
}

TEST_F(CheckTest, ABitmapThatWasLostIsNotTakenForAGrownDisk) {
  Make({.size = 9 * kClusterSize, .all_allocated = true});
  Poke(kBitmapOffset, 0);
  Poke(kBitmapOffset + 1, 0);
  ExpectFound(Check(), 9, 0);
}

// What it holds may be another disk's.
TEST_F(CheckTest, DataUnderAnEmptyBitmapIsRepairedOnlyIfForced) {
  for (const Repair repair : {Repair::kLeaks, Repair::kAll}) {
    Make({.size = 3 * kClusterSize, .allocated = {}});
    const auto before = fake_.Find(kImagePath)->Bytes(0, 3 * kClusterSize);
    EXPECT_TRUE(FailsSaying(CheckImage(fake_, kAddCowPath, repair),
                            "holds data in 3 clusters, though none is allocated"));
    EXPECT_EQ(fake_.Find(kImagePath)->Bytes(0, 3 * kClusterSize), before);
    ASSERT_OK_AND_ASSIGN(const CheckReport report,
                         CheckImage(fake_, kAddCowPath, repair, {}, true));
    EXPECT_EQ(report.fixed_leaks, 3u);
  }
}

TEST_F(CheckTest, LeaksOfAnotherFileThanTheHeadersAreRepairedOnlyIfForced) {
  Make({.size = 3 * kClusterSize, .garbage = false, .allocated = {1}});
  fake_.Put("/vm/other.raw", 3 * kClusterSize);
  FakeInode& other = *fake_.Find("/vm/other.raw");
  ASSERT_TRUE(other.Write(Repeat(1, kClusterSize), 2 * kClusterSize));
  const ImageSource source{.add_cow_path = kAddCowPath, .image_path = "/vm/other.raw"};
  const auto before = other.Bytes(0, 3 * kClusterSize);
  EXPECT_TRUE(FailsSaying(CheckImage(fake_, source, Repair::kLeaks, Interrupted()),
                          "/vm/other.raw: is not the image file that the header names"));
  EXPECT_TRUE(FailsSaying(CheckImage(fake_, source, Repair::kAll, Interrupted(), true),
                          "/vm/other.raw: is not the image file that the header names"));
  EXPECT_EQ(other.Bytes(0, 3 * kClusterSize), before);
  ASSERT_OK_AND_ASSIGN(CheckReport report,
                       CheckImage(fake_, source, Repair::kLeaks, Interrupted(), true));
  EXPECT_EQ(report.fixed_leaks, 1u);
  // It was moved: that is what the option is for.
  ASSERT_TRUE(other.Write(Repeat(1, kClusterSize), 2 * kClusterSize));
  ASSERT_OK(fake_.Remove(kImagePath));
  ASSERT_OK_AND_ASSIGN(report, CheckImage(fake_, source, Repair::kLeaks, Interrupted()));
  EXPECT_EQ(report.fixed_leaks, 1u);
}

TEST_F(CheckTest, AnEmptyBitmapOverHolesNeedsNoForce) {
  Make({.size = 3 * kClusterSize, .garbage = false});
  EXPECT_OK(CheckImage(fake_, kAddCowPath, Repair::kAll));
}

TEST_F(CheckTest, RepairThatFailsCanBeRunAgainAndTheDiskStays) {
  for (const bool all_allocated : {false, true}) {
    for (uint64_t at = 1;; at++) {
      Make({.size = 20 * kClusterSize + 7,
            .allocated = {0, 3, 4, 20},
            .all_allocated = all_allocated});
      // Bits 21 to 23 are past the end; with the flag, 16 to 19 are missing.
      Poke(kBitmapOffset + 2, 0xf0);
      FaultPlan plan({.at = at, .error = EIO});
      ForwardingFileSystem faulty(fake_, plan);
      const auto report = CheckImage(faulty, kAddCowPath, Repair::kAll);
      ExpectDiskUnchanged();
      ExpectFound(Check(Repair::kAll), 0, 0);
      ExpectDiskUnchanged();
      if (!plan.fired()) {
        ASSERT_OK(report);
        ExpectFound(*report, 0, 0);
        EXPECT_GT(at, 10u);
        break;
      }
      if (report && !report->error) ExpectFound(*report, 0, 0);
    }
  }
}

}  // namespace
}  // namespace addcow
