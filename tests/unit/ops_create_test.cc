// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow create: what it refuses since a disk would be lost, what it locks,
// who may use what it makes, and preallocation. The rest is in ops_test.cc.

#include "common/ops/create.h"

#include <gtest/gtest.h>

#include "common/format/sample.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class CreateTest : public testing::Test {
 protected:
  CreateTest() { fake_.Put(kBackingPath, Repeat(7, 100000)); }

  static CreateOptions Options(bool with_backing = true) {
    CreateOptions options;
    options.add_cow_path = kAddCowPath;
    options.image_name = "disk.raw";
    if (with_backing) options.backing = NamedFile{"base.img", "raw"};
    return options;
  }
  void ExpectRefused(const CreateOptions& options, const std::string& text) {
    const auto before = fake_.List();
    EXPECT_TRUE(FailsSaying(CreateImage(fake_, options), text));
    EXPECT_EQ(fake_.List(), before);
  }
  // Somebody else's handle on a file, with a lock.
  std::unique_ptr<File> Lock(const std::string& path, LockKind kind) {
    auto file = std::make_unique<FakeFile>(path, fake_.Find(path));
    EXPECT_OK(file->Lock(kind));
    return file;
  }
  Header HeaderOnDisk() {
    auto header = ParseHeader(fake_.Find(kAddCowPath)->Bytes(0, kHeaderSize), kAddCowPath);
    EXPECT_OK(header);
    return header ? *header : Header();
  }

  // All of a base that is so short.
  BackingSample SampleOnDisk() {
    return {.edge = kMostSampleEdge, .hash = Xxh3(fake_.Find(kBackingPath)->Bytes(0, 100000))};
  }

  FakeFileSystem fake_;
};

TEST_F(CreateTest, NotesWhatTheBackingFileIs) {
  fake_.Find(kBackingPath)->SetModified({123, 456});
  ASSERT_OK(CreateImage(fake_, Options()));
  EXPECT_EQ(HeaderOnDisk().backing_identity,
            (BackingIdentity{
                .size = 100000, .modified = FileTime{123, 456}, .sample = SampleOnDisk()}));
  fake_.Find(kBackingPath)->SetAbilities({.is_block_device = true});
  CreateOptions again = Options();
  again.force = true;
  ASSERT_OK(CreateImage(fake_, again));
  EXPECT_EQ(HeaderOnDisk().backing_identity,
            (BackingIdentity{.size = 100000, .modified = {}, .sample = SampleOnDisk()}));
}

TEST_F(CreateTest, RefusesAnImageFileThatHoldsDataUnlessToldToReuseIt) {
  fake_.Put(kImagePath, Repeat(5, 200000));
  ExpectRefused(Options(), "--reuse-image");
  CreateOptions options = Options();
  options.reuse_image = true;
  ASSERT_OK_AND_ASSIGN(const CreateResult result, CreateImage(fake_, options));
  EXPECT_TRUE(result.old_data_ignored);
  EXPECT_EQ(fake_.Find(kImagePath)->Bytes(0, 200000), Repeat(5, 200000));
}

TEST_F(CreateTest, WhatReadsAsZeroesHoldsNoData) {
  fake_.Put(kImagePath, Repeat(0, 200000));  // as on a file system without holes
  ASSERT_OK_AND_ASSIGN(const CreateResult result, CreateImage(fake_, Options()));
  EXPECT_FALSE(result.old_data_ignored);
}

TEST_F(CreateTest, SaysThatDataWithoutABackingFileBecomesTheDisk) {
  fake_.Put(kImagePath, Repeat(5, 200000));
  ASSERT_OK_AND_ASSIGN(const CreateResult result, CreateImage(fake_, Options(false)));
  EXPECT_TRUE(result.old_data_shown);
  EXPECT_FALSE(result.old_data_ignored);
}

