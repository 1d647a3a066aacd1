// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow commit: what the base gets, what is left of the image, and what is refused before
// anything is touched. What failures and crashes leave is in tests/fault and tests/crash.

#include "common/ops/commit.h"

#include <gtest/gtest.h>

#include <utility>

#include "common/ops/check.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/forms.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

class CommitTest : public testing::Test {
 protected:
  CommitTest() { fake_.MakeDirectory(kDirectory); }

  void Make(const ImageSpec& spec, const std::vector<uint64_t>& subclusters = {}) {
    for (const char* const path : {kAddCowPath, kImagePath, kBackingPath})
      if (fake_.Find(path) != nullptr) (void)fake_.Remove(path);
    ASSERT_OK_AND_ASSIGN(disk_, MakeTestImage(fake_, kDirectory, spec));
    if (!subclusters.empty()) AddSubclusters(fake_, subclusters, &disk_);
  }
  // An image of its own at `directory`.
  void MakeAlso(const std::string& directory, const ImageSpec& spec) {
    fake_.MakeDirectory(directory);
    ASSERT_OK(MakeTestImage(fake_, directory, spec));
  }
  static CommitOptions Of(std::vector<std::string> paths) {
    return {.add_cow_paths = std::move(paths)};
  }
  void ExpectDisk() {
    ASSERT_OK_AND_ASSIGN(auto image, OpenTestImage(fake_));
    EXPECT_EQ(Difference(ReadAll(*image), disk_), "");
  }
  void ExpectBaseHasAll() {
    EXPECT_EQ(Difference(fake_.Find(kBackingPath)->Bytes(0, disk_.size()), disk_), "");
  }
  void ExpectEmpty() {
    ASSERT_OK_AND_ASSIGN(const CheckReport report,
                         CheckImage(fake_, kAddCowPath, Repair::kNone));
    EXPECT_FALSE(report.error);
    EXPECT_EQ(report.allocated_clusters, 0u);
    EXPECT_EQ(report.partial_clusters, 0u);
    EXPECT_EQ(report.leaked_clusters, 0u);
    EXPECT_EQ(report.corruptions(), 0u);
  }
  // Refused so, and nothing is changed.
  void ExpectRefused(const CommitOptions& options, const std::string& text) {
    const auto before = fake_.Clone();
    EXPECT_TRUE(FailsSaying(CommitImages(fake_, options), text));
    EXPECT_EQ(fake_.DifferenceFrom(*before), "");
    EXPECT_EQ(fake_.open_files(), 0);
  }

  FakeFileSystem fake_;
  std::vector<std::byte> disk_;
};

TEST_F(CommitTest, TheBaseGetsAllAndTheImageIsEmpty) {
  for (const Form& form : {kVersion1Form, k4kForm, k64kForm, k2MForm}) {
    SCOPED_TRACE(form.name);
    Make(InForm({.size = 9 * kC - 100, .backing_size = 9 * kC, .allocated = {0, 2}}, form),
         form.cluster_size == 4 * kKiB ? std::vector<uint64_t>()
                                       : std::vector<uint64_t>{70, 71});
    ASSERT_OK_AND_ASSIGN(const CommitResult result, CommitImages(fake_, Of({kAddCowPath})));
    ASSERT_EQ(result.images.size(), 1u);
    EXPECT_EQ(result.images[0].grown_to, 0u);
    ExpectDisk();
    ExpectBaseHasAll();
    ExpectEmpty();
    // Past the disk's end the base is as it was.
    EXPECT_EQ(fake_.Find(kBackingPath)->size(), 9 * kC);
    // And what it is now is noted, so that it is accepted, and a swapped one is not.
    EXPECT_TRUE(TestHeader(fake_).backing_identity.has_value());
  }
}

TEST_F(CommitTest, WhatHasAllIsEmptyToo) {
  Make({.size = 3 * kC + 700, .backing_size = 3 * kC + 700, .all_allocated = true});
  ASSERT_OK(CommitImages(fake_, Of({kAddCowPath})));
  ExpectDisk();
  ExpectBaseHasAll();
  ExpectEmpty();
}

