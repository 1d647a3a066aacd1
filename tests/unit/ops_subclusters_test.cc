// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/ops with subclusters: create, info, map, rebase and flatten know of both
// bitmaps, and a disk of only small writes is not lost. Check is in
// ops_check_subclusters_test.cc.

#include <gtest/gtest.h>

#include "common/ops/create.h"
#include "common/ops/flatten.h"
#include "common/ops/info.h"
#include "common/ops/map.h"
#include "common/ops/rebase.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

void NoLog(LogLevel, const std::string&) {}
void NoProgress(uint64_t, uint64_t) {}

class OpsSubclusters : public testing::Test {
 protected:
  OpsSubclusters() { fake_.MakeDirectory(kDirectory); }

  void Make(const ImageSpec& spec, const std::vector<uint64_t>& subclusters) {
    for (const char* path : {kAddCowPath, kImagePath, kBackingPath}) (void)fake_.Remove(path);
    auto disk = MakeTestImage(fake_, kDirectory, spec);
    ASSERT_OK(disk);
    disk_ = std::move(*disk);
    AddSubclusters(fake_, subclusters, &disk_);
  }
  static CreateOptions Overlay() {
    CreateOptions options;
    options.add_cow_path = kAddCowPath;
    options.image_name = "disk.raw";
    options.backing = NamedFile{"base.img", "raw"};
    return options;
  }
  // Through the engine, as a server does.
  void Serve(uint64_t offset, uint64_t length) {
    auto image = OpenTestImage(fake_);
    ASSERT_OK(image);
    ASSERT_OK((*image)->Write(Repeat(1, length), offset));
    ASSERT_OK((*image)->Close());
  }
  void ExpectDisk() {
    auto image = OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly);
    ASSERT_OK(image);
    EXPECT_EQ(Difference(ReadAll(**image), disk_), "");
  }
  Result<RebaseResult> Rebase(const std::string& image) {
    return RebaseUnsafely(fake_,
                          {.add_cow_path = kAddCowPath, .backing = {}, .image_name = image});
  }

  FakeFileSystem fake_;
  std::vector<std::byte> disk_;
};

TEST_F(OpsSubclusters, CreateMakesAFileThatGetsThemOrNot) {
  fake_.Put(kBackingPath, Repeat(7, 4 * kC));
  for (const bool on : {true, false}) {
    CreateOptions options = Overlay();
    options.subclusters = on;
    ASSERT_OK(CreateImage(fake_, options));
    EXPECT_FALSE(TestHeader(fake_).subclusters);
    EXPECT_EQ(TestHeader(fake_).no_subclusters, !on);
    EXPECT_EQ(TestHeader(fake_).optional_features, 0u);
    Serve(kC, kS);
    EXPECT_EQ(TestHeader(fake_).subclusters, on);
    EXPECT_EQ(TestHeader(fake_).no_subclusters, !on);
    ASSERT_OK(fake_.Remove(kAddCowPath));
    ASSERT_OK(fake_.Remove(kImagePath));
  }
}

TEST_F(OpsSubclusters, ForceRefusesToThrowASmallWriteAway) {
  fake_.Put(kBackingPath, Repeat(7, 4 * kC));
  ASSERT_OK(CreateImage(fake_, Overlay()));
  Serve(3 * kC + kS, kS);
  ASSERT_OK_AND_ASSIGN(const ImageInfo info, GetInfo(fake_, kAddCowPath));
  ASSERT_EQ(info.allocated_clusters, 0u);
  CreateOptions options = Overlay();
  options.force = true;
  const auto before = fake_.List();
  const char* const kRefusal = "has data in 1 cluster, which would be lost";
  EXPECT_TRUE(FailsSaying(CreateImage(fake_, options), kRefusal));
  // Also where the image file is not there, or has another size by now.
  ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(3 * uint64_t{1} << 30));
  EXPECT_TRUE(FailsSaying(CreateImage(fake_, options), kRefusal));
  ASSERT_OK(fake_.Remove(kImagePath));
  EXPECT_TRUE(FailsSaying(CreateImage(fake_, options), kRefusal));
  options.discard = true;
  EXPECT_OK(CreateImage(fake_, options));
}

TEST_F(OpsSubclusters, ForceCountsClustersOfWhichAnythingIsThere) {
  Make({.size = 8 * kC, .backing_size = 8 * kC, .allocated = {1, 2}},
       {0, 5, 16, 40, 5 * 16, 6 * 16 + 15});
  CreateOptions options = Overlay();
  options.force = true;
  EXPECT_TRUE(FailsSaying(CreateImage(fake_, options), "has data in 5 clusters, which"));
}

