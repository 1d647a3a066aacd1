// SPDX-License-Identifier: LGPL-2.1-or-later
//
// commit and rebase of data, when the power fails at any moment: every disk reads as before,
// and the same verb, run on what is left, does all of its work.

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "common/ops/commit.h"
#include "common/ops/rebase_data.h"
#include "tests/crash/ops_crash.h"
#include "tests/support/forms.h"

namespace addcow {
namespace {

constexpr const char* kSecondDirectory = "/vm2";
constexpr const char* kSecondPath = "/vm2/x.add-cow";

class CommitCrash : public OpsCrash {
 protected:
  CommitCrash() { files_.MakeDirectory(kSecondDirectory); }

  void MakeSecond(const ImageSpec& spec) {
    ASSERT_OK_AND_ASSIGN(second_, MakeTestImage(files_, kSecondDirectory, spec));
  }
  CommitOptions Options() const {
    CommitOptions options{.add_cow_paths = {kAddCowPath}};
    if (!second_.empty()) options.add_cow_paths.emplace_back(kSecondPath);
    return options;
  }

  std::vector<std::byte> second_;  // what the second disk reads, if there is one

  void ExpectBothRead(FakeFileSystem& files) {
    ExpectReads(files, contents_);
    if (second_.empty()) return;
    addcow::ExpectReads(files, second_, kSecondDirectory, OpenMode::kReadWrite);
  }

  // Empty, over bases that have all. Killed between the last two steps, it leaves the storage
  // of the last cluster, which nothing tells any more from another disk's.
  static void ExpectEmptied(FakeFileSystem& files, const char* add_cow, bool killed) {
    ASSERT_OK_AND_ASSIGN(const CheckReport report, CheckImage(files, add_cow, Repair::kNone));
    EXPECT_FALSE(report.error);
    EXPECT_EQ(report.allocated_clusters + report.partial_clusters, 0u);
    EXPECT_EQ(report.corruptions(), 0u);
    EXPECT_LE(report.leaked_clusters, killed ? 1u : 0u);
  }
  void ExpectCommitted(FakeFileSystem& files, bool killed) {
    ExpectBothRead(files);
    ExpectEmptied(files, kAddCowPath, killed);
    if (!second_.empty()) ExpectEmptied(files, kSecondPath, killed);
  }

  void CrashTheCommit() {
    Run([&](FileSystem& disk) { EXPECT_OK(CommitImages(disk, Options())); },
        [&](FakeFileSystem& files, bool returned) {
          ExpectBothRead(files);
          if (returned) ExpectCommitted(files, false);
          EXPECT_OK(CommitImages(files, Options()));
          ExpectCommitted(files, !returned);
        });
  }
};

TEST_F(CommitCrash, OneImage) {
  MakeImage(
      {.size = 5 * kC - 100, .backing_size = 5 * kC, .garbage = false, .allocated = {1, 4}});
  CrashTheCommit();
}

TEST_F(CommitCrash, WithPartialClustersAndOldBytes) {
  MakeImage({.size = 5 * kC - 100, .backing_size = 5 * kC, .allocated = {3}},
            {1, 2, 17, 70, 79});
  CrashTheCommit();
}

TEST_F(CommitCrash, WithNothingButAPartialCluster) {
  MakeImage({.size = 3 * kC, .backing_size = 3 * kC, .garbage = false}, {18, 19});
  CrashTheCommit();
}

TEST_F(CommitCrash, OfAllClusters) {
  MakeImage({.size = 3 * kC + 700, .backing_size = 3 * kC + 700, .all_allocated = true});
  CrashTheCommit();
}

TEST_F(CommitCrash, OverABaseThatIsTooShort) {
  MakeImage(
      {.size = 5 * kC, .backing_size = 2 * kC + 512, .garbage = false, .allocated = {1, 4}});
  CrashTheCommit();
}

TEST_F(CommitCrash, OfRevision20) {
  MakeImage(InForm(
      {.size = 5 * kC - 100, .backing_size = 5 * kC, .garbage = false, .allocated = {1, 9, 79}},
      k4kForm));
  CrashTheCommit();
}

TEST_F(CommitCrash, IntoAnotherImage) {
  MakeImage({.size = 4 * kC,
             .backing_size = 4 * kC,
             .garbage = false,
             .allocated = {1, 2},
             .on_image = true});
  CrashTheCommit();
}

TEST_F(CommitCrash, TwoImagesAreOneUnit) {
  MakeImage({.size = 3 * kC, .backing_size = 3 * kC, .garbage = false, .allocated = {1}});
  MakeSecond(
      {.size = 2 * kC, .backing_size = 2 * kC, .garbage = false, .allocated = {0}, .seed = 2});
  CrashTheCommit();
}

// A base of other bytes but for some clusters.
void PutOtherBase(FakeFileSystem& files, const char* path, uint64_t size) {
  auto bytes = files.Find(kBackingPath)->Bytes(0, size);
  Random random(5);
  const auto other = random.Bytes(kC + 100);
  std::ranges::copy(other, bytes.begin() + kC / 2);
  files.Put(path, bytes);
}

class RebaseDataCrash : public OpsCrash {
 protected:
  void CrashTheRebase(const RebaseOptions& options) {
    const auto rebase = [&](FileSystem& files) {
      return RebaseSafely(files, options, {}, [](uint64_t, uint64_t) {});
    };
    Run([&](FileSystem& disk) { EXPECT_OK(rebase(disk)); },
        [&](FakeFileSystem& files, bool returned) {
          ExpectReads(files, contents_);
          if (!returned) {
            EXPECT_OK(rebase(files));
            ExpectReads(files, contents_);
          }
          ASSERT_OK_AND_ASSIGN(const CheckReport report,
                               CheckImage(files, kAddCowPath, Repair::kNone));
          EXPECT_FALSE(report.error);
          EXPECT_EQ(report.corruptions(), 0u);
        });
  }
};

TEST_F(RebaseDataCrash, OntoAnotherFile) {
  MakeImage({.size = 4 * kC - 100, .backing_size = 4 * kC, .garbage = false, .allocated = {3}},
            {2});
  PutOtherBase(files_, "/vm/new.img", 3 * kC);
  CrashTheRebase({.add_cow_path = kAddCowPath, .backing = NamedFile{"new.img", "raw"}});
}

TEST_F(RebaseDataCrash, OntoNothing) {
  MakeImage({.size = 3 * kC - 100, .backing_size = 2 * kC, .garbage = false, .allocated = {1}});
  CrashTheRebase({.add_cow_path = kAddCowPath, .no_backing = true});
}

}  // namespace
}  // namespace addcow
