// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow rebase without -u: the disk reads the same on its new backing file, and no more was
// copied than differs.

#include "common/ops/rebase_data.h"

#include <gtest/gtest.h>

#include <functional>

#include "common/ops/check.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/forms.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

constexpr const char* kNewBase = "/vm/new.img";

class RebaseDataTest : public testing::Test {
 protected:
  RebaseDataTest() { fake_.MakeDirectory(kDirectory); }

  void Make(const ImageSpec& spec, const std::vector<uint64_t>& subclusters = {}) {
    for (const char* const path : {kAddCowPath, kImagePath, kBackingPath})
      if (fake_.Find(path) != nullptr) (void)fake_.Remove(path);
    ASSERT_OK_AND_ASSIGN(disk_, MakeTestImage(fake_, kDirectory, spec));
    if (!subclusters.empty()) AddSubclusters(fake_, subclusters, &disk_);
  }
  // The old base, of `size` bytes, but other in those ranges.
  void PutNewBase(uint64_t size, const std::vector<ByteRange>& other) {
    auto bytes = fake_.Find(kBackingPath)->Bytes(0, size);
    Random random(77);
    for (const ByteRange& range : other)
      std::ranges::copy(random.Bytes(range.length),
                        bytes.begin() + static_cast<std::ptrdiff_t>(range.offset));
    fake_.Put(kNewBase, bytes);
  }
  Result<RebaseResult> Rebase(const RebaseOptions& options) {
    return RebaseSafely(fake_, options, {}, [](uint64_t, uint64_t) {});
  }
  static RebaseOptions OntoNew() {
    return {.add_cow_path = kAddCowPath, .backing = NamedFile{"new.img", "raw"}};
  }
  static RebaseOptions OntoNothing() {
    return {.add_cow_path = kAddCowPath, .no_backing = true};
  }
  void ExpectDisk() {
    ASSERT_OK_AND_ASSIGN(auto image, OpenTestImage(fake_));
    EXPECT_EQ(Difference(ReadAll(*image), disk_), "");
  }
  CheckReport Report() {
    const auto report = CheckImage(fake_, kAddCowPath, Repair::kNone);
    EXPECT_OK(report);
    return report.value_or(CheckReport());
  }

  FakeFileSystem fake_;
  std::vector<std::byte> disk_;
};

TEST_F(RebaseDataTest, CopiesWhatDiffersByTheSubcluster) {
  Make({.size = 6 * kC, .backing_size = 6 * kC, .garbage = false, .allocated = {5}});
  PutNewBase(6 * kC, {{kC + 10, 20}, {3 * kC + 4000, 200}, {5 * kC, 100}});
  ASSERT_OK_AND_ASSIGN(const RebaseResult result, Rebase(OntoNew()));
  EXPECT_EQ(result.header.backing, (NamedFile{"new.img", "raw"}));
  ASSERT_OK(fake_.Remove(kBackingPath));
  ExpectDisk();
  const CheckReport report = Report();
  EXPECT_EQ(report.allocated_clusters, 1u);
  EXPECT_EQ(report.partial_clusters, 2u);
  EXPECT_TRUE(TestHeader(fake_).subclusters);
}

TEST_F(RebaseDataTest, OntoTheSameBytesCopiesNothing) {
  Make({.size = 6 * kC, .backing_size = 6 * kC});
  PutNewBase(6 * kC, {});
  ASSERT_OK(Rebase(OntoNew()));
  ExpectDisk();
  EXPECT_EQ(Report().allocated_clusters, 0u);
  EXPECT_EQ(Report().partial_clusters, 0u);
}

// Before anything is copied.
TEST_F(RebaseDataTest, RefusesAFileWithTwoNames) {
  Make({.size = 6 * kC, .backing_size = 6 * kC});
  PutNewBase(6 * kC, {{kC, 100}});
  fake_.PutName("/vm/second.add-cow", fake_.Find(kAddCowPath));
  const auto before = fake_.Clone();
  EXPECT_TRUE(FailsSaying(Rebase(OntoNew()), "has 2 names (hard links)"));
  EXPECT_EQ(fake_.DifferenceFrom(*before), "");
}

