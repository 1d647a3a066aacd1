// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Image::LetBackingGo: when it may, and that whoever had looked at the bits before, and
// comes too late, finds all in the image file.

#include "common/jobs/background_flush.h"
#include "tests/support/image_fixture.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

class ImageLetGoTest : public ImageFixture {
 protected:
  void SetUp() override { Make({.seed = TestSeed()}); }
  void CopyAllUp() { ASSERT_OK(image_->CopyUp({0, image_->files().layout().clusters()})); }
  // From now on nobody can read it.
  void RemoveBase() { ASSERT_OK(fake_.Remove(kBackingPath)); }
  bool HasBase() const { return image_->backing().there(); }
};

TEST_F(ImageLetGoTest, NotBeforeAllIsAllocated) {
  Write(0, 3 * kC);
  ASSERT_OK(image_->Flush());
  EXPECT_FALSE(image_->LetBackingGo());
  EXPECT_TRUE(HasBase());
}

TEST_F(ImageLetGoTest, NotBeforeTheFlagIsDurable) {
  CopyAllUp();
  EXPECT_FALSE(image_->LetBackingGo());
  // After the bits.
  faults_.Set({.at = 2, .error = ENOSPC, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kAddCowPath;
               }});
  EXPECT_TRUE(FailsWith(image_->Flush(), ENOSPC));
  EXPECT_FALSE(image_->LetBackingGo());
  faults_.Clear();
  ASSERT_OK(image_->Flush());
  EXPECT_TRUE(image_->LetBackingGo());
  EXPECT_FALSE(HasBase());
}

TEST_F(ImageLetGoTest, NotAfterAFlushForWhoMayNotWrite) {
  CopyAllUp();
  ASSERT_OK(image_->Flush(FlushFor::kReader));
  EXPECT_FALSE(image_->LetBackingGo());
}

TEST_F(ImageLetGoTest, NotWhenTheSyncOfTheFlagFailed) {
  CopyAllUp();
  faults_.Set({.at = 3, .error = EIO, .where = [](const Operation& operation) {
                 return IsSync(operation.kind);
               }});
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  EXPECT_TRUE(faults_.fired());
  EXPECT_FALSE(image_->LetBackingGo());
  ExpectAsReference();
}

TEST_F(ImageLetGoTest, OnceAndSaidOnce) {
  CopyAllUp();
  ASSERT_OK(image_->Flush());
  EXPECT_TRUE(image_->LetBackingGo());
  EXPECT_FALSE(image_->LetBackingGo());
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_NE(messages_[0].find("was let go"), std::string::npos);
  RemoveBase();
  ExpectAsReference();
}

TEST_F(ImageLetGoTest, TheLockOfTheBaseIsDropped) {
  {
    ASSERT_OK_AND_ASSIGN(const auto other, fake_.Open(kBackingPath, OpenMode::kReadWrite));
    EXPECT_FALSE(other->Lock(LockKind::kWrite));
  }
  CopyAllUp();
  ASSERT_OK(image_->Flush());
  ASSERT_TRUE(image_->LetBackingGo());
  ASSERT_OK_AND_ASSIGN(const auto other, fake_.Open(kBackingPath, OpenMode::kReadWrite));
  EXPECT_OK(other->Lock(LockKind::kWrite));
}

TEST_F(ImageLetGoTest, AllRequestsGoOn) {
  CopyAllUp();
  ASSERT_OK(image_->Flush());
  ASSERT_TRUE(image_->LetBackingGo());
  RemoveBase();
  Write(kC + 300, 1000);
  Zero(2 * kC - 100, 8000);
  Zero(3 * kC, kC, {.may_punch = true});
  ASSERT_OK(image_->Prefetch(0, reference_->size()));
  ASSERT_OK(image_->CopyUp({0, 4}));
  ASSERT_OK(image_->Map(0, reference_->size(), [](const Extent& extent) {
    EXPECT_EQ(extent.source, Extent::Source::kImage);
    return true;
  }));
  ASSERT_OK(image_->Flush());
  ExpectAsReference();
  ASSERT_OK(image_->Close());
  Reopen();
  ExpectAsReference();
}

TEST_F(ImageLetGoTest, ItWaitsForWhoReads) {
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  std::vector<std::byte> bytes(5000);
  Racer reader([&] { EXPECT_OK(image_->Read(bytes, kC)); });
  reading.WaitUntilParked();
  CopyAllUp();
  ASSERT_OK(image_->Flush());
  Racer closer([&] { EXPECT_TRUE(image_->LetBackingGo()); });
  closer.WaitUntilBlockedOrDone();
  EXPECT_FALSE(closer.done());
  ExpectAsReference();  // nobody else waits
  reading.Release();
  reader.Join();
  closer.Join();
  EXPECT_EQ(reference_->Check(bytes, kC), "");
}

// A long read, of which the bits of the second part are looked at when it has gone.
TEST_F(ImageLetGoTest, AReadThatBeganBeforeFindsTheRestInTheImageFile) {
  Write(kC, kC);  // so that it is read in three parts
  Gate::Stop reading = gate_.ParkAfter(OpKind::kRead, kImagePath);
  std::vector<std::byte> bytes(3 * kC);
  Racer reader([&] { EXPECT_OK(image_->Read(bytes, 0)); });
  reading.WaitUntilParked();
  CopyAllUp();
  ASSERT_OK(image_->Flush());
  ASSERT_TRUE(image_->LetBackingGo());
  RemoveBase();
  reading.Release();
  reader.Join();
  EXPECT_EQ(reference_->Check(bytes, 0), "");
}

TEST_F(ImageLetGoTest, TheBackgroundFlushDoesItWhenClientsHaveWrittenAll) {
  FlushRound round(*image_, {});
  Write(0, reference_->size());
  ASSERT_TRUE(round.Run());
  EXPECT_FALSE(HasBase());
  RemoveBase();
  ExpectAsReference();
}

TEST_F(ImageLetGoTest, TheBackgroundFlushDoesItAfterAClientsFlush) {
  FlushRound round(*image_, {});
  Write(0, reference_->size());
  ASSERT_OK(image_->Flush());
  EXPECT_TRUE(HasBase());
  log_.Clear();
  ASSERT_TRUE(round.Run());
  EXPECT_FALSE(HasBase());
}

}  // namespace
}  // namespace addcow
