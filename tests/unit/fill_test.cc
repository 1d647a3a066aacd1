// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fill, step by step in one thread: what it copies, in which order, when it
// waits, what it does about failures, and what follows the last piece.

#include "tests/support/fill_fixture.h"

namespace addcow {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

class FillTest : public FillFixture {};

TEST_F(FillTest, CopiesAllAndTheImageFileIsTheDisk) {
  MakeFill({.size = 9 * kC + 700, .backing_size = 9 * kC + 700, .seed = TestSeed()});
  Write(3 * kC + 100, 5000);
  FillAll();
  EXPECT_EQ(done_, 1);
  EXPECT_FALSE(image_->backing().there());
  EXPECT_EQ(Logged("was let go"), 1u);
  const FillStatus status = fill_->status();
  EXPECT_EQ(status.left, 0u);
  EXPECT_EQ(status.copied, 9 * kC + 700);
  EXPECT_EQ(status.position, reference_->size());
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, CopiesNothingOfHoles) {
  MakeFill({.size = 8 * kC,
            .backing_size = 8 * kC,
            .backing_data = std::vector<ByteRange>{{2 * kC, kC}},
            .garbage = false});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  source_->Forget();
  ASSERT_TRUE(fill_->Step().worked);
  EXPECT_EQ(source_->reads(), (std::vector<ByteRange>{{2 * kC, kC}}));
  RunFill();
  EXPECT_EQ(log_.Lines([](const Operation& operation) {
                  return operation.kind == OpKind::kWrite && operation.path == kImagePath;
                })
                .size(),
            1u);
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, GoesUpwardsInPieces) {
  MakeFill({.size = 8 * kC, .backing_size = 8 * kC, .allocated = {2}}, {.piece = 2 * kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  EXPECT_EQ(fill_->status().left, 7 * kC);
  ASSERT_TRUE(fill_->Step().worked);
  EXPECT_TRUE(IsAllocated(0) && IsAllocated(1) && !IsAllocated(3));
  EXPECT_EQ(fill_->status().position, 2 * kC);
  EXPECT_EQ(fill_->status().copied, 2 * kC);
  EXPECT_EQ(fill_->status().left, 5 * kC);
  ASSERT_TRUE(fill_->Step().worked);
  EXPECT_TRUE(IsAllocated(3) && IsAllocated(4) && !IsAllocated(5));
  EXPECT_EQ(State(), FillState::kRunning);
}

TEST_F(FillTest, ReadsManyPiecesOfASlowBaseAtOnce) {
  MakeFill({.size = 40 * kC, .backing_size = 40 * kC}, {.piece = kMiB});
  source_->at_once = 16;
  ASSERT_OK(fill_->Start(FillMode::kAll));
  ASSERT_TRUE(fill_->Step().worked);
  const auto reads = source_->reads();
  ASSERT_EQ(reads.size(), 4u);
  for (const ByteRange read : reads) EXPECT_EQ(read.length, 256 * kKiB);
  EXPECT_EQ(fill_->Threads(), 4u);
  RunFill();
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, DoesNotReadTwiceWhatWasPublished) {
  MakeFill({.size = 8 * kC, .backing_size = 8 * kC}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  for (int i = 0; i < 3; i++) ASSERT_TRUE(fill_->Step().worked);
  ASSERT_OK(image_->Flush());
  Open({.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  EXPECT_EQ(fill_->status().left, 5 * kC);
  ASSERT_TRUE(fill_->Step().worked);
  EXPECT_EQ(source_->reads(), (std::vector<ByteRange>{{3 * kC, kC}}));
  RunFill();
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, FlushesByItself) {
  const uint64_t size = 600 * kMiB;
  MakeFill({.size = size,
            .backing_size = size,
            .backing_data = std::vector<ByteRange>(),
            .garbage = false});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  while (fill_->status().copied < 512 * kMiB) {
    Pass(std::chrono::seconds(1));
    ASSERT_TRUE(fill_->Step().worked);
  }
  EXPECT_TRUE(ClusterBitOnDisk(0));
  EXPECT_TRUE(ClusterBitOnDisk(500 * kMiB / kC));
  EXPECT_FALSE(FlagOnDisk());
}

TEST_F(FillTest, FlushesSeldomBesideBusyClients) {
  const uint64_t size = 600 * kMiB;
  MakeFill({.size = size,
            .backing_size = size,
            .backing_data = std::vector<ByteRange>(),
            .garbage = false});
  const ClientLoad::Request request(clients_);
  ASSERT_OK(fill_->Start(FillMode::kAll));
  while (fill_->status().copied < 512 * kMiB) {
    Pass(std::chrono::milliseconds(15));
    ASSERT_TRUE(fill_->Step().worked);
  }
  EXPECT_FALSE(ClusterBitOnDisk(0));
  Pass(std::chrono::seconds(10));
  ASSERT_TRUE(fill_->Step().worked);
  EXPECT_TRUE(ClusterBitOnDisk(0));
}

TEST_F(FillTest, TouchedCompletesOnlyWhatIsThereInPart) {
  MakeFill({.size = 8 * kC, .backing_size = 8 * kC, .seed = TestSeed()});
  Write(kC + 5 * kS, kS);
  Write(2 * kC + 100, 300);
  Write(6 * kC, kC);
  ASSERT_OK(fill_->Start(FillMode::kTouched));
  EXPECT_EQ(fill_->status().left, 2 * kC);
  RunFill();
  EXPECT_EQ(State(), FillState::kDone);
  EXPECT_EQ(done_, 1);
  EXPECT_TRUE(IsAllocated(1) && IsAllocated(2) && IsAllocated(6));
  EXPECT_EQ(image_->bitmap().allocated(), 3u);
  EXPECT_TRUE(ClusterBitOnDisk(1) && ClusterBitOnDisk(2));
  EXPECT_TRUE(image_->backing().there());
  ExpectAsReference();
}

TEST_F(FillTest, TouchedLooksAgainForWhatWasWrittenSince) {
  MakeFill({.size = 8 * kC, .backing_size = 8 * kC, .seed = TestSeed()},
           {.look_again = std::chrono::seconds(5)});
  ASSERT_OK(fill_->Start(FillMode::kTouched));
  RunFill();
  ASSERT_EQ(State(), FillState::kDone);
  Write(3 * kC, kS);
  EXPECT_EQ(RunFill(), 0);
  Pass(std::chrono::seconds(5));
  EXPECT_GT(RunFill(), 0);
  EXPECT_TRUE(IsAllocated(3));
  EXPECT_EQ(State(), FillState::kDone);
  EXPECT_EQ(done_, 2);
  EXPECT_EQ(Logged("fill: "), 1u);
  Pass(std::chrono::seconds(5));
  EXPECT_EQ(RunFill(), 0);
}

TEST_F(FillTest, WaitsForItsDelay) {
  MakeFill({});
  ASSERT_OK(fill_->Start(FillMode::kAll, std::chrono::seconds(10)));
  EXPECT_EQ(State(), FillState::kDelayed);
  EXPECT_EQ(WaitsFor(), std::chrono::seconds(10));
  Pass(std::chrono::seconds(10));
  EXPECT_GT(RunFill(), 0);
  EXPECT_EQ(State(), FillState::kDone);
}

TEST_F(FillTest, TheDelayIsOffByATenthAtMost) {
  EXPECT_EQ(Fill::Jittered(std::chrono::seconds(10), 0), std::chrono::seconds(9));
  EXPECT_EQ(Fill::Jittered(std::chrono::seconds(10), 1), std::chrono::seconds(11));
  EXPECT_EQ(Fill::Jittered(std::chrono::seconds(10), 7), std::chrono::seconds(11));
}

TEST_F(FillTest, KeepsToARate) {
  MakeFill({.size = 64 * kC, .backing_size = 64 * kC}, {.rate = 4 * kMiB});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  const auto begin = now_;
  uint64_t copied = 0;
  while (State() != FillState::kDone) {
    const Fill::Turn turn = fill_->Step();
    if (!turn.worked) {
      ASSERT_LE(turn.next - now_, milliseconds(200));
      now_ = turn.next;
    }
    // What a moment's piece is ahead of the rate.
    copied = fill_->status().copied;
    const double passed = std::chrono::duration<double>(now_ - begin).count();
    ASSERT_LE(static_cast<double>(copied), passed * 4 * kMiB + kMiB);
  }
  EXPECT_EQ(copied, 4 * kMiB);
  EXPECT_GE(now_ - begin, milliseconds(850));
  EXPECT_LE(now_ - begin, milliseconds(1100));
}

TEST_F(FillTest, AnotherRateCountsAtOnce) {
  MakeFill({.size = 64 * kC, .backing_size = 64 * kC}, {.rate = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  ASSERT_TRUE(fill_->Step().worked);
  EXPECT_EQ(WaitsFor(), std::chrono::seconds(1));
  fill_->SetRate(0);
  EXPECT_EQ(fill_->status().limit, 0u);
  RunFill();
  EXPECT_EQ(State(), FillState::kDone);
}

TEST_F(FillTest, PausesAndGoesOn) {
  MakeFill({}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  ASSERT_TRUE(fill_->Step().worked);
  ASSERT_OK(fill_->Pause());
  EXPECT_EQ(State(), FillState::kPaused);
  EXPECT_EQ(RunFill(), 0);
  ASSERT_OK(fill_->Resume());
  EXPECT_EQ(State(), FillState::kRunning);
  RunFill();
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, WhatWasNotStartedIsNeitherPausedNorResumed) {
  MakeFill({}, {.piece = kC});
  EXPECT_TRUE(FailsSaying(fill_->Pause(), "there is no fill to pause"));
  EXPECT_TRUE(FailsSaying(fill_->Resume(), "there is no fill to resume"));
  ASSERT_OK(fill_->Start(FillMode::kAll));
  ASSERT_OK(fill_->Pause());
  ASSERT_OK(fill_->Start(FillMode::kOff));
  EXPECT_TRUE(FailsWith(fill_->Resume(), EINVAL));
  ASSERT_OK(fill_->Start(FillMode::kAll));
  EXPECT_EQ(State(), FillState::kRunning);
}

TEST_F(FillTest, OffEndsIt) {
  MakeFill({}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  ASSERT_TRUE(fill_->Step().worked);
  ASSERT_OK(fill_->Start(FillMode::kOff));
  EXPECT_EQ(State(), FillState::kOff);
  EXPECT_EQ(RunFill(), 0);
  EXPECT_EQ(image_->bitmap().allocated(), 1u);
}

TEST_F(FillTest, AReadOnlyDiskIsNotFilled) {
  MakeFill({});
  fill_.reset();
  Reopen(OpenMode::kReadOnly);
  fill_.emplace(*image_, Fill::Options(), nullptr);
  EXPECT_TRUE(FailsWith(fill_->Start(FillMode::kAll), EROFS));
  EXPECT_EQ(State(), FillState::kOff);
  EXPECT_EQ(RunFill(), 0);
}

TEST_F(FillTest, ABaseThatFailsIsTriedAgainWithBackOff) {
  MakeFill({.size = 4 * kC, .backing_size = 4 * kC}, {.piece = kC});
  source_->Break({0, 4 * kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  for (const int wait : {1, 2, 4, 8, 16, 32, 60, 60}) {
    ASSERT_TRUE(fill_->Step().worked);
    EXPECT_EQ(State(), FillState::kWaiting);
    EXPECT_EQ(WaitsFor(), std::chrono::seconds(wait));
    Pass(std::chrono::seconds(wait));
  }
  const FillStatus status = fill_->status();
  EXPECT_EQ(status.retries, 8u);
  EXPECT_NE(status.error.find("the base"), std::string::npos) << status.error;
  EXPECT_EQ(Logged("waits for the backing file"), 1u);
  source_->Mend();
  RunFill();
  EXPECT_EQ(Logged("goes on"), 1u);
  EXPECT_EQ(fill_->status().error, "");
  ExpectImageFileIsTheDisk();
}

// As `addcow fill` starts it, where somebody else had.
TEST_F(FillTest, StartedAgainItGoesOn) {
  MakeFill({.size = 4 * kC, .backing_size = 4 * kC}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  ASSERT_TRUE(fill_->Step().worked);
  source_->Break({0, 4 * kC});
  ASSERT_TRUE(fill_->Step().worked);
  ASSERT_OK(fill_->Start(FillMode::kAll));
  EXPECT_EQ(State(), FillState::kWaiting);
  EXPECT_EQ(fill_->status().copied, kC);
  ASSERT_TRUE(fill_->Step().worked) << "a back-off is over";
  EXPECT_EQ(Logged("waits for the backing file"), 1u);
  source_->Mend();
  ASSERT_OK(fill_->Start(FillMode::kAll));
  RunFill();
  EXPECT_EQ(Logged("goes on"), 1u);
  EXPECT_EQ(fill_->status().copied, 4 * kC);
}

TEST_F(FillTest, WhatCannotBeReadHoldsUpNothingElse) {
  MakeFill({.size = 8 * kC, .backing_size = 8 * kC}, {.piece = kC});
  source_->Break({2 * kC, kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  for (int i = 0; i < 100; i++) {
    RunFill();
    Pass(hours(1));
  }
  EXPECT_EQ(State(), FillState::kWaiting);
  EXPECT_EQ(image_->bitmap().allocated(), 7u);
  EXPECT_FALSE(FlagOnDisk());
  EXPECT_TRUE(image_->backing().there());
  EXPECT_LE(Logged("waits for the backing file"), 2u);
  source_->Mend();
  RunFill();
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, AFullFileSystemIsTriedAgain) {
  MakeFill({.size = 8 * kC, .backing_size = 8 * kC}, {.piece = kC});
  faults_.Set({.at = 3,
               .error = ENOSPC,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) {
                 return IsChange(operation.kind) && operation.path == kImagePath;
               }});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  RunFill();
  for (int i = 0; i < 10; i++) {
    EXPECT_EQ(State(), FillState::kWaiting);
    Pass(std::chrono::seconds(60));
    EXPECT_EQ(RunFill(), 1);
  }
  EXPECT_EQ(Logged("tries it again"), 1u);
  faults_.Clear();
  Pass(std::chrono::seconds(60));
  RunFill();
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, AFailedSyncEndsIt) {
  MakeFill({.size = 4 * kC, .backing_size = 4 * kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return IsSync(operation.kind);
               }});
  RunFill();
  EXPECT_EQ(State(), FillState::kFailed);
  EXPECT_NE(fill_->status().error, "");
  EXPECT_EQ(fill_->failure()->code(), EIO);
  EXPECT_EQ(Logged("the fill has ended"), 1u);
  EXPECT_TRUE(image_->backing().there());
  EXPECT_FALSE(FlagOnDisk());
  EXPECT_EQ(done_, 0);
  Pass(hours(1));
  EXPECT_EQ(RunFill(), 0);
  ExpectAsReference();
}

TEST_F(FillTest, ALastFlushThatFailsIsMadeAgain) {
  MakeFill({.size = 4 * kC, .backing_size = 4 * kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  faults_.Set({.at = 1, .error = ENOSPC, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kAddCowPath;
               }});
  RunFill();
  EXPECT_EQ(State(), FillState::kWaiting);
  EXPECT_TRUE(image_->backing().there());
  Pass(std::chrono::seconds(1));
  RunFill();
  EXPECT_EQ(State(), FillState::kDone);
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, EndsOnADiskThatIsFull) {
  MakeFill({.all_allocated = true});
  FillAll();
  EXPECT_EQ(done_, 1);
  EXPECT_EQ(Logged("all of the disk is in"), 1u);
}

TEST_F(FillTest, AnImageWithoutABackingFileIsFilledWithZeroes) {
  MakeFill({.backing_size = std::nullopt});
  FillAll();
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, AChainIsLetGoAsAWhole) {
  MakeFill({.size = 8 * kC, .backing_size = 8 * kC, .on_image = true});
  FillAll();
  EXPECT_FALSE(image_->backing().there());
  for (const char* name : {"base.add-cow", "base.raw"})
    ASSERT_OK(fake_.Remove(std::string(kDirectory) + "/" + name));
  ExpectImageFileIsTheDisk();
}

TEST_F(FillTest, GivesWayToClients) {
  MakeFill({.size = 128 * kC, .backing_size = 128 * kC});
  source_->before_read = [this] { Pass(milliseconds(1)); };
  ASSERT_OK(fill_->Start(FillMode::kAll));
  const ClientLoad::Request request(clients_);
  const auto begin = now_;
  Clock::duration worked = {};
  while (State() != FillState::kDone && now_ - begin < std::chrono::seconds(1)) {
    const auto before = now_;
    const Fill::Turn turn = fill_->Step();
    worked += now_ - before;
    if (!turn.worked) now_ = turn.next;
  }
  // A twentieth, and what it takes to see that they are busy.
  EXPECT_LE(worked, milliseconds(70));
  EXPECT_GE(worked, milliseconds(7));
}

TEST_F(FillTest, StopsBetweenTwoPieces) {
  MakeFill({}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  fill_->Stop();
  EXPECT_EQ(RunFill(), 0);
  fill_->RunUntilStopped();
  EXPECT_EQ(image_->bitmap().allocated(), 0u);
}

}  // namespace
}  // namespace addcow
