// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow resize when the power fails at any moment, and when it was killed before: the
// disk has the old size or the new one, and reads as that disk; once the command has
// returned, the new one, and no bit is left past its end. Run again it does its work.

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "tests/crash/ops_crash.h"
#include "tests/support/fault_file.h"
#include "tests/support/resize_fixture.h"

namespace addcow {
namespace {

struct ResizeCrashCase {
  const char* name;
  ImageSpec spec;
  uint64_t size;

  friend void PrintTo(const ResizeCrashCase& one, std::ostream* out) { *out << one.name; }
};

const ResizeCrashCase kResizeCrashes[] = {
    {"Grow",
     {.size = 3 * kClusterSize - 100, .backing_size = 6 * kClusterSize, .allocated = {1}},
     5 * kClusterSize + 100},
    {"GrowWithSubclusters",
     {.size = 3 * kClusterSize - 100, .backing_size = 6 * kClusterSize, .subclusters = {5, 47}},
     5 * kClusterSize + 100},
    // What completes the last cluster ends SUBCLUSTERS, and the add-cow file is cut.
    {"GrowEndingSubclusters",
     {.size = 3 * kClusterSize - 100,
      .backing_size = 6 * kClusterSize,
      .allocated = {1},
      .subclusters = {47}},
     5 * kClusterSize + 100},
    {"GrowAllAllocated",
     {.size = 3 * kClusterSize - 100, .backing_size = 6 * kClusterSize, .all_allocated = true},
     12 * kClusterSize + 100},
    // So far that the bitmap gets longer, into what was a bitmap of subclusters.
    {"GrowAcow4k",
     {.size = 10 * 4 * kKiB - 100,
      .backing_size = 20 * 4 * kKiB,
      .allocated = {1},
      .revision = Revision::kAcow,
      .cluster_size = 4 * kKiB},
     15 * 4 * kKiB},
    {"Shrink",
     {.size = 6 * kClusterSize, .backing_size = 6 * kClusterSize, .allocated = {1, 3, 5}},
     3 * kClusterSize + 100},
    {"ShrinkWithSubclusters",
     {.size = 6 * kClusterSize,
      .backing_size = 6 * kClusterSize,
      .allocated = {5},
      .subclusters = {5, 48, 49, 70}},
     3 * kClusterSize + 100},
    {"ShrinkAllAllocated",
     {.size = 6 * kClusterSize, .backing_size = 6 * kClusterSize, .all_allocated = true},
     kClusterSize + 100},
    {"Shrink2M",
     {.size = 3 * 2 * kMiB,
      .backing_size = 5 * kMiB,
      .backing_data = {{{0, kMiB}, {4 * kMiB, kMiB}}},
      .garbage = false,
      .subclusters = {1, 600, 1100},
      .revision = Revision::kAcow,
      .cluster_size = 2 * kMiB},
     2 * kMiB + 100},
};

class ResizeCrash : public OpsCrash, public testing::WithParamInterface<ResizeCrashCase> {
 protected:
  void ExpectOldOrNew(FakeFileSystem& files, bool returned) {
    const uint64_t size = files.Find(kImagePath)->size();
    EXPECT_TRUE(size == GetParam().size || (size == GetParam().spec.size && !returned)) << size;
    auto expected = contents_;
    expected.resize(size);
    ExpectReads(files, expected);
    ASSERT_OK_AND_ASSIGN(const CheckReport report,
                         CheckImage(files, kAddCowPath, Repair::kNone));
    EXPECT_EQ(report.corruptions() + report.check_errors, 0u);
    if (returned) {
      EXPECT_EQ(report.stray_bits + report.grown_clusters, 0u);
    }
  }

