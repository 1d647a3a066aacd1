// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: subclusters. What a small write does, and what is read then,
// whatever comes after it. The image file starts out full of old bytes, so that
// whatever is not written shows. What a flush makes of it is in
// image_subclusters_flush_test.cc.

#include <gtest/gtest.h>

#include "tests/support/engine_lines.h"

namespace addcow {

namespace {

class ImageSubclusters : public EngineLines {
 protected:
  // With the add-cow file grown already, and storage for the bits.
  void MakeGrown(const ImageSpec& spec) {
    Make(spec);
    Write(spec.size - 1, 1);
    log_.Clear();
  }
};

// Writing.

TEST_F(ImageSubclusters, WholeOneIsOneWriteAndNothingElse) {
  MakeGrown({});
  Write(kC + kS, kS);
  EXPECT_EQ(All(), Lines{"write /vm/disk.raw 69632+4096"});
  EXPECT_FALSE(IsAllocated(1));
  EXPECT_TRUE(InImage(kC + kS, kS));
}

TEST_F(ImageSubclusters, FirstOneGrowsTheFileAndTakesStorageBeforeItIsWritten) {
  Make({});
  Write(kC + kS, kS);
  EXPECT_EQ(All(), (Lines{"size /vm/x.add-cow", "truncate /vm/x.add-cow 135168",
                          "reserve /vm/x.add-cow 69632+8", "write /vm/disk.raw 69632+4096"}));
  ExpectAsReference();
}

// They may be of the disk that it is when its image file is back.
TEST_F(ImageSubclusters, BitsOfALargerDiskAreNotThrownAway) {
  for (const uint64_t more : {1u, 3u}) {
    Make({});
    image_.reset();
    const uint64_t start = kBitmapOffset + kBitmapPadding;
    ASSERT_TRUE(Inode(kAddCowPath).Truncate(start + more * kBitmapPadding));
    if (more == 1) Inode(kAddCowPath).Write(Repeat(0xff, 1), start + 5000);
    const auto before = Inode(kAddCowPath).Bytes(start, more * kBitmapPadding);
    messages_.clear();
    Reopen();
    ASSERT_EQ(messages_.size(), 1u);
    EXPECT_NE(messages_[0].find("gets no subclusters"), std::string::npos) << messages_[0];
    Write(kS, kS);
    EXPECT_TRUE(IsAllocated(0));
    ASSERT_OK(image_->Close());
    EXPECT_FALSE(HasSubclustersOnDisk());
    EXPECT_EQ(Inode(kAddCowPath).Bytes(start, more * kBitmapPadding), before);
    EXPECT_EQ(Inode(kAddCowPath).Size(), start + more * kBitmapPadding);
    Reopen();
    ExpectAsReference();
  }
}

TEST_F(ImageSubclusters, ZeroesInTheirPlaceAreInNobodysWay) {
  Make({});
  image_.reset();
  ASSERT_TRUE(Inode(kAddCowPath).Truncate(kBitmapOffset + kBitmapPadding + 5000));
  Reopen();
  Write(kS, kS);
  ASSERT_OK(image_->Flush());
  EXPECT_TRUE(HasSubclustersOnDisk());
  EXPECT_EQ(Inode(kAddCowPath).Size(), kBitmapOffset + 2 * kBitmapPadding);
  Reopen();
  ExpectAsReference();
}

// A server was killed between writing the two bitmaps.
TEST_F(ImageSubclusters, ClusterThatHasAllOfThemIsAllocatedAtOpening) {
  std::vector<uint64_t> all;
  for (uint64_t i = 16; i < 48; i++) all.push_back(i);
  all.push_back(50);
  Make({.allocated = {1}, .subclusters = all});
  EXPECT_TRUE(IsAllocated(2));
  EXPECT_FALSE(IsAllocated(3));
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(ClusterBitOnDisk(2));
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageSubclusters, WriteOverSeveralClustersIsOneWrite) {
  MakeGrown({});
  Write(kC - kS, kC + 2 * kS);
  EXPECT_EQ(All(), Lines{"write /vm/disk.raw 61440+73728"});
  EXPECT_FALSE(IsAllocated(0));
  EXPECT_TRUE(IsAllocated(1));
  EXPECT_FALSE(IsAllocated(2));
  ExpectAsReference();
}

TEST_F(ImageSubclusters, SmallerWriteReadsTheRestOfItsEndsOnly) {
  MakeGrown({});
  Write(2 * kS + 100, 3 * kS);
  EXPECT_EQ(All(), (Lines{"read /vm/base.img 8192+100", "read /vm/base.img 20580+3996",
                          "write /vm/disk.raw 8192+100", "write /vm/disk.raw 8292+12288",
                          "write /vm/disk.raw 20580+3996"}));
  EXPECT_TRUE(InImage(2 * kS, 4 * kS));
  EXPECT_FALSE(InImage(6 * kS, 1));
  ExpectAsReference();
}

TEST_F(ImageSubclusters, EndsThatAreInTheImageFileAreNotRead) {
  MakeGrown({});
  Write(2 * kS, kS);
  Write(5 * kS, kS);
  log_.Clear();
  Write(2 * kS + 100, 3 * kS);
  EXPECT_EQ(All(), Lines{"write /vm/disk.raw 8292+12288"});
  ExpectAsReference();
}

TEST_F(ImageSubclusters, LastOneAllocatesTheCluster) {
  Make({});
  for (uint64_t i = 0; i < 16; i++) {
    EXPECT_FALSE(IsAllocated(2)) << i;
    Write(2 * kC + (i * 5 % 16) * kS, kS);
  }
  EXPECT_TRUE(IsAllocated(2));
  EXPECT_EQ(BackingReads(), 0u);
  ASSERT_OK(image_->Flush());
  Reopen();
  EXPECT_TRUE(IsAllocated(2));
  ExpectAsReference();
}

TEST_F(ImageSubclusters, WriteInsideOneKeepsItsOtherBytes) {
  for (const ByteRange& range : {ByteRange{5001, 10},
                                 {3000, 1500},
                                 {8000, 1000},
                                 {3000, 6000},
                                 {20001, 1},
                                 {100, 60000},
                                 {65000, 1000},
                                 {4095, 2}}) {
    Make({});
    Write(kS, kS);
    Write(range.offset, range.length);
    ExpectAsReference();
    ASSERT_OK(image_->Flush());
    Reopen();
    ExpectAsReference();
  }
}

TEST_F(ImageSubclusters, WriteThatFailsSetsNothing) {
  Make({});
  faults_.Set({.at = 1,
               .error = ENOSPC,
               .effect = FaultPlan::Effect::kTorn,
               .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kImagePath;
               }});
  EXPECT_TRUE(FailsWith(image_->Write(random_.Bytes(kS), kS), ENOSPC));
  faults_.Clear();
  EXPECT_FALSE(InImage(kS, 1));
  EXPECT_EQ(image_->unpublished_bytes(), 0u);
  ExpectAsReference();
}

TEST_F(ImageSubclusters, BackingFileThatCannotBeReadFailsOnlyWhoNeedsIt) {
  Make({});
  BreakBacking(0);
  Write(kS, kS);
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 100), 3 * kS), EIO));
  ASSERT_OK(image_->Flush());
  ASSERT_OK(image_->Close());
  EXPECT_TRUE(OnDisk(kS));
}

