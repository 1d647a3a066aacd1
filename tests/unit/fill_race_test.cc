// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fill against everything that clients do, each as one fixed schedule: the fill
// stands at one of its operations while the client does its own.
//
//   fill:    bits | reads the base | claim | bits | writes what is missing | sets | flushes
//   client:       ^                ^                ^                               ^
//
// What a client was answered stays.

#include <thread>
#include <tuple>

#include "common/jobs/fetch.h"
#include "tests/support/fill_fixture.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

struct FillRacer {
  const char* name;
  enum class Kind { kWrite, kZero, kTrim, kFua } kind;
  uint64_t offset;
  uint64_t length;
};

constexpr FillRacer kFillRacers[] = {
    {"WholeCluster", FillRacer::Kind::kWrite, kC, kC},
    {"Subcluster", FillRacer::Kind::kWrite, kC + 5 * kS, kS},
    {"PartOfASubcluster", FillRacer::Kind::kWrite, kC + 5 * kS + 100, 700},
    {"EndsOfTwoClusters", FillRacer::Kind::kWrite, 2 * kC - 300, 600},
    {"All", FillRacer::Kind::kWrite, 0, 4 * kC},
    {"Durably", FillRacer::Kind::kFua, kC + 300, 5000},
    {"Zero", FillRacer::Kind::kZero, kC + 100, 20000},
    {"Trim", FillRacer::Kind::kTrim, kC + 100, 20000},
};

class FillRace : public FillFixture,
                 public testing::WithParamInterface<std::tuple<FillRacer, bool>> {
 protected:
  void SetUp() override {
    subclusters_ = std::get<1>(GetParam());
    MakeFill({.seed = TestSeed()});
    ASSERT_OK(fill_->Start(FillMode::kAll));
    data_ = random_.Bytes(std::get<0>(GetParam()).length);
  }

  // For another thread, without the reference.
  Status Client() {
    const FillRacer& racer = std::get<0>(GetParam());
    switch (racer.kind) {
      case FillRacer::Kind::kWrite:
        return image_->Write(data_, racer.offset);
      case FillRacer::Kind::kFua:
        return image_->Write(data_, racer.offset, Fua::kYes);
      default:
        return image_->Zero(racer.offset, racer.length,
                            {.may_punch = racer.kind == FillRacer::Kind::kTrim});
    }
  }
  void Answered() {
    const FillRacer& racer = std::get<0>(GetParam());
    if (racer.kind == FillRacer::Kind::kWrite || racer.kind == FillRacer::Kind::kFua)
      reference_->Write(data_, racer.offset);
    else
      reference_->Zero(racer.offset, racer.length);
  }

  // The client is answered while the fill stands there, or waits for that.
  void RaceFillAt(Gate::Stop stop) {
    RaceAt(
        std::move(stop),
        [this] {
          RunFill();
          return Status();
        },
        [this] { return Client(); });
    Answered();
    RunFill();
    EXPECT_EQ(State(), FillState::kDone);
    ExpectImageFileIsTheDisk();
  }

  std::vector<std::byte> data_;
};

TEST_P(FillRace, WhileTheBaseIsRead) {
  RaceFillAt(gate_.ParkAfter(OpKind::kRead, kBackingPath));
}

TEST_P(FillRace, WhileThePieceIsWritten) {
  RaceFillAt(gate_.ParkBefore(OpKind::kWrite, kImagePath));
}

TEST_P(FillRace, WhenThePieceIsWritten) {
  RaceFillAt(gate_.ParkAfter(OpKind::kWrite, kImagePath));
}

TEST_P(FillRace, WhileItFlushes) {
  RaceFillAt(gate_.ParkBefore(OpKind::kSyncData, kImagePath));
}

TEST_P(FillRace, WhileTheBitsAreWritten) {
  RaceFillAt(gate_.ParkBefore(OpKind::kWrite, kAddCowPath));
}

TEST_P(FillRace, TheFillWaitsForAClientThatWrites) {
  const FillRacer& racer = std::get<0>(GetParam());
  if (racer.kind != FillRacer::Kind::kWrite) return;
  RaceAt(
      gate_.ParkBefore(OpKind::kWrite, kImagePath), [this] { return Client(); },
      [this] {
        RunFill();
        return Status();
      });
  Answered();
  RunFill();
  ExpectImageFileIsTheDisk();
}