TEST_F(CommitTest, AnEmptyImageIsCommittedAndChangesNoByte) {
  Make({.size = 3 * kC, .backing_size = 3 * kC});
  const auto base = fake_.Find(kBackingPath)->Bytes(0, 3 * kC);
  ASSERT_OK_AND_ASSIGN(const CommitResult result, CommitImages(fake_, Of({kAddCowPath})));
  EXPECT_EQ(result.images[0].data, 0u);
  EXPECT_EQ(fake_.Find(kBackingPath)->Bytes(0, 3 * kC), base);
  // Data without any bit may be another disk's.
  EXPECT_NE(fake_.Find(kImagePath)->Bytes(0, kC), Repeat(0, kC));
}

TEST_F(CommitTest, ZeroesOfTheImageGiveStorageOfTheBaseBack) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .garbage = false});
  {
    ASSERT_OK_AND_ASSIGN(auto image, OpenTestImage(fake_));
    ASSERT_OK(image->Zero(kC, 2 * kC, {}));
    ASSERT_OK(image->Close());
  }
  std::fill_n(disk_.begin() + kC, 2 * kC, std::byte{0});
  ASSERT_OK_AND_ASSIGN(const CommitResult result, CommitImages(fake_, Of({kAddCowPath})));
  EXPECT_EQ(result.images[0].data, 0u);
  EXPECT_EQ(result.images[0].zeroes, 2 * kC);
  ExpectDisk();
  ASSERT_OK_AND_ASSIGN(auto base, fake_.Open(kBackingPath, OpenMode::kReadOnly));
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, base->FindHole(0));
  EXPECT_EQ(hole, kC);
}

TEST_F(CommitTest, AShortBaseGrows) {
  Make({.size = 5 * kC, .backing_size = 2 * kC + 512, .garbage = false, .allocated = {4}});
  ASSERT_OK_AND_ASSIGN(const CommitResult result, CommitImages(fake_, Of({kAddCowPath})));
  EXPECT_EQ(result.images[0].backing_size, 2 * kC + 512);
  EXPECT_EQ(result.images[0].grown_to, 5 * kC);
  ExpectDisk();
  ExpectBaseHasAll();
}

TEST_F(CommitTest, ADryRunChangesNothing) {
  Make({.size = 5 * kC, .backing_size = 2 * kC, .allocated = {1, 4}});
  const auto before = fake_.Clone();
  CommitOptions options = Of({kAddCowPath});
  options.dry_run = true;
  ASSERT_OK_AND_ASSIGN(const CommitResult result, CommitImages(fake_, options));
  EXPECT_EQ(result.images[0].data, 2 * kC);
  EXPECT_EQ(result.images[0].grown_to, 5 * kC);
  EXPECT_EQ(fake_.DifferenceFrom(*before), "");
}

TEST_F(CommitTest, WhatCannotBeReplacedIsRefusedBeforeAnythingIs) {
  Make({.size = 5 * kC, .backing_size = 5 * kC, .allocated = {1}});
  fake_.Find(kAddCowPath)->SetRights(0666, 1, 1);
  for (const bool dry_run : {false, true}) {
    CommitOptions options = Of({kAddCowPath});
    options.dry_run = dry_run;
    const auto files = fake_.Clone();
    files->MakeMountPoint(kAddCowPath);
    EXPECT_TRUE(FailsSaying(CommitImages(*files, options), "is a mount point itself"));
    EXPECT_EQ(files->DifferenceFrom(fake_), "");
  }
  // What only a try shows.
  const auto files = fake_.Clone();
  files->ForbidGivingAway(false);
  EXPECT_TRUE(
      FailsSaying(CommitImages(*files, Of({kAddCowPath})), "cannot be given to another user"));
  EXPECT_EQ(files->DifferenceFrom(fake_), "");
  EXPECT_EQ(files->open_files(), 0);
}