TEST_F(ImageSubclusters, NoneAreMadeWhereTheyAreNotWanted) {
  subclusters_ = false;
  Make({});
  Write(kS, kS);
  EXPECT_TRUE(IsAllocated(0));
  ASSERT_OK(image_->Flush());
  EXPECT_FALSE(HasSubclustersOnDisk());
  EXPECT_EQ(Inode(kAddCowPath).Size(), kBitmapOffset + kBitmapPadding);
  ExpectAsReference();
}

TEST_F(ImageSubclusters, ThoseThatAreFoundCountWhateverIsWanted) {
  for (const bool wanted : {true, false}) {
    subclusters_ = wanted;
    Make({.subclusters = {1, 2, 17}});
    ExpectAsReference();
    EXPECT_TRUE(InImage(kS, 2 * kS));
    Write(9000, 3000);
    ExpectAsReference();
    ASSERT_OK(image_->Flush());
    Reopen();
    ExpectAsReference();
  }
}

// Nothing is read of a cluster's when its own bit is set.
TEST_F(ImageSubclusters, ClustersBitDecidesFirst) {
  Make({.allocated = {0}, .subclusters = {1, 2}});
  EXPECT_TRUE(InImage(0, kC));
  ExpectAsReference();
}

// Reading.

TEST_F(ImageSubclusters, ReadsMergeThemWithTheBackingFile) {
  Make({});
  Write(kS, kS);
  Write(3 * kS, 1024);
  Write(kC - 512, 1024);
  ExpectAsReference();
  for (int i = 0; i < 200; i++) {
    const uint64_t offset = random_.Below(2 * kC);
    std::vector<std::byte> buffer(random_.Between(1, 2 * kC - offset));
    ASSERT_OK(image_->Read(buffer, offset));
    ASSERT_EQ(reference_->Check(buffer, offset), "");
  }
}