// The same: a place where no other file can be, an owner that a new one cannot have, also
// where only a try shows it, and a name for which the header has no room.
TEST_F(RebaseDataTest, RefusesBeforeItCopiesWhatCannotBeReplaced) {
  Make({.size = 6 * kC, .backing_size = 6 * kC});
  PutNewBase(6 * kC, {{kC, 100}});
  const auto refused = [&](const RebaseOptions& options, const std::string& text,
                           const std::function<void(FakeFileSystem&)>& change) {
    const auto files = fake_.Clone();
    change(*files);
    const auto before = files->Clone();
    EXPECT_TRUE(FailsSaying(
        RebaseSafely(*files, options, {}, [](uint64_t, uint64_t) { FAIL(); }), text));
    EXPECT_EQ(files->DifferenceFrom(*before), "");
    EXPECT_EQ(files->open_files(), 0);
  };
  refused(OntoNew(), "is a mount point itself",
          [](FakeFileSystem& files) { files.MakeMountPoint(kAddCowPath); });
  for (const bool told : {true, false})
    refused(OntoNew(), told ? "belongs to another user" : "cannot be given to another user",
            [&](FakeFileSystem& files) {
              files.Find(kAddCowPath)->SetRights(0666, 1, 1);
              files.ForbidGivingAway(told);
            });
  refused(OntoNew(), "Permission denied",
          [](FakeFileSystem& files) { files.ForbidWriting(kDirectory, EACCES); });
  RebaseOptions options = OntoNew();
  options.backing->name = std::string(4019, '/') + "vm/new.img";
  refused(options, "room for", [](FakeFileSystem&) {});
}

// What only the new file or its name fails with comes when all is copied.
TEST_F(RebaseDataTest, ALateFailureSaysThatTheDiskIsOnTheOldOne) {
  for (const OpKind kind : {OpKind::kTruncate, OpKind::kSync, OpKind::kRename}) {
    SCOPED_TRACE(Name(kind));
    Make({.size = 6 * kC, .backing_size = 6 * kC});
    PutNewBase(6 * kC, {{kC, 100}});
    FaultPlan plan({.at = 1, .error = ENOSPC, .where = [&](const Operation& operation) {
                      return operation.kind == kind && operation.path.ends_with(".tmp");
                    }});
    ForwardingFileSystem faulty(fake_, plan);
    const auto nothing = [](uint64_t, uint64_t) {};
    EXPECT_TRUE(FailsSaying(RebaseSafely(faulty, OntoNew(), {}, nothing),
                            "No space left on device; the disk is still on its old backing "
                            "file; run it again to go on"));
    EXPECT_EQ(TestHeader(fake_).backing, (NamedFile{"base.img", "raw"}));
    ExpectDisk();
    ASSERT_OK(Rebase(OntoNew()));
    ExpectDisk();
  }
}

// Only the directory's sync failed: the new file is there.
TEST_F(RebaseDataTest, AFailureAfterTheChangeDoesNotSaySo) {
  Make({.size = 6 * kC, .backing_size = 6 * kC});
  PutNewBase(6 * kC, {{kC, 100}});
  bool renamed = false;
  FaultPlan plan({.at = 1, .error = EIO, .where = [&](const Operation& operation) {
                    renamed = renamed || operation.kind == OpKind::kRename;
                    return renamed && operation.kind == OpKind::kSyncDirectory;
                  }});
  ForwardingFileSystem faulty(fake_, plan);
  const auto result = RebaseSafely(faulty, OntoNew(), {}, [](uint64_t, uint64_t) {});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().Message().find("still on its old"), std::string::npos);
  EXPECT_EQ(TestHeader(fake_).backing, (NamedFile{"new.img", "raw"}));
  ExpectDisk();
}

// EBUSY is what --wait waits for, and nobody lets a mount point go.
TEST_F(RebaseDataTest, AMountPointThatNobodyToldOfIsNotInUse) {
  Make({.size = 6 * kC, .backing_size = 6 * kC});
  PutNewBase(6 * kC, {{kC, 100}});
  fake_.MakeMountPoint(kAddCowPath, false);
  const auto result = Rebase(OntoNew());
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().code(), EBUSY);
  EXPECT_NE(result.error().Message().find("is it a mount point itself?"), std::string::npos);
  EXPECT_NE(result.error().Message().find("still on its old"), std::string::npos);
  ExpectDisk();
}

TEST_F(RebaseDataTest, OntoAShorterAndALongerOne) {
  for (const uint64_t size : {2 * kC + 700, 9 * kC}) {
    Make({.size = 6 * kC - 100,
          .backing_size = 4 * kC + 300,
          .garbage = false,
          .allocated = {0}});
    PutNewBase(std::min(size, 4 * kC + 300), {});
    Random random(3);
    ASSERT_TRUE(fake_.Find(kNewBase)->Truncate(size));
    if (size > 4 * kC) {
      ASSERT_TRUE(fake_.Find(kNewBase)->Write(random.Bytes(4 * kC), 5 * kC));
    }
    ASSERT_OK(Rebase(OntoNew()));
    ASSERT_OK(fake_.Remove(kBackingPath));
    ExpectDisk();
  }
}

