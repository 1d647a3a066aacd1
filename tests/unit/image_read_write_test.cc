// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image: what is read after what was written, whatever the sizes of
// image, backing file and request. The image file starts out full of old
// bytes; none of them may ever be read.

#include <gtest/gtest.h>

#include "tests/support/image_fixture.h"

namespace addcow {
namespace {

struct Sizes {
  uint64_t image;
  std::optional<uint64_t> backing;
  bool subclusters = true;
};

// gtest's name for the parameters.
std::string NameOf(const Sizes& sizes) {
  return std::to_string(sizes.image) + "On" +
         (sizes.backing ? std::to_string(*sizes.backing) : "Nothing") +
         (sizes.subclusters ? "" : "Clusters");
}

class ImageSizes : public ImageFixture, public testing::WithParamInterface<Sizes> {
 protected:
  ImageSizes() : ImageFixture(GetParam().subclusters) {}
  void SetUp() override {
    Make({.size = GetParam().image, .backing_size = GetParam().backing, .seed = TestSeed()});
  }
  uint64_t size() const { return GetParam().image; }
};

TEST_P(ImageSizes, NewImageReadsAsTheBackingFile) { ExpectAsReference(); }

TEST_P(ImageSizes, EveryPieceReadsAsPartOfTheWhole) {
  for (int i = 0; i < 50; i++) {
    const uint64_t offset = random_.Below(size());
    std::vector<std::byte> buffer(random_.Between(1, size() - offset));
    ASSERT_OK(image_->Read(buffer, offset));
    EXPECT_EQ(reference_->Check(buffer, offset), "");
  }
}

TEST_P(ImageSizes, FirstByteCanBeWritten) {
  Write(0, 1);
  ExpectAsReference();
}

TEST_P(ImageSizes, LastByteCanBeWritten) {
  Write(size() - 1, 1);
  ExpectAsReference();
}

TEST_P(ImageSizes, WholeDiskCanBeWrittenAtOnce) {
  Write(0, size());
  ExpectAsReference();
  EXPECT_TRUE(image_->bitmap().all());
}

TEST_P(ImageSizes, RandomWritesZeroesAndCopyUpsReadBack) {
  for (int i = 0; i < 60; i++) {
    const uint64_t offset = random_.Below(size());
    const uint64_t length = random_.Between(1, std::min<uint64_t>(size() - offset, 100000));
    switch (random_.Below(5)) {
      case 0:
        Zero(offset, length);
        break;
      case 1:
        Zero(offset, length, {.may_punch = false});
        break;
      case 2:
        ASSERT_OK(image_->CopyUp(image_->files().layout().Touched(offset, length)));
        break;
      default:
        Write(offset, length);
        break;
    }
    ASSERT_EQ(reference_->Check(ReadAll(*image_), 0), "") << "after step " << i;
  }
  ASSERT_OK(image_->Close());
  Reopen();
  ExpectAsReference();
}

TEST_P(ImageSizes, CopyingEverythingUpMakesTheImageFileTheDisk) {
  ASSERT_OK(image_->CopyUp({0, image_->bitmap().clusters()}));
  EXPECT_TRUE(image_->bitmap().all());
  ExpectAsReference();
  EXPECT_EQ(reference_->Check(Inode(kImagePath).Bytes(0, size()), 0), "");
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, ImageSizes,
    testing::Values(Sizes{1, {}}, Sizes{1, 1}, Sizes{1, 100000}, Sizes{511, 511},
                    Sizes{512, 100}, Sizes{65535, 65535}, Sizes{65536, 65536},
                    Sizes{65537, 65537}, Sizes{65537, 65536}, Sizes{65537, 1},
                    Sizes{300000, {}}, Sizes{300000, 300000}, Sizes{300000, 400000},
                    Sizes{300000, 131072}, Sizes{300000, 131073}, Sizes{300000, 150000},
                    Sizes{300001, 299999}, Sizes{1, 1, false}, Sizes{65537, 65537, false},
                    Sizes{300000, {}, false}, Sizes{300000, 150000, false},
                    Sizes{300001, 299999, false}),
    [](const auto& parameter) { return NameOf(parameter.param); });

class ImageReadWrite : public ImageFixture {};

TEST_F(ImageReadWrite, WithoutSubclustersAWriteAllocatesTheClustersThatItTouches) {
  subclusters_ = false;
  Make({});
  Write(65535, 2);
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_TRUE(IsAllocated(1));
  EXPECT_FALSE(IsAllocated(2));
}

TEST_F(ImageReadWrite, WithoutSubclustersAWriteCopiesTheRestOfTheClusterUp) {
  subclusters_ = false;
  Make({});
  Write(1000, 10);
  EXPECT_EQ(reference_->Check(Inode(kImagePath).Bytes(0, kClusterSize), 0), "");
}

TEST_F(ImageReadWrite, WholeClusterIsWrittenWithoutReadingTheBackingFile) {
  Make({});
  Write(kClusterSize, kClusterSize);
  EXPECT_EQ(log_.Count(OpKind::kRead), 0u);
}

TEST_F(ImageReadWrite, WriteToAnAllocatedClusterIsOneWriteAndNothingElse) {
  Make({.allocated = {1}});
  Write(kClusterSize + 3, 5);
  EXPECT_EQ(log_.Lines([](const Operation&) { return true; }),
            std::vector<std::string>{"write /vm/disk.raw 65539+5"});
}

TEST_F(ImageReadWrite, ReadOfAllocatedClustersIsOneReadAndNothingElse) {
  Make({.allocated = {0, 1}});
  std::vector<std::byte> buffer(100000);
  ASSERT_OK(image_->Read(buffer, 3));
  EXPECT_EQ(log_.Lines([](const Operation&) { return true; }),
            std::vector<std::string>{"read /vm/disk.raw 3+100000"});
}

TEST_F(ImageReadWrite, NothingIsReadFromOrWrittenToThePastOfTheEnd) {
  Make({.size = 65537});
  std::vector<std::byte> buffer(2);
  EXPECT_TRUE(FailsWith(image_->Read(buffer, 65536), EINVAL));
  EXPECT_TRUE(FailsWith(image_->Write(buffer, 65536), ENOSPC));
  EXPECT_TRUE(FailsWith(image_->Zero(65536, 2, {}), ENOSPC));
  EXPECT_TRUE(FailsWith(image_->Read(buffer, UINT64_MAX), EINVAL));
  EXPECT_TRUE(FailsWith(image_->Write(buffer, UINT64_MAX), ENOSPC));
  EXPECT_TRUE(FailsWith(image_->Prefetch(65536, 2), EINVAL));
  EXPECT_EQ(Inode(kImagePath).size(), 65537u);
  EXPECT_EQ(image_->bitmap().allocated(), 0u);
}

TEST_F(ImageReadWrite, CopyUpPastTheEndIsRefused) {
  Make({.size = 65537});
  EXPECT_FALSE(image_->CopyUp({0, 3}));
  EXPECT_FALSE(image_->CopyUp({2, 1}));
  EXPECT_FALSE(image_->CopyUp({1, UINT64_MAX}));
  EXPECT_EQ(image_->bitmap().allocated(), 0u);
}

TEST_F(ImageReadWrite, EmptyRequestsSucceedAndAllocateNothing) {
  Make({});
  EXPECT_OK(image_->Read({}, 100));
  EXPECT_OK(image_->Write({}, 100));
  EXPECT_OK(image_->Zero(100, 0, {}));
  EXPECT_OK(image_->Prefetch(100, 0));
  EXPECT_OK(image_->CopyUp({1, 0}));
  EXPECT_EQ(image_->bitmap().allocated(), 0u);
}

TEST_F(ImageReadWrite, LongWriteOverMixedClustersReadsBack) {
  const uint64_t size = 40 * kMiB;
  Make({.size = size,
        .backing_size = size / 2,
        .allocated = {3, 4, 5, 250, 300, 301, 511, 639}});
  Write(12345, size - 20000);
  ExpectAsReference();
}

TEST_F(ImageReadWrite, BackingFileIsNeverWritten) {
  Make({});
  const auto before = Inode(kBackingPath).Bytes(0, 4 * kClusterSize);
  Write(100, 100000);
  Zero(50000, 100000);
  ASSERT_OK(image_->Close());
  EXPECT_EQ(Inode(kBackingPath).Bytes(0, 4 * kClusterSize), before);
  EXPECT_EQ(Inode(kBackingPath).size(), 4 * kClusterSize);
}

TEST_F(ImageReadWrite, ImageFileNeverGrows) {
  Make({.size = 100001});
  Write(0, 100001);
  Zero(65536, 100001 - 65536);
  ASSERT_OK(image_->Close());
  EXPECT_EQ(Inode(kImagePath).size(), 100001u);
}

TEST_F(ImageReadWrite, CopyUpKeepsTheBackingFilesHoles) {
  Make({.backing_data = {{{0, 4096}, {20480, 4096}}}});
  ASSERT_OK(image_->CopyUp({0, 4}));
  EXPECT_TRUE(IsHole(kImagePath, 4096, 16384));
  EXPECT_FALSE(IsHole(kImagePath, 20480, 4096));
  EXPECT_TRUE(IsHole(kImagePath, 24576, 4 * kClusterSize - 24576));
  ExpectAsReference();
}

TEST_F(ImageReadWrite, CopyUpMakesHolesOfTheBackingFilesZeroes) {
  Make({});
  ASSERT_TRUE(Inode(kBackingPath).Write(Repeat(0, 8192), 4096));
  reference_->Zero(4096, 8192);
  ASSERT_OK(image_->CopyUp({0, 1}));
  EXPECT_TRUE(IsHole(kImagePath, 4096, 8192));
  ExpectAsReference();
}

TEST_F(ImageReadWrite, CopyUpLeavesAllocatedClustersAlone) {
  Make({.allocated = {1, 2}});
  Write(kClusterSize, 100);
  ASSERT_OK(image_->CopyUp({0, 4}));
  ExpectAsReference();
}

TEST_F(ImageReadWrite, CopyUpLeavesHolesOfAFreshImageFileAlone) {
  Make({.backing_data = {std::vector<ByteRange>{}}, .garbage = false});
  ASSERT_OK(image_->CopyUp({0, 4}));
  EXPECT_EQ(log_.Changes(), std::vector<std::string>{});
  EXPECT_TRUE(image_->bitmap().all());
}

TEST_F(ImageReadWrite, CopyUpThatCannotReadAllocatesNothing) {
  Make({});
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& op) {
                 return op.kind == OpKind::kRead && op.path == kBackingPath;
               }});
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 10), 100), EIO));
  EXPECT_FALSE(IsAllocated(0));
  faults_.Clear();
  ExpectAsReference();
}