TEST_F(ImageSubclusters, ReadOfWhatWasWrittenAsksTheImageFileOnly) {
  Make({});
  Write(kS, 2 * kS);
  log_.Clear();
  std::vector<std::byte> buffer(5000);
  ASSERT_OK(image_->Read(buffer, 5000));
  EXPECT_EQ(All(), Lines{"read /vm/disk.raw 5000+5000"});
}

TEST_F(ImageSubclusters, ReadOfManyPiecesIsFewCalls) {
  Make({.size = 4 * kC, .backing_size = 4 * kC});
  for (uint64_t at = 0; at < 4 * kC; at += 2 * kS) Write(at, kS);
  for (const ByteRange& range : {ByteRange{0, 4 * kC}, {100, 3 * kC}, {kS, 3 * kC + 1}}) {
    log_.Clear();
    std::vector<std::byte> buffer(range.length);
    ASSERT_OK(image_->Read(buffer, range.offset));
    EXPECT_LE(All().size(), 1 + range.length / kC + 1);
    EXPECT_EQ(reference_->Check(buffer, range.offset), "");
  }
}

// What nobody asked for may be unreadable.
TEST_F(ImageSubclusters, ReadOfManyPiecesNeedsNoMoreThanThem) {
  for (const char* path : {kBackingPath, kImagePath}) {
    Make({.size = 2 * kC, .backing_size = 2 * kC});
    for (uint64_t at = 0; at < 2 * kC; at += 2 * kS) Write(at, kS);
    const uint64_t bad = path == kBackingPath ? 4 * kS : 5 * kS;
    faults_.Set({.at = 1,
                 .error = EIO,
                 .lasting = FaultPlan::Lasting::kPersistent,
                 .where = [=](const Operation& operation) {
                   return operation.kind == OpKind::kRead && operation.path == path &&
                          operation.offset < bad + kS &&
                          bad < operation.offset + operation.length;
                 }});
    ExpectAsReference();
  }
}

TEST_F(ImageSubclusters, BackingFileThatEndsBetweenPiecesReadsAsZeroes) {
  Make({.size = 2 * kC, .backing_size = 5 * kS + 100});
  for (uint64_t at = 0; at < 2 * kC; at += 2 * kS) Write(at, kS);
  ExpectAsReference();
}

TEST_F(ImageSubclusters, PrefetchAsksEachFileForItsPieces) {
  Make({});
  Write(kS, kS);
  log_.Clear();
  ASSERT_OK(image_->Prefetch(0, kC));
  EXPECT_EQ(All(), (Lines{"prefetch /vm/base.img 0+4096", "prefetch /vm/disk.raw 4096+4096",
                          "prefetch /vm/base.img 8192+57344"}));
}

TEST_F(ImageSubclusters, PrefetchOfManyPiecesIsFewCalls) {
  Make({});
  for (uint64_t at = 0; at < kC; at += 2 * kS) Write(at, kS);
  log_.Clear();
  ASSERT_OK(image_->Prefetch(0, 2 * kC));
  EXPECT_EQ(All(), (Lines{"prefetch /vm/disk.raw 0+131072", "prefetch /vm/base.img 0+131072"}));
}

// Trim and zero, copy-up.

TEST_F(ImageSubclusters, ZeroIsBySubclusters) {
  for (const bool may_punch : {true, false}) {
    for (const ByteRange& range :
         {ByteRange{0, kC}, {5000, 100}, {4096, 4096}, {0, 6000}, {20000, 2000}}) {
      Make({});
      Write(kS, kS);
      Zero(range.offset, range.length, {.may_punch = may_punch});
      EXPECT_EQ(IsAllocated(0), range.length == kC) << range.offset;
      EXPECT_TRUE(InImage(RoundDown(range.offset, kS), range.length));
      ExpectAsReference();
      ASSERT_OK(image_->Flush());
      Reopen();
      ExpectAsReference();
    }
  }
}