TEST_F(CreateTest, SaysHowANameOfAServerBegins) {
  CreateOptions options = Options();
  for (const char* name : {"nbd:localhost:10809", "NBD://host/x", "nbd+vsock://1",
                           "https://h/x", "ssh://h/x", "rbd:pool/x", "json:{}"}) {
    options.backing = NamedFile{name, "raw"};
    ExpectRefused(options, "those begin with nbd://, nbds://, nbd+unix:// or nbds+unix://");
  }
  for (const char* name : {"none.img", "a:b", "./nbd:host:1", "x/nbd://host"}) {
    options.backing = NamedFile{name, "raw"};
    ExpectRefused(options, "not found (names start from");
  }
  fake_.Put("/vm/nbd:file", Repeat(7, 100000));
  options.backing = NamedFile{"nbd:file", "raw"};
  EXPECT_OK(CreateImage(fake_, options));
}

TEST_F(CreateTest, RefusesFilesThatAreInUse) {
  fake_.Put(kImagePath, 200000);
  for (const LockKind kind : {LockKind::kRead, LockKind::kWrite}) {
    const auto user = Lock(kImagePath, kind);
    EXPECT_TRUE(FailsWith(CreateImage(fake_, Options()), EBUSY));
    EXPECT_TRUE(FailsWith(CreateImage(fake_, Options(false)), EBUSY));
  }
  {
    const auto writer = Lock(kBackingPath, LockKind::kWrite);
    EXPECT_TRUE(FailsWith(CreateImage(fake_, Options()), EBUSY));
    CreateOptions options = Options();
    options.lock = false;
    EXPECT_OK(CreateImage(fake_, options));
    ASSERT_OK(fake_.Remove(kAddCowPath));
  }
  // Any number of overlays read one base.
  const auto reader = Lock(kBackingPath, LockKind::kRead);
  EXPECT_OK(CreateImage(fake_, Options()));
}

TEST_F(CreateTest, ForceRefusesToThrowAllocatedClustersAway) {
  ASSERT_OK(CreateImage(fake_, Options()));
  {
    ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(fake_));
    ASSERT_OK(image->Write(Repeat(1, 70000), 0));
    ASSERT_OK(image->Close());
  }
  CreateOptions options = Options();
  options.force = true;
  ExpectRefused(options, "has data in 2 clusters, which would be lost");
  options.image_name = "other.raw";
  ExpectRefused(options, "has data in 2 clusters, which would be lost");
  // Its own image file's data may go with them.
  options.image_name = "disk.raw";
  options.discard = true;
  ASSERT_OK_AND_ASSIGN(const CreateResult result, CreateImage(fake_, options));
  EXPECT_TRUE(result.old_data_ignored);
  ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(fake_));
  EXPECT_EQ(Difference(ReadAll(*image), Repeat(7, 100000)), "");
}

TEST_F(CreateTest, ForceCountsAllClustersOfADiskThatIsAllAllocated) {
  fake_.Put(kImagePath, Repeat(5, 200000));
  ASSERT_OK(CreateImage(fake_, Options(false)));
  CreateOptions options = Options(false);
  options.force = true;
  ExpectRefused(options, "has data in 4 clusters");
  ASSERT_TRUE(fake_.Find(kAddCowPath)->PunchHole(kBitmapOffset, 1));  // the flag counts
  ExpectRefused(options, "has data in 4 clusters");
}

TEST_F(CreateTest, ForceCountsBitsAlsoWhereTheRestIsBroken) {
  fake_.MakeDirectory("/vm2");
  ASSERT_OK(MakeTestImage(fake_, "/vm2", {.allocated = {1, 2}}));
  ASSERT_TRUE(fake_.Find("/vm2/x.add-cow")->Write(Repeat(9, 1), 8));  // version
  CreateOptions options = Options();
  options.add_cow_path = "/vm2/x.add-cow";
  options.image_name = "new.raw";
  options.force = true;
  ExpectRefused(options, "has data in 2 clusters");
}

// The old file would stay under the other name, with the same image file.
TEST_F(CreateTest, ForceRefusesAFileWithTwoNames) {
  ASSERT_OK(CreateImage(fake_, Options()));
  fake_.PutName("/vm/second.add-cow", fake_.Find(kAddCowPath));
  CreateOptions options = Options();
  options.force = true;
  ExpectRefused(options, "has 2 names (hard links)");
  ASSERT_OK(fake_.Remove("/vm/second.add-cow"));
  EXPECT_OK(CreateImage(fake_, options));
}