TEST_F(RebaseDataTest, OntoNothingCopiesData) {
  Make({.size = 6 * kC - 100,
        .backing_size = 5 * kC,
        .backing_data = std::vector<ByteRange>{{kC, 4096}, {3 * kC + 5, 10}},
        .garbage = false,
        .allocated = {4}});
  ASSERT_OK_AND_ASSIGN(const RebaseResult result, Rebase(OntoNothing()));
  EXPECT_FALSE(result.header.backing);
  EXPECT_FALSE(result.header.backing_identity);
  ASSERT_OK(fake_.Remove(kBackingPath));
  ExpectDisk();
  EXPECT_EQ(Report().allocated_clusters, 1u);
  EXPECT_EQ(Report().partial_clusters, 2u);
}

TEST_F(RebaseDataTest, FromNothing) {
  Make({.size = 4 * kC, .backing_size = std::nullopt, .garbage = false, .allocated = {1}});
  Random random(9);
  fake_.Put(kNewBase, random.Bytes(3 * kC));
  ASSERT_OK(Rebase(OntoNew()));
  ExpectDisk();
}

TEST_F(RebaseDataTest, WithoutSubclustersWholeClustersAreCopied) {
  Make(InForm({.size = 4 * kC, .backing_size = 4 * kC, .garbage = false}, k4kForm));
  PutNewBase(4 * kC, {{kC + 10, 20}});
  ASSERT_OK(Rebase(OntoNew()));
  ASSERT_OK(fake_.Remove(kBackingPath));
  ExpectDisk();
  EXPECT_EQ(Report().allocated_clusters, 1u);
}

TEST_F(RebaseDataTest, FromAChainOntoItsEnd) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1}, .on_image = true});
  ASSERT_OK(Rebase({.add_cow_path = kAddCowPath, .backing = NamedFile{"base.img", "raw"}}));
  ASSERT_OK(fake_.Remove("/vm/base.add-cow"));
  ExpectDisk();
}

TEST_F(RebaseDataTest, RandomDisks) {
  Random random(TestSeed());
  for (int round = 0; round < 60; round++) {
    SCOPED_TRACE(round);
    const Form forms[] = {kVersion1Form, k4kForm, k64kForm, k2MForm};
    const Form& form = forms[random.Below(4)];
    ImageSpec spec{.size = random.Between(1, 12 * kC),
                   .backing_size = random.Between(1, 12 * kC),
                   .garbage = random.OneIn(2),
                   .seed = random.Below(1000)};
    const uint64_t clusters = DivideUp(spec.size, form.cluster_size);
    for (uint64_t cluster = 0; cluster < clusters; cluster++)
      if (random.OneIn(3)) spec.allocated.push_back(cluster);
    Make(InForm(spec, form));
    std::vector<ByteRange> other;
    for (int i = 0; i < 3; i++) {
      const uint64_t offset = random.Below(*spec.backing_size);
      other.push_back(
          {offset, random.Between(1, std::min<uint64_t>(*spec.backing_size - offset, kC))});
    }
    PutNewBase(*spec.backing_size, other);
    ASSERT_TRUE(fake_.Find(kNewBase)->Truncate(random.Between(1, 13 * kC)));
    ASSERT_OK(Rebase(random.OneIn(4) ? OntoNothing() : OntoNew()));
    fake_.Put(kBackingPath, Repeat(1, 10));
    ExpectDisk();
    EXPECT_EQ(Report().corruptions(), 0u);
  }
}

TEST_F(RebaseDataTest, WithoutLookingABaseIsDroppedOnlyWhereAllIsThere) {
  Make({.size = 3 * kC, .backing_size = 3 * kC, .allocated = {0, 2}});
  const auto before = fake_.Clone();
  EXPECT_TRUE(
      FailsSaying(RebaseUnsafely(fake_, OntoNothing()), "1 cluster would read as zeroes"));
  EXPECT_EQ(fake_.DifferenceFrom(*before), "");
  Make({.size = 3 * kC, .backing_size = 3 * kC, .allocated = {0, 1, 2}});
  ASSERT_OK(RebaseUnsafely(fake_, OntoNothing()));
  ASSERT_OK(fake_.Remove(kBackingPath));
  ExpectDisk();
}

TEST_F(RebaseDataTest, AnInterruptionLeavesItOnTheOldOne) {
  Make({.size = 6 * kC, .backing_size = 6 * kC});
  PutNewBase(6 * kC, {{kC, 100}});
  RebaseOptions options = OntoNew();
  options.access.interrupted = [] { return true; };
  const auto result = Rebase(options);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), kErrInterrupted);
  EXPECT_EQ(TestHeader(fake_).backing, (NamedFile{"base.img", "raw"}));
  ExpectDisk();
}

}  // namespace
}  // namespace addcow