TEST_F(ImageSubclusters, TrimOfWholeOnesReadsNothing) {
  MakeGrown({});
  Zero(kS, 3 * kS);
  EXPECT_EQ(BackingReads(), 0u);
  EXPECT_TRUE(IsHole(kImagePath, kS, 3 * kS));
  ExpectAsReference();
}

TEST_F(ImageSubclusters, TrimOverHolesOfTheBackingFileTrimsThemOnly) {
  Make({.backing_data = {std::vector<ByteRange>{}}});
  Write(kC + kS, kS);
  Zero(2048, 3 * kC);
  EXPECT_FALSE(InImage(0, 1));
  EXPECT_TRUE(InImage(kC + kS, kS));
  EXPECT_FALSE(InImage(kC + 2 * kS, 1));
  EXPECT_TRUE(IsHole(kImagePath, kC + kS, kS));
  ExpectAsReference();
}

TEST_F(ImageSubclusters, TrimOfSomeOverAHoleKeepsTheOthers) {
  Make({.backing_data = {std::vector<ByteRange>{}}});
  Write(kS, kS);
  Zero(2 * kS, kS);
  ExpectAsReference();
  Zero(kS, 512);
  ExpectAsReference();
  Flush();
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageSubclusters, CopyUpKeepsThem) {
  Make({});
  Write(kS, kS);
  Write(2 * kC, 512);
  ASSERT_OK(image_->CopyUp({0, 4}));
  EXPECT_TRUE(image_->bitmap().all());
  for (uint64_t cluster = 0; cluster < 4; cluster++) ExpectImageFileAsReference(cluster);
  ExpectAsReference();
}

// Ends of the files.

TEST_F(ImageSubclusters, LastOneEndsWithTheDisk) {
  MakeGrown({.size = kC + kS + 1000, .backing_size = kC + kS + 1000, .allocated = {0}});
  EXPECT_EQ(BackingReads(), 0u);
  Write(kC + kS, 1000);
  EXPECT_EQ(All(), Lines{"write /vm/disk.raw 69632+1000"});
  EXPECT_FALSE(IsAllocated(1));
  Write(kC, kS);
  EXPECT_TRUE(IsAllocated(1));
  ExpectAsReference();
}

TEST_F(ImageSubclusters, BackingFileMayBeShorterThanTheDisk) {
  for (const std::optional<uint64_t> backing :
       {std::optional<uint64_t>(), {1}, {1000}, {4096 + 700}, {kC}, {kC + 1}}) {
    Make({.size = 3 * kC, .backing_size = backing});
    Write(kS, kS);
    Write(kC + 512, 512);
    ExpectAsReference();
    Flush();
    ExpectAsReference();
    Reopen();
    ExpectAsReference();
  }
}

// All of it together.

TEST_F(ImageSubclusters, RandomRequestsReadBackAndSurviveAFlush) {
  for (int round = 0; round < 20; round++) {
    const uint64_t size = random_.Between(1, 8 * kC);
    Make({.size = size, .backing_size = random_.Between(1, 9 * kC), .seed = random_.Next()});
    for (int i = 0; i < 60; i++) {
      const uint64_t grain = random_.OneIn(4) ? 1 : random_.OneIn(2) ? kSectorSize : kS;
      const uint64_t offset = RoundDown(random_.Below(size), grain);
      const uint64_t most = std::min<uint64_t>(size - offset, random_.OneIn(4) ? 200000 : 9000);
      const uint64_t length = std::min(RoundUp(random_.Between(1, most), grain), size - offset);
      switch (random_.Below(14)) {
        case 0:
        case 1:
          Zero(offset, length, {.may_punch = random_.OneIn(2)});
          break;
        case 2:
          ASSERT_OK(image_->CopyUp(image_->files().layout().Touched(offset, length)));
          break;
        case 3:
          ASSERT_OK(image_->Flush());
          break;
        case 4:
          ASSERT_OK(image_->Close());
          subclusters_ = random_.OneIn(2);
          Reopen();
          break;
        default:
          Write(offset, random_.Bytes(length), random_.OneIn(20) ? Fua::kYes : Fua::kNo);
          break;
      }
      ASSERT_EQ(reference_->Check(ReadAll(*image_), 0), "") << "after step " << i;
    }
    ASSERT_OK(image_->Close());
    Reopen();
    ExpectAsReference();
  }
}

}  // namespace
}  // namespace addcow