TEST_F(ImageReadWrite, WriteThatFailsAllocatesNothing) {
  Make({});
  for (uint64_t at = 1;; at++) {
    faults_.Set({.at = at, .error = ENOSPC, .where = [](const Operation& operation) {
                   // Where a clone fails, the bytes are copied.
                   return ChangesOrSyncs(operation) && operation.kind != OpKind::kClone;
                 }});
    const Status written = image_->Write(Repeat(1, 10), 100);
    if (!faults_.fired()) break;
    EXPECT_TRUE(FailsWith(written, ENOSPC)) << faults_.hit();
    EXPECT_FALSE(IsAllocated(0)) << faults_.hit();
    faults_.Clear();
    ExpectAsReference();
  }
}

TEST_F(ImageReadWrite, TruncatedBackingFileIsAReadErrorNotZeroes) {
  Make({});
  ASSERT_TRUE(Inode(kBackingPath).Truncate(100));
  std::vector<std::byte> buffer(10);
  EXPECT_OK(image_->Read(buffer, 50));
  EXPECT_TRUE(FailsWith(image_->Read(buffer, 95), EIO));
  EXPECT_TRUE(FailsWith(image_->Write(Repeat(1, 1), 0), EIO));
  EXPECT_FALSE(IsAllocated(0));
}