INSTANTIATE_TEST_SUITE_P(All, FillRace,
                         testing::Combine(testing::ValuesIn(kFillRacers), testing::Bool()),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) +
                                  (std::get<1>(test.param) ? "Subclusters" : "Clusters");
                         });

class FillRaceTest : public FillFixture {
 protected:
  void SetUp() override { MakeFill({.seed = TestSeed()}, {.piece = kC}); }
};

TEST_F(FillRaceTest, AClientsFlushDoesNotWaitForAPieceThatIsRead) {
  ASSERT_OK(fill_->Start(FillMode::kAll));
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  Racer fill([&] { (void)fill_->Step(); });
  reading.WaitUntilParked();
  Write(2 * kC, kC);
  ASSERT_OK(image_->Flush());
  EXPECT_TRUE(ClusterBitOnDisk(2));
  Write(100, 100);  // in the piece itself: nothing is claimed
  ExpectAsReference();
  reading.Release();
  fill.Join();
  EXPECT_TRUE(IsAllocated(0));
  ExpectAsReference();
}

TEST_F(FillRaceTest, AWriteWaitsForNoOtherPiece) {
  ASSERT_OK(fill_->Start(FillMode::kAll));
  Gate::Stop writing = gate_.ParkBefore(OpKind::kWrite, kImagePath);
  Racer fill([&] { (void)fill_->Step(); });
  writing.WaitUntilParked();
  const auto data = random_.Bytes(kS);
  Racer other([&] { EXPECT_OK(image_->Write(data, kC)); });
  other.WaitUntilBlockedOrDone();
  EXPECT_TRUE(other.done());
  writing.Release();
  fill.Join();
  other.Join();
  reference_->Write(data, kC);
  ExpectAsReference();
}

// What copy-on-read has read, and keeps when all is there already.
TEST_F(FillRaceTest, CopyOnReadBesideIt) {
  Fetch fetch(*image_, {}, {});
  std::vector<std::byte> bytes(100);
  Write(kC, 300);
  ASSERT_OK(fetch.Read(bytes, 2 * kC));
  FillAll();
  while (fetch.RunOne()) {
  }
  ASSERT_OK(fetch.Read(bytes, 3 * kC));
  EXPECT_EQ(reference_->Check(bytes, 3 * kC), "");
  ExpectImageFileIsTheDisk();
}

TEST_F(FillRaceTest, CopyOnReadThatReadsWhenItIsLetGo) {
  Fetch fetch(*image_, {}, {});
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  std::vector<std::byte> bytes(100);
  Racer reader([&] { EXPECT_OK(fetch.Read(bytes, 2 * kC)); });
  reading.WaitUntilParked();
  ASSERT_OK(fill_->Start(FillMode::kAll));
  Racer fill([&] { RunFill(); });
  fill.WaitUntilBlockedOrDone();
  EXPECT_FALSE(fill.done());  // for the base is being read
  reading.Release();
  reader.Join();
  fill.Join();
  EXPECT_EQ(reference_->Check(bytes, 2 * kC), "");
  while (fetch.RunOne()) {
  }
  ExpectImageFileIsTheDisk();
}

TEST_F(FillRaceTest, SeveralThreadsCopyEachPieceOnce) {
  MakeFill({.size = 64 * kC, .backing_size = 64 * kC, .seed = TestSeed()}, {.piece = kC});
  ASSERT_OK(fill_->Start(FillMode::kAll));
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  Racer first([&] { (void)fill_->Step(); });
  reading.WaitUntilParked();
  EXPECT_EQ(fill_->status().position, 0u);
  while (fill_->status().copied < 63 * kC) ASSERT_TRUE(fill_->Step().worked);
  EXPECT_FALSE(source_->ReadTwice());
  EXPECT_FALSE(fill_->Step().worked);  // the end waits for the first piece
  EXPECT_EQ(State(), FillState::kRunning);
  EXPECT_EQ(fill_->status().position, 0u);
  reading.Release();
  first.Join();
  RunFill();
  ExpectImageFileIsTheDisk();
}

}  // namespace
}  // namespace addcow