TEST_F(CommitTest, WhatMayNotBeWrittenIsRefusedBeforeAnythingIsAlsoByADryRun) {
  for (const bool on_image : {false, true}) {
    Make({.size = 5 * kC, .backing_size = 5 * kC, .allocated = {1}, .on_image = on_image});
    for (const char* const path :
         {kAddCowPath, kImagePath, kDirectory, on_image ? "/vm/base.add-cow" : kBackingPath})
      for (const bool dry_run : {false, true}) {
        SCOPED_TRACE(testing::Message() << path << (dry_run ? ", dry run" : ""));
        const auto files = fake_.Clone();
        files->ForbidWriting(path, EACCES);
        CommitOptions options = Of({kAddCowPath});
        options.dry_run = dry_run;
        EXPECT_TRUE(FailsSaying(CommitImages(*files, options), "Permission denied"));
        EXPECT_EQ(files->DifferenceFrom(fake_), "");
        EXPECT_EQ(files->open_files(), 0);
      }
  }
}

TEST_F(CommitTest, ADryRunRefusesWhatSomebodyReads) {
  for (const char* const directory : {kDirectory, "/other"}) {
    SCOPED_TRACE(directory);
    for (const std::string& name : fake_.List()) ASSERT_OK(fake_.Remove(name));
    Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
    MakeAlso("/other", {.size = 2 * kC, .allocated = {1}});
    fake_.PutName("/other/base.img", fake_.Find(kBackingPath));
    ASSERT_OK_AND_ASSIGN(const auto reader,
                         OpenTestImage(fake_, directory, OpenMode::kReadOnly));
    CommitOptions options = Of({kAddCowPath});
    options.dry_run = true;
    EXPECT_TRUE(FailsSaying(CommitImages(fake_, options), "in use"));
  }
}

TEST_F(CommitTest, WhatIsDroppedKeepsItsBits) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1}});
  CommitOptions options = Of({kAddCowPath});
  options.drop = true;
  ASSERT_OK(CommitImages(fake_, options));
  ExpectDisk();
  ExpectBaseHasAll();
  ASSERT_OK_AND_ASSIGN(const CheckReport report, CheckImage(fake_, kAddCowPath, Repair::kNone));
  EXPECT_EQ(report.allocated_clusters, 1u);
}

TEST_F(CommitTest, IntoAnotherImage) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1, 2}, .on_image = true});
  ASSERT_OK(CommitImages(fake_, Of({kAddCowPath})));
  ExpectDisk();
  ExpectEmpty();
  ASSERT_OK_AND_ASSIGN(const CheckReport lower,
                       CheckImage(fake_, "/vm/base.add-cow", Repair::kNone));
  EXPECT_EQ(lower.corruptions(), 0u);
}

TEST_F(CommitTest, ProgressEndsAtAll) {
  Make({.size = 40 * kC, .backing_size = 40 * kC, .allocated = {1, 30}});
  CommitOptions options = Of({kAddCowPath});
  uint64_t last = 0;
  options.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GE(done, last);
    EXPECT_EQ(total, 2 * kC);
    last = done;
  };
  ASSERT_OK(CommitImages(fake_, options));
  EXPECT_EQ(last, 2 * kC);
}

TEST_F(CommitTest, AnInterruptionLeavesTheDiskAsItWas) {
  Make({.size = 40 * kC, .backing_size = 40 * kC, .allocated = {1, 30}});
  CommitOptions options = Of({kAddCowPath});
  int asked = 0;
  options.access.interrupted = [&] { return ++asked > 1; };
  const auto result = CommitImages(fake_, options);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), kErrInterrupted);
  ExpectDisk();
  ASSERT_OK(CommitImages(fake_, Of({kAddCowPath})));
  ExpectDisk();
  ExpectEmpty();
}

TEST_F(CommitTest, RefusesAnImageWithoutABase) {
  Make({.size = 2 * kC, .backing_size = std::nullopt, .allocated = {0}});
  ExpectRefused(Of({kAddCowPath}), "has no backing file to commit to");
}

TEST_F(CommitTest, RefusesABaseThatIsMissing) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .all_allocated = true});
  ASSERT_OK(fake_.Remove(kBackingPath));
  ExpectRefused(Of({kAddCowPath}), kBackingPath);
}

TEST_F(CommitTest, RefusesABaseThatSomebodyReads) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  MakeAlso("/other", {.size = 2 * kC, .allocated = {1}});
  fake_.PutName("/other/base.img", fake_.Find(kBackingPath));
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenTestImage(fake_, "/other"));
  EXPECT_TRUE(FailsSaying(CommitImages(fake_, Of({kAddCowPath})), "in use"));
  ExpectDisk();
}