TEST_F(OpsSubclusters, InfoCountsWhatCounts) {
  Make({.size = 10 * kC + 1, .allocated = {1}}, {0, 3, 16, 17, 159, 160});
  SetRawBit(fake_, TestLayout(fake_).subcluster_bitmap(), 161);  // past the end
  ASSERT_OK_AND_ASSIGN(const ImageInfo info, GetInfo(fake_, kAddCowPath));
  EXPECT_TRUE(info.header.subclusters);
  EXPECT_EQ(info.total_clusters, 11u);
  EXPECT_EQ(info.allocated_clusters, 1u);
  EXPECT_EQ(info.partial_clusters, 3u);
  EXPECT_EQ(info.allocated_subclusters, 4u);
  // Without the feature there are none, whatever comes after the bitmap.
  Header header = TestHeader(fake_);
  header.subclusters = false;
  WriteTestHeader(fake_, header);
  ASSERT_OK_AND_ASSIGN(const ImageInfo plain, GetInfo(fake_, kAddCowPath));
  EXPECT_EQ(plain.allocated_clusters, 1u);
  EXPECT_EQ(plain.partial_clusters + plain.allocated_subclusters, 0u);
}

// Drops the subcluster bitmap before one operation on the add-cow file, as a server that
// stops does.
class StoppingServer final : public Interceptor {
 public:
  StoppingServer(FakeFileSystem& files, uint64_t at) : files_(files), at_(at) {}
  Verdict Before(const Operation& operation) override {
    if (operation.path != kAddCowPath || ++count_ != at_) return {};
    Header header = TestHeader(files_);
    header.subclusters = false;
    WriteTestHeader(files_, header);
    EXPECT_TRUE(files_.Find(kAddCowPath)->Truncate(kBitmapOffset + kBitmapPadding));
    return {};
  }
  bool stopped() const { return count_ >= at_; }

 private:
  FakeFileSystem& files_;
  const uint64_t at_;
  uint64_t count_ = 0;
};

TEST_F(OpsSubclusters, InfoDoesNotMindAServerThatStops) {
  for (uint64_t at = 1;; at++) {
    Make({.size = 3 * kC, .garbage = false, .allocated = {1}}, {16, 17});
    StoppingServer server(fake_, at);
    ForwardingFileSystem seam(fake_, server);
    ASSERT_OK_AND_ASSIGN(const ImageInfo info, GetInfo(seam, kAddCowPath));
    EXPECT_EQ(info.allocated_clusters, 1u);
    EXPECT_EQ(info.partial_clusters, 0u);
    if (!server.stopped()) {
      EXPECT_GT(at, 10u);
      break;
    }
  }
}

TEST_F(OpsSubclusters, MapIsBySubclusters) {
  Make({.size = 3 * kC, .backing_size = 2 * kC, .allocated = {1}}, {1, 2, 15, 16, 40});
  std::vector<std::pair<ByteRange, int>> map;
  ASSERT_OK(MapImage(fake_, kAddCowPath, NoLog, [&](const MapEntry& entry) {
    map.push_back({{entry.start, entry.length}, entry.present ? entry.depth : -1});
    return true;
  }));
  EXPECT_EQ(map, (std::vector<std::pair<ByteRange, int>>{{{0, kS}, 1},
                                                         {{kS, 2 * kS}, 0},
                                                         {{3 * kS, 12 * kS}, 1},
                                                         {{15 * kS, 17 * kS}, 0},
                                                         {{32 * kS, 8 * kS}, -1},
                                                         {{40 * kS, kS}, 0},
                                                         {{41 * kS, 7 * kS}, -1}}));
}

TEST_F(OpsSubclusters, RebaseKeepsBothBitmapsAndTheFeatures) {
  Make({.size = 10 * kC, .backing_size = 8 * kC, .garbage = false, .allocated = {1}},
       {0, 40, 159});
  Header header = TestHeader(fake_);
  header.no_subclusters = true;  // for who makes the next file of it
  WriteTestHeader(fake_, header);
  const FakeInode& was = *fake_.Find(kAddCowPath);
  const auto bitmaps = was.Bytes(kBitmapOffset, 2 * kBitmapPadding);
  const uint64_t size = was.size();
  const uint64_t storage = was.Info()->allocated_bytes;
  fake_.PutName("/vm/copy.raw", fake_.Find(kImagePath)->Clone());
  ASSERT_OK(Rebase("copy.raw"));
  const FakeInode& now = *fake_.Find(kAddCowPath);
  EXPECT_TRUE(TestHeader(fake_).subclusters);
  EXPECT_TRUE(TestHeader(fake_).no_subclusters);
  EXPECT_EQ(now.size(), size);
  EXPECT_EQ(now.Bytes(kBitmapOffset, 2 * kBitmapPadding), bitmaps);
  EXPECT_EQ(now.Info()->allocated_bytes, storage) << "holes stay holes";
  ExpectDisk();
}