TEST_F(ImageReadWrite, PrefetchAsksEachFileForItsClusters) {
  Make({.backing_size = 3 * kClusterSize + 10, .allocated = {1}});
  ASSERT_OK(image_->Prefetch(100, 4 * kClusterSize - 100));
  EXPECT_EQ(log_.Lines([](const Operation& op) { return op.kind == OpKind::kPrefetch; }),
            (std::vector<std::string>{"prefetch /vm/base.img 100+65436",
                                      "prefetch /vm/disk.raw 65536+65536",
                                      "prefetch /vm/base.img 131072+65546"}));
}

TEST_F(ImageReadWrite, PrefetchAllocatesNothing) {
  Make({});
  ASSERT_OK(image_->Prefetch(0, 4 * kClusterSize));
  EXPECT_EQ(image_->bitmap().allocated(), 0u);
}

TEST_F(ImageReadWrite, HugeSparseDiskWorksAtItsEnd) {
  const uint64_t size = 64 * kTiB - 512;
  fake_.Put(kImagePath, size);
  fake_.Put(kBackingPath, Repeat(3, 100));
  Header header;
  header.image = {"disk.raw", "raw"};
  header.backing = NamedFile{"base.img", "raw"};
  ASSERT_OK_AND_ASSIGN(const auto bytes, SerializeHeader(header, kAddCowPath));
  fake_.Put(kAddCowPath, bytes);
  ASSERT_TRUE(Inode(kAddCowPath).Truncate(Layout(size, Geometry{}).bitmap().padded_end()));
  Reopen();
  ASSERT_OK(image_->Write(Repeat(5, 1000), size - 1000));
  ASSERT_OK(image_->Close());
  Reopen();
  std::vector<std::byte> buffer(2000);
  ASSERT_OK(image_->Read(buffer, size - 2000));
  auto expected = Repeat(0, 1000);
  expected.resize(2000, std::byte{5});
  EXPECT_EQ(buffer, expected);
}

}  // namespace
}  // namespace addcow