TEST_F(CommitTest, RefusesABaseThatIsNotWhatItWas) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .garbage = false, .allocated = {0}});
  ASSERT_OK(CommitImages(fake_, Of({kAddCowPath})));  // notes what it is
  {
    ASSERT_OK_AND_ASSIGN(auto image, OpenTestImage(fake_));
    ASSERT_OK(image->Write(Repeat(9, kC), kC));
    ASSERT_OK(image->Close());
  }
  fake_.Put(kBackingPath, Repeat(7, 2 * kC));
  ExpectRefused(Of({kAddCowPath}), kBackingPath);
}

// Between the lock of who writes and that of who reads.
TEST_F(CommitTest, ABaseThatSomebodyWritesToJustAfterItIsNotNoted) {
  const ImageSpec spec = {.size = 3 * kC, .backing_size = 3 * kC, .allocated = {1}};
  int opened = 0;
  int change_at = 0;
  FaultPlan faults({.where = [&](const Operation& operation) {
    if (operation.kind == OpKind::kOpen && operation.path == kBackingPath &&
        ++opened == change_at)
      fake_.Find(kBackingPath)->SetModified({.seconds = 99, .nanoseconds = 0});
    return false;
  }});
  ForwardingFileSystem files(fake_, faults);
  Make(spec);
  ASSERT_OK(CommitImages(files, Of({kAddCowPath})));
  change_at = std::exchange(opened, 0);
  Make(spec);
  EXPECT_TRUE(FailsWith(CommitImages(files, Of({kAddCowPath})), EAGAIN));
  EXPECT_EQ(opened, change_at);
  ExpectDisk();
  EXPECT_FALSE(TestHeader(fake_).backing_identity.has_value());
  ASSERT_OK(CommitImages(files, Of({kAddCowPath})));
  ExpectDisk();
  ExpectBaseHasAll();
  ExpectEmpty();
}

TEST_F(CommitTest, RefusesTwoThatHaveOneImageFile) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  fake_.MakeDirectory("/other");
  fake_.Put("/other/x.add-cow", fake_.Find(kAddCowPath)->Bytes(0, kC));
  fake_.PutName("/other/disk.raw", fake_.Find(kImagePath));
  fake_.PutName("/other/base.img", fake_.Find(kBackingPath));
  ExpectRefused(Of({kAddCowPath, "/other/x.add-cow"}), "one of them is a copy");
}

TEST_F(CommitTest, RefusesTwoThatHaveOneBase) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  MakeAlso("/other", {.size = 2 * kC, .allocated = {1}});
  fake_.PutName("/other/base.img", fake_.Find(kBackingPath));
  ExpectRefused(Of({kAddCowPath, "/other/x.add-cow"}), "both use");
}

TEST_F(CommitTest, TwoThatHaveOneBaseFarBelowAreCommitted) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1, 2}, .on_image = true});
  MakeAlso("/other",
           {.size = 4 * kC, .backing_size = 4 * kC, .allocated = {0}, .on_image = true});
  ASSERT_OK(fake_.Remove("/other/base.img"));
  fake_.PutName("/other/base.img", fake_.Find(kBackingPath));
  ASSERT_OK(CommitImages(fake_, Of({kAddCowPath, "/other/x.add-cow"})));
  ExpectDisk();
  ExpectEmpty();
}

// A guest has written it. A base that begins so is opened by nobody.
TEST_F(CommitTest, RefusesADiskThatBeginsAsAnAddCowFileDoes) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  ASSERT_TRUE(fake_.Find(kImagePath)->Write(fake_.Find(kAddCowPath)->Bytes(0, 8), 0));
  ExpectRefused(Of({kAddCowPath}), "begins as an add-cow file does");
}