TEST_F(OpsSubclusters, RebaseFindsStrangeDataBySubclusters) {
  Make({.size = 10 * kC, .garbage = false}, {16});
  fake_.Put("/vm/copy.raw", 10 * kC);
  FakeInode& copy = *fake_.Find("/vm/copy.raw");
  ASSERT_TRUE(copy.Write(Repeat(1, kS), 16 * kS));
  ASSERT_OK(Rebase("copy.raw"));
  ASSERT_TRUE(fake_.Find(kImagePath)->Write(Repeat(1, kS), 16 * kS));
  ASSERT_OK(Rebase("disk.raw"));
  ASSERT_TRUE(copy.Write(Repeat(1, 1), 17 * kS));
  EXPECT_TRUE(FailsSaying(Rebase("copy.raw"),
                          "holds data in 1 cluster where nothing is allocated: perhaps"));
  // Nothing of this disk would be lost; were the old file gone, it could be this.
  ASSERT_OK(fake_.Remove(kImagePath));
  ASSERT_OK_AND_ASSIGN(const RebaseResult result, Rebase("copy.raw"));
  EXPECT_EQ(result.notes.size(), 1u);
}

TEST_F(OpsSubclusters, RebaseRefusesWhatWouldCutSubclustersOff) {
  Make({.size = 3 * kC, .garbage = false}, {2 * 16 + 7});
  ASSERT_OK(fake_.Remove(kImagePath));
  fake_.Put("/vm/short.raw", 2 * kC + 7 * kS);
  EXPECT_TRUE(FailsSaying(Rebase("short.raw"), "so data in 1 cluster would be cut off"));
  fake_.Put("/vm/enough.raw", 2 * kC + 8 * kS);
  EXPECT_OK(Rebase("enough.raw"));
}

TEST_F(OpsSubclusters, RebaseRefusesAnImageFileThatMovesTheBitmap) {
  Make({.size = 3 * kC, .garbage = false}, {7});
  ASSERT_OK(fake_.Remove(kImagePath));
  fake_.Put("/vm/large.raw");
  ASSERT_TRUE(fake_.Find("/vm/large.raw")->Truncate(uint64_t{33} << 30));
  EXPECT_TRUE(FailsSaying(Rebase("large.raw"), "/vm/x.add-cow: the image file has"));
}

class FlattenSubclusters : public OpsSubclusters {
 protected:
  // A plain file of version 1, which says that all is in the image file.
  void ExpectFlat() {
    const Header header = TestHeader(fake_);
    EXPECT_TRUE(header.all_allocated);
    EXPECT_FALSE(header.subclusters);
    EXPECT_EQ(fake_.Find(kAddCowPath)->size(), kBitmapOffset + kBitmapPadding);
    ASSERT_OK(fake_.Remove(kBackingPath));
    EXPECT_EQ(Difference(fake_.Find(kImagePath)->Bytes(0, disk_.size()), disk_), "");
    ExpectDisk();
  }
};

TEST_F(FlattenSubclusters, EndsWithAPlainFile) {
  Make({.size = 20 * kC + 1, .backing_size = 15 * kC + 5, .allocated = {0, 17}},
       {16, 31, 100, 105, 319, 320});
  std::vector<std::pair<uint64_t, uint64_t>> progress;
  ASSERT_OK_AND_ASSIGN(
      const FlattenResult result,
      FlattenImage(fake_, kAddCowPath, NoLog,
                   [&](uint64_t done, uint64_t total) { progress.emplace_back(done, total); }));
  // Clusters that are there in part count whole; the last has one subcluster.
  EXPECT_EQ(result.copied, 18 * kC);
  ASSERT_FALSE(progress.empty());
  EXPECT_EQ(progress.back(), std::pair(result.copied, result.copied));
  ExpectFlat();
}

TEST_F(FlattenSubclusters, NeedsOnlyTheFlagWhereEveryClusterIsAllocated) {
  Make({.size = 3 * kC, .allocated = {0, 1, 2}}, {5, 20});
  ASSERT_OK(FlattenImage(fake_, kAddCowPath, NoLog, NoProgress));
  ExpectFlat();
}

TEST_F(FlattenSubclusters, InterruptedAnywhereItKeepsWhatItHas) {
  for (uint64_t at = 1;; at++) {
    Make({.size = 700 * kC,
          .backing_size = 700 * kC,
          .backing_data = {{{0, 20 * kC}}},
          .garbage = false,
          .allocated = {300}},
         {16, 31, 5000});
    uint64_t looks = 0;
    const auto result = FlattenImage(fake_, ImageSource{.add_cow_path = kAddCowPath}, NoLog,
                                     NoProgress, [&] { return ++looks >= at; });
    if (result) {
      EXPECT_GT(at, 3u);
      break;
    }
    EXPECT_TRUE(FailsWith(result, kErrInterrupted));
    ExpectDisk();
    ASSERT_OK(FlattenImage(fake_, kAddCowPath, NoLog, NoProgress));
    ExpectFlat();
    ASSERT_FALSE(HasFailure()) << at;
  }
}

}  // namespace
}  // namespace addcow