// What a crash on the last rung of durable_create leaves.
TEST_F(CreateTest, ForceReplacesAnEmptyFile) {
  fake_.Put(kAddCowPath);
  ExpectRefused(Options(), "--force");
  CreateOptions options = Options();
  options.force = true;
  EXPECT_OK(CreateImage(fake_, options));
}

TEST_F(CreateTest, RefusesAddCowFilesAsRawFiles) {
  ASSERT_OK(CreateImage(fake_, Options()));
  CreateOptions options = Options();
  options.add_cow_path = "/vm/y.add-cow";
  options.image_name = "y.raw";
  options.backing->name = "x.add-cow";
  ExpectRefused(options, "is an add-cow file, so it cannot be used as a raw backing file");
  options = Options(false);
  options.add_cow_path = "/vm/y.add-cow";
  options.image_name = "x.add-cow";
  ExpectRefused(options, "is an add-cow file, so it cannot be used as a raw image file");
}

TEST_F(CreateTest, NotesWhatMayBeAMistake) {
  const std::string qcow2 = "QFI\xfb";
  ASSERT_TRUE(fake_.Find(kBackingPath)->Write(std::as_bytes(std::span(qcow2)), 0));
  CreateOptions options = Options();
  options.size = 50000;
  ASSERT_OK_AND_ASSIGN(const CreateResult result, CreateImage(fake_, options));
  ASSERT_EQ(result.notes.size(), 2u);
  EXPECT_NE(result.notes[0].find("as a qcow2 file does"), std::string::npos);
  EXPECT_NE(result.notes[1].find("the end is cut off"), std::string::npos);
}

TEST_F(CreateTest, NewFilesHaveNoMoreRightsThanTheBase) {
  fake_.Find(kBackingPath)->SetRights(0600, 0, 0);
  ASSERT_OK(CreateImage(fake_, Options()));
  EXPECT_EQ(fake_.Find(kImagePath)->Info()->permissions, 0600u);
  EXPECT_EQ(fake_.Find(kAddCowPath)->Info()->permissions, 0600u);
}

TEST_F(CreateTest, NewFilesOfABaseThatNobodyWritesCanBeWritten) {
  fake_.Find(kBackingPath)->SetRights(0444, 0, 0);
  ASSERT_OK(CreateImage(fake_, Options()));
  EXPECT_EQ(fake_.Find(kImagePath)->Info()->permissions, 0644u);
}

TEST_F(CreateTest, PreallocationReservesAllOrWritesAll) {
  CreateOptions options = Options();
  options.preallocation = Preallocation::kFalloc;
  ASSERT_OK(CreateImage(fake_, options));
  const uint64_t blocks = DivideUp(100000, FakeInode::kBlockSize) * FakeInode::kBlockSize;
  EXPECT_EQ(fake_.Find(kImagePath)->Info()->allocated_bytes, blocks);
  EXPECT_FALSE(fake_.Find(kImagePath)->SeekData(0));  // unwritten
  ASSERT_OK(fake_.Remove(kAddCowPath));
  ASSERT_OK(fake_.Remove(kImagePath));
  options.preallocation = Preallocation::kFull;
  std::vector<std::pair<uint64_t, uint64_t>> progress;
  options.progress = [&](uint64_t done, uint64_t total) { progress.emplace_back(done, total); };
  ASSERT_OK(CreateImage(fake_, options));
  EXPECT_EQ(*fake_.Find(kImagePath)->SeekHole(0), 100000u);
  ASSERT_GE(progress.size(), 2u);
  EXPECT_EQ(progress.front(), std::pair(uint64_t{0}, uint64_t{100000}));
  EXPECT_EQ(progress.back(), std::pair(uint64_t{100000}, uint64_t{100000}));
}

TEST_F(CreateTest, SaysThatAnImageFileMayNotBeWritten) {
  fake_.Put(kImagePath, 100000);
  fake_.ForbidWriting(kImagePath, EROFS);
  ASSERT_OK_AND_ASSIGN(const CreateResult result, CreateImage(fake_, Options()));
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_EQ(result.notes[0],
            "open: /vm/disk.raw: Read-only file system; the disk will be read only");
}