// It says no more of the base than before.
TEST_F(CommitTest, OneThatEndsBeforeItsFirstWriteKeepsTheRecordOfTheBase) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .garbage = false, .allocated = {0}});
  ASSERT_OK(CommitImages(fake_, Of({kAddCowPath})));  // notes what it is
  {
    ASSERT_OK_AND_ASSIGN(auto image, OpenTestImage(fake_));
    ASSERT_OK(image->Write(Repeat(9, kC), kC));
    ASSERT_OK(image->Close());
  }
  const auto noted = TestHeader(fake_).backing_identity;
  ASSERT_TRUE(noted.has_value());
  CommitOptions options = Of({kAddCowPath});
  options.access.interrupted = [] { return true; };
  EXPECT_FALSE(CommitImages(fake_, options));
  EXPECT_EQ(TestHeader(fake_).backing_identity, noted);
}

// The disk works while the next is copied; what it says then counts.
TEST_F(CommitTest, WhatIsCopiedIsOnItsWayToTheDisk) {
  Make({.size = 20 * kMiB, .backing_size = 20 * kMiB, .all_allocated = true});
  FaultPlan faults({.at = 3, .error = EIO, .where = [](const Operation& operation) {
                      return operation.kind == OpKind::kStartWriteback &&
                             operation.path == kBackingPath;
                    }});
  {
    ForwardingFileSystem files(fake_, faults);
    ASSERT_OK(CommitImages(files, Of({kAddCowPath})));
  }
  EXPECT_EQ(faults.counted(), 2u);
  Make({.size = 20 * kMiB, .backing_size = 20 * kMiB, .all_allocated = true});
  faults.Set({.at = 2, .error = EIO, .where = [](const Operation& operation) {
                return operation.kind == OpKind::kStartWriteback;
              }});
  {
    ForwardingFileSystem files(fake_, faults);
    EXPECT_TRUE(FailsSaying(CommitImages(files, Of({kAddCowPath})), "sync_file_range"));
  }
  ExpectDisk();
  EXPECT_FALSE(TestHeader(fake_).backing_identity.has_value());
  ASSERT_OK(CommitImages(fake_, Of({kAddCowPath})));
  ExpectDisk();
  ExpectBaseHasAll();
}

// Nobody would open the image any more, since the base is not what the record says.
TEST_F(CommitTest, OneThatEndsAfterItsFirstWriteHasNoRecordOfTheBase) {
  for (const bool zeroes : {false, true}) {
    SCOPED_TRACE(zeroes);
    Make({.size = 40 * kC, .backing_size = 40 * kC, .garbage = false, .allocated = {0}});
    ASSERT_OK(CommitImages(fake_, Of({kAddCowPath})));  // notes what it is
    {
      ASSERT_OK_AND_ASSIGN(auto image, OpenTestImage(fake_));
      for (const uint64_t offset : {kC, 30 * kC})
        ASSERT_OK(zeroes ? image->Zero(offset, kC, {}) : image->Write(Repeat(9, kC), offset));
      ASSERT_OK(image->Close());
      disk_ = ReadAll(*image);
    }
    ASSERT_TRUE(TestHeader(fake_).backing_identity.has_value());
    const auto before = fake_.Find(kBackingPath)->Clone();
    CommitOptions options = Of({kAddCowPath});
    options.access.interrupted = [&] { return !fake_.Find(kBackingPath)->SameBytes(*before); };
    EXPECT_TRUE(FailsWith(CommitImages(fake_, options), kErrInterrupted));
    EXPECT_FALSE(fake_.Find(kBackingPath)->SameBytes(*before)) << "it ended too early";
    EXPECT_FALSE(TestHeader(fake_).backing_identity.has_value());
    ExpectDisk();
    ASSERT_OK(CommitImages(fake_, Of({kAddCowPath})));
    ExpectDisk();
    ExpectEmpty();
  }
}

TEST_F(CommitTest, RefusesAFileWithTwoNames) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  fake_.PutName("/vm/second.add-cow", fake_.Find(kAddCowPath));
  ExpectRefused(Of({kAddCowPath}), "has 2 names (hard links)");
}

TEST_F(CommitTest, RefusesTheSameTwice) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {0}});
  ExpectRefused(Of({kAddCowPath, kAddCowPath}), "is named twice");
}

TEST_F(CommitTest, RefusesTwoThatStandOnEachOther) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1, 2}, .on_image = true});
  ExpectRefused(Of({kAddCowPath, "/vm/base.add-cow"}), "stand on each other");
}

}  // namespace
}  // namespace addcow