  void ExpectResized(FakeFileSystem& files) {
    ASSERT_OK(ResizeTestImage(files, ResizeTo(GetParam().size)));
    ExpectOldOrNew(files, true);
  }
};

INSTANTIATE_TEST_SUITE_P(, ResizeCrash, testing::ValuesIn(kResizeCrashes),
                         [](const testing::TestParamInfo<ResizeCrashCase>& one) {
                           return std::string(one.param.name);
                         });

TEST_P(ResizeCrash, LeavesTheOldSizeOrTheNew) {
  MakeImage(GetParam().spec);
  Run([&](FileSystem& disk) { ASSERT_OK(ResizeTestImage(disk, ResizeTo(GetParam().size))); },
      [&](FakeFileSystem& files, bool returned) {
        ExpectOldOrNew(files, returned);
        if (!returned && !HasFailure()) ExpectResized(files);
      });
}

// What the first one has done is not durable when the second comes, and must not be taken
// for it.
TEST_P(ResizeCrash, SoDoesOneThatGoesOnAfterAKilledOne) {
  MakeImage(GetParam().spec);
  for (uint64_t at = 1;; at++) {
    CrashDisk disk(files_);
    FaultPlan faults({.at = at,
                      .error = EIO,
                      .lasting = FaultPlan::Lasting::kPersistent,
                      .where = ChangesOrSyncs});
    ForwardingFileSystem killed(disk, faults);
    (void)ResizeTestImage(killed, ResizeTo(GetParam().size));
    if (!faults.fired()) {
      EXPECT_GT(at, 4u);
      return;
    }
    SCOPED_TRACE("killed before " + faults.hit());
    Random random(TestSeed());
    const auto look = [&](bool returned) {
      for (const auto& choice : disk.Choices(random, {.exhaustive = 6, .samples = 16})) {
        SCOPED_TRACE(disk.Describe(choice));
        ExpectOldOrNew(*disk.Crash(choice), returned);
      }
    };
    disk.SetHook([&](const Operation&) {
      if (!HasFailure()) look(false);
      return 0;
    });
    ASSERT_OK(ResizeTestImage(disk, ResizeTo(GetParam().size)));
    disk.SetHook(nullptr);
    look(true);
    ASSERT_FALSE(HasFailure());
  }
}

// The second bitmap would have another length, so it goes before; in the larger disk's
// first bitmap nothing of it may show.
class ResizeFarCrash : public OpsCrash, public testing::WithParamInterface<bool> {
 protected:
  static constexpr uint64_t kBelow = 256 * kMiB - kMiB - 100;
  static constexpr uint64_t kAbove = 512 * kMiB + 16 * kKiB;

  // What is read around the places that matter, of a disk of which all else is a hole.
  static std::vector<std::byte> PiecesOf(FakeFileSystem& files) {
    std::vector<std::byte> bytes;
    const auto image = OpenTestImage(files, kDirectory, OpenMode::kReadOnly);
    EXPECT_OK(image);
    if (!image) return bytes;
    for (const uint64_t offset : {uint64_t{0}, kBelow - kMiB}) {
      std::vector<std::byte> piece(kMiB);
      EXPECT_OK((*image)->Read(piece, offset));
      bytes.insert(bytes.end(), piece.begin(), piece.end());
    }
    if ((*image)->virtual_size() == kBelow) return bytes;
    std::vector<std::byte> past(2 * kMiB);
    EXPECT_OK((*image)->Read(past, kBelow));
    bytes.insert(bytes.end(), past.begin(), past.end());
    return bytes;
  }
};

INSTANTIATE_TEST_SUITE_P(, ResizeFarCrash, testing::Bool(),
                         [](const testing::TestParamInfo<bool>& one) {
                           return std::string(one.param ? "Shrink" : "Grow");
                         });

TEST_P(ResizeFarCrash, LeavesTheOldSizeOrTheNew) {
  const uint64_t from = GetParam() ? kAbove : kBelow;
  const uint64_t to = GetParam() ? kBelow : kAbove;
  // A backing file that is longer than the smaller disk.
  MakeImage({.size = from,
             .backing_size = kBelow + kMiB,
             .backing_data = {{{0, 64 * kKiB}, {kBelow - 64 * kKiB, 128 * kKiB}}},
             .garbage = false,
             .subclusters = {1, 7, (kBelow - 1) / kSubclusterSize},
             .revision = Revision::kAcow,
             .cluster_size = 8 * kKiB});
  ASSERT_TRUE(TestHeader(files_).subclusters);
  const auto old_pieces = PiecesOf(files_);
  auto new_pieces = old_pieces;
  new_pieces.resize(2 * kMiB);
  if (!GetParam()) new_pieces.resize(4 * kMiB);
  Run([&](FileSystem& disk) { ASSERT_OK(ResizeTestImage(disk, ResizeTo(to))); },
      [&](FakeFileSystem& files, bool returned) {
        const uint64_t size = files.Find(kImagePath)->size();
        EXPECT_TRUE(size == to || (size == from && !returned)) << size;
        EXPECT_EQ(Difference(PiecesOf(files), size == to ? new_pieces : old_pieces), "");
        if (returned || HasFailure()) return;
        ASSERT_OK(ResizeTestImage(files, ResizeTo(to)));
        EXPECT_EQ(Difference(PiecesOf(files), new_pieces), "");
      });
}

}  // namespace
}  // namespace addcow
