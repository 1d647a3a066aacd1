// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The tool's verbs that write, when the power fails at any moment. None of
// them changes what a disk reads, so after a crash it must read as before;
// and what has returned must hold.

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "common/ops/create.h"
#include "common/ops/flatten.h"
#include "common/ops/rebase.h"
#include "tests/crash/ops_crash.h"

namespace addcow {
namespace {

CreateOptions NewImage(bool force) {
  CreateOptions options;
  options.add_cow_path = kAddCowPath;
  options.image_name = "disk.raw";
  options.backing = NamedFile{"base.img", "raw"};
  options.force = force;
  options.discard = force;
  return options;
}

Header HeaderOf(const FakeFileSystem& files) {
  auto header = ParseHeader(files.Find(kAddCowPath)->Bytes(0, kHeaderSize), kAddCowPath);
  EXPECT_OK(header);
  return header ? *header : Header();
}

TEST_F(OpsCrash, CreatedImageIsThereWholeOrNotAtAll) {
  contents_ = Repeat(7, 2 * kC + 100);
  files_.Put(kBackingPath, contents_);
  Run([](FileSystem& disk) { EXPECT_OK(CreateImage(disk, NewImage(false))); },
      [&](FakeFileSystem& files, bool returned) {
        if (files.Find(kAddCowPath) != nullptr)
          ExpectReads(files, contents_);
        else
          EXPECT_FALSE(returned);
      });
}

// exFAT. An empty file under the name is the price, and create can be run again.
TEST_F(OpsCrash, CreatedOnTheLastRungIsThereWholeOrEmptyOrNotAtAll) {
  contents_ = Repeat(7, 2 * kC + 100);
  files_.Put(kBackingPath, contents_);
  files_.ForbidKeepExisting();
  Run([](FileSystem& disk) { EXPECT_OK(CreateImage(disk, NewImage(false))); },
      [&](FakeFileSystem& files, bool returned) {
        const auto add_cow = files.Find(kAddCowPath);
        if (add_cow != nullptr && add_cow->size() > 0) return ExpectReads(files, contents_);
        EXPECT_FALSE(returned);
        if (add_cow != nullptr) {
          EXPECT_OK(CreateImage(files, NewImage(true)));
        }
      });
}

TEST_F(OpsCrash, PreallocatedImageIsThereWholeOrNotAtAll) {
  contents_ = Repeat(7, 2 * kC + 100);
  files_.Put(kBackingPath, contents_);
  for (const Preallocation how : {Preallocation::kFalloc, Preallocation::kFull}) {
    CreateOptions options = NewImage(false);
    options.preallocation = how;
    Run([&](FileSystem& disk) { EXPECT_OK(CreateImage(disk, options)); },
        [&](FakeFileSystem& files, bool returned) {
          if (files.Find(kAddCowPath) == nullptr) {
            EXPECT_FALSE(returned);
            return;
          }
          ExpectReads(files, contents_);
          EXPECT_EQ(files.Find(kImagePath)->size(), contents_.size());
        });
  }
}

TEST_F(OpsCrash, RebaseLeavesTheOldHeaderOrTheNewAndTheSameDisk) {
  MakeImage({.size = 5 * kC - 100, .backing_size = 3 * kC + 50, .allocated = {1, 4}});
  files_.PutName("/vm/copy.img", files_.Find(kBackingPath));
  files_.PutName("/vm/copy.raw", files_.Find(kImagePath));
  const Header old = HeaderOf(files_);
  const std::pair<std::optional<NamedFile>, std::optional<std::string>> kChanges[] = {
      {NamedFile{"copy.img", "raw"}, {}},
      {{}, "copy.raw"},
      {NamedFile{std::string(3000, '/') + "vm/copy.img", "raw"}, "copy.raw"}};
  for (const auto& change : kChanges) {
    // No structured binding: clang before 16 does not capture those.
    const std::optional<NamedFile>& backing = change.first;
    const std::optional<std::string>& image = change.second;
    Header now = old;
    Run(
        [&](FileSystem& disk) {
          ASSERT_OK_AND_ASSIGN(const RebaseResult result,
                               RebaseUnsafely(disk, {.add_cow_path = kAddCowPath,
                                                     .backing = backing,
                                                     .image_name = image}));
          now = result.header;
        },
        [&](FakeFileSystem& files, bool returned) {
          const Header found = HeaderOf(files);
          if (returned)
            EXPECT_EQ(found, now);
          else
            EXPECT_TRUE(found == old || found.image.name == image.value_or("disk.raw"));
          ExpectReads(files, contents_);
        });
  }
}

TEST_F(OpsCrash, CreateOverAnOldOneLeavesTheOldOrTheNewDisk) {
  MakeImage({.size = 2 * kC, .backing_size = 2 * kC, .allocated = {1}});
  const auto backing = files_.Find(kBackingPath)->Bytes(0, 2 * kC);
  Run([](FileSystem& disk) { EXPECT_OK(CreateImage(disk, NewImage(true))); },
      [&](FakeFileSystem& files, bool returned) {
        auto image = OpenTestImage(files);
        ASSERT_OK(image);
        const auto found = ReadAll(**image);
        EXPECT_TRUE(found == backing || (found == contents_ && !returned));
      });
}

TEST_F(OpsCrash, FlattenChangesNothingThatIsRead) {
  MakeImage({.size = 5 * kC - 100, .backing_size = 3 * kC + 50, .allocated = {1}});
  Run(
      [](FileSystem& disk) {
        EXPECT_OK(FlattenImage(
            disk, kAddCowPath, [](LogLevel, const std::string&) {}, [](uint64_t, uint64_t) {}));
      },
      [&](FakeFileSystem& files, bool returned) {
        // The image file is the whole disk now: nothing else may be needed.
        if (returned) {
          ASSERT_OK(files.Remove(kBackingPath));
          EXPECT_EQ(Difference(files.Find(kImagePath)->Bytes(0, 5 * kC - 100), contents_), "");
        }
        ExpectReads(files, contents_);
      });
}

TEST_F(OpsCrash, RepairOfLeaksChangesNothingThatIsRead) {
  MakeImage({.size = 4 * kC, .backing_size = 3 * kC + 50, .allocated = {1}});
  Run(
      [](FileSystem& disk) {
        ASSERT_OK_AND_ASSIGN(const CheckReport report,
                             CheckImage(disk, kAddCowPath, Repair::kLeaks));
        EXPECT_EQ(report.fixed_leaks, 3u);
      },
      [&](FakeFileSystem& files, bool) { ExpectReads(files, contents_); });
}

TEST_F(OpsCrash, RepairOfSubclustersLeaksChangesNothingThatIsRead) {
  MakeImage({.size = 4 * kC - 100, .backing_size = 3 * kC + 50, .allocated = {1}},
            {0, 2, 3, 30, 47, 63});
  // Past the end of the disk: it is cleared.
  SetRawBit(files_, TestLayout(files_).subcluster_bitmap(), 64);
  Run(
      [](FileSystem& disk) {
        ASSERT_OK_AND_ASSIGN(const CheckReport report,
                             CheckImage(disk, kAddCowPath, Repair::kAll));
        EXPECT_EQ(report.fixed_leaks, 3u);
        EXPECT_EQ(report.stray_bits, 0u);
      },
      [&](FakeFileSystem& files, bool returned) {
        ExpectReads(files, contents_);
        if (!returned) return;
        ASSERT_OK_AND_ASSIGN(const CheckReport report,
                             CheckImage(files, kAddCowPath, Repair::kNone));
        EXPECT_EQ(report.leaked_clusters + report.stray_bits, 0u);
        EXPECT_EQ(report.partial_clusters, 3u);
      });
}

TEST_F(OpsCrash, RebaseOfSubclustersKeepsTheDisk) {
  MakeImage({.size = 5 * kC - 100, .backing_size = 3 * kC + 50, .allocated = {1, 4}},
            {0, 2, 3, 30, 47, 63});
  files_.PutName("/vm/copy.img", files_.Find(kBackingPath));
  files_.PutName("/vm/copy.raw", files_.Find(kImagePath));
  Run(
      [&](FileSystem& disk) {
        EXPECT_OK(RebaseUnsafely(disk, {.add_cow_path = kAddCowPath,
                                        .backing = NamedFile{"copy.img", "raw"},
                                        .image_name = "copy.raw"}));
      },
      [&](FakeFileSystem& files, bool returned) {
        EXPECT_TRUE(HeaderOf(files).subclusters);
        if (returned) {
          EXPECT_EQ(HeaderOf(files).image.name, "copy.raw");
        }
        ExpectReads(files, contents_);
      });
}

// Two levels of bits go, and the feature.
TEST_F(OpsCrash, FlattenOfSubclustersChangesNothingThatIsRead) {
  MakeImage({.size = 4 * kC - 100, .backing_size = 3 * kC + 50, .allocated = {1}},
            {0, 2, 3, 47, 63});
  Run(
      [](FileSystem& disk) {
        EXPECT_OK(FlattenImage(
            disk, kAddCowPath, [](LogLevel, const std::string&) {}, [](uint64_t, uint64_t) {}));
      },
      [&](FakeFileSystem& files, bool returned) {
        if (returned) {
          EXPECT_TRUE(HeaderOf(files).all_allocated);
          EXPECT_FALSE(HeaderOf(files).subclusters);
          ASSERT_OK(files.Remove(kBackingPath));
          EXPECT_EQ(Difference(files.Find(kImagePath)->Bytes(0, 4 * kC - 100), contents_), "");
        }
        ExpectReads(files, contents_);
      });
}

TEST_F(OpsCrash, RepairOfMissingBitsChangesNothingThatIsRead) {
  MakeImage({.size = 4 * kC, .backing_size = 4 * kC, .all_allocated = true});
  ASSERT_TRUE(files_.Find(kAddCowPath)->PunchHole(kBitmapOffset, 1));
  Run(
      [](FileSystem& disk) {
        ASSERT_OK_AND_ASSIGN(const CheckReport report,
                             CheckImage(disk, kAddCowPath, Repair::kAll));
        EXPECT_EQ(report.fixed_bits, 4u);
      },
      [&](FakeFileSystem& files, bool returned) {
        ExpectReads(files, contents_);
        if (returned) {
          EXPECT_EQ(files.Find(kAddCowPath)->Bytes(kBitmapOffset, 1), Repeat(0x0f, 1));
        }
      });
}

}  // namespace
}  // namespace addcow