// Its first quarter of a gigabyte is zeroes, which were written.
TEST_F(CreateTest, AnImageFileThatIsTooLargeToBeSearchedNeedsReuseImage) {
  fake_.Put(kImagePath);
  FakeInode& image = *fake_.Find(kImagePath);
  ASSERT_TRUE(image.Truncate(300 * kMiB));
  image.SetAbilities({.seek = false});
  ExpectRefused(Options(), "is too large to be searched for data");
  ASSERT_TRUE(image.Truncate(200 * kMiB));
  ASSERT_OK(CreateImage(fake_, Options()));
  ASSERT_TRUE(image.Write(Repeat(1, 1), 199 * kMiB));
  CreateOptions again = Options();
  again.add_cow_path = "/vm/y.add-cow";
  ExpectRefused(again, "already exists and holds data");
}

// It is no file that somebody could remove first.
TEST_F(CreateTest, SaysOfABlockDeviceThatItIsOne) {
  CreateOptions options = Options();
  options.add_cow_path = "/vm/device";
  fake_.Put("/vm/device", Repeat(5, 200000));
  fake_.Find("/vm/device")->SetAbilities({.is_block_device = true});
  for (const bool force : {false, true}) {
    options.force = force;
    ExpectRefused(options, "/vm/device: is a block device, and a new file is made here");
  }
  fake_.Put(kImagePath);
  fake_.Find(kImagePath)->SetAbilities({.is_block_device = true});
  ExpectRefused(Options(), "is a block device of 0 bytes");
}

TEST_F(CreateTest, PreallocationIsForNewImageFiles) {
  fake_.Put(kImagePath, 200000);
  CreateOptions options = Options();
  options.preallocation = Preallocation::kFalloc;
  ExpectRefused(options, "only a new image file can be preallocated");
}

// A file system that cannot reserve: said, not passed over.
class CannotReserve final : public Interceptor {
 public:
  Verdict Before(const Operation& operation) override {
    if (operation.kind == OpKind::kReserve) return {.error = EOPNOTSUPP, .transfer = {}};
    return {};
  }
};

TEST_F(CreateTest, PreallocationThatCannotBeReservedIsAnErrorAndFullWrites) {
  CannotReserve cannot;
  ForwardingFileSystem seam(fake_, cannot);
  CreateOptions options = Options();
  options.preallocation = Preallocation::kFalloc;
  const auto before = fake_.List();
  EXPECT_TRUE(FailsSaying(CreateImage(seam, options), "--preallocation=full"));
  EXPECT_EQ(fake_.List(), before);
  options.preallocation = Preallocation::kFull;
  EXPECT_OK(CreateImage(seam, options));
}

TEST_F(CreateTest, PreallocationWithoutRoomLeavesNothing) {
  for (const OpKind kind : {OpKind::kReserve, OpKind::kWrite}) {
    FaultPlan full({.at = 1, .error = ENOSPC, .where = [&](const Operation& operation) {
                      return operation.kind == kind && operation.path == kImagePath;
                    }});
    ForwardingFileSystem seam(fake_, full);
    CreateOptions options = Options();
    options.preallocation = Preallocation::kFull;
    const auto before = fake_.List();
    EXPECT_TRUE(FailsWith(CreateImage(seam, options), ENOSPC));
    EXPECT_TRUE(full.fired());
    EXPECT_EQ(fake_.List(), before);
  }
}

// exFAT: neither RENAME_NOREPLACE nor hard links.
TEST_F(CreateTest, WorksWhereNothingKeepsARenameFromReplacing) {
  fake_.ForbidKeepExisting();
  ASSERT_OK(CreateImage(fake_, Options()));
  EXPECT_EQ(fake_.List(), (std::vector<std::string>{kBackingPath, kImagePath, kAddCowPath}));
  ExpectRefused(Options(), "--force");
  EXPECT_OK(OpenTestImage(fake_));
}

}  // namespace
}  // namespace addcow
