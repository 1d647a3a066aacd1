// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fetch: copy-on-read against writes, each as one fixed schedule. nbdkit's cow
// filter (1.32.5, cow-on-read) loses the write in the first of them.
//
//   reader:   bits | reads the backing file | answers
//   keeper:                                   claim | bits | writes what is missing | sets
//   writer:                                   claim | writes | sets the bits, answers
//
// What a writer was answered stays, wherever the others stand.

#include <thread>

#include "tests/support/fetch_fixture.h"
#include "tests/support/racer.h"

namespace addcow {
namespace {

// What a client does to a window, and may do at any moment.
struct RacingChange {
  const char* name;
  uint64_t offset;
  uint64_t length;
  bool zero = false;
  bool trim = false;
};

constexpr RacingChange kRacingChanges[] = {
    {"WholeCluster", kC, kC},
    {"TwoClusters", 0, 2 * kC},
    {"Subcluster", kC + 5 * kS, kS},
    {"PartOfASubcluster", kC + 5 * kS + 100, 700},
    {"PartsOfTwoSubclusters", kC + 5 * kS + 100, kS},
    {"EndsOfTwoClusters", 2 * kC - 300, 600},
    {"Zero", kC + 100, 20000, true},
    {"Trim", kC + 100, 20000, true, true},
};

using FetchRaceCase = std::tuple<RacingChange, bool, uint64_t>;

class FetchRace : public FetchFixture, public testing::WithParamInterface<FetchRaceCase> {
 protected:
  void SetUp() override {
    subclusters_ = std::get<1>(GetParam());
    MakeFetch({.seed = TestSeed()}, {.size = std::get<2>(GetParam())});
  }

  void Do() {
    const RacingChange& change = std::get<0>(GetParam());
    if (change.zero)
      Zero(change.offset, change.length, {.may_punch = change.trim});
    else
      Write(change.offset, change.length);
  }
  // For another thread, without the reference.
  Status Start(std::span<const std::byte> data) {
    const RacingChange& change = std::get<0>(GetParam());
    return change.zero ? image_->Zero(change.offset, change.length, {.may_punch = change.trim})
                       : image_->Write(data, change.offset);
  }
  void Started(std::span<const std::byte> data) {
    const RacingChange& change = std::get<0>(GetParam());
    change.zero ? reference_->Zero(change.offset, change.length)
                : reference_->Write(data, change.offset);
  }

  Status FetchRead(uint64_t offset) {
    std::vector<std::byte> buffer(100);
    return fetch_->Read(buffer, offset);
  }
};

TEST_P(FetchRace, WriteBetweenTheReadAndTheKeepingSurvives) {
  for (const uint64_t read_at : {kC, kC + 6 * kS, 2 * kC, uint64_t{0}}) {
    SetUp();
    ASSERT_OK(FetchRead(read_at));
    Do();
    RunAll();
    ExpectAsReferenceEverAfter();
  }
}

TEST_P(FetchRace, WriteWhileTheBaseIsReadSurvives) {
  Gate::Stop reading = gate_.ParkAfter(OpKind::kRead, kBackingPath);
  Racer reader([&] { EXPECT_OK(FetchRead(kC)); });
  reading.WaitUntilParked();
  Do();
  reading.Release();
  reader.Join();
  RunAll();
  ExpectAsReferenceEverAfter();
}

TEST_P(FetchRace, WriteThatAFlushCoveredSurvives) {
  ASSERT_OK(FetchRead(kC));
  Do();
  ASSERT_OK(image_->Flush());
  RunAll();
  ExpectAsReferenceEverAfter();
}

TEST_P(FetchRace, WriteWhileItIsKeptSurvives) {
  for (const bool before : {true, false}) {
    SetUp();
    ASSERT_OK(FetchRead(kC + 5 * kS));
    const auto data = random_.Bytes(std::get<0>(GetParam()).length);
    Gate::Stop keeping = before ? gate_.ParkBefore(OpKind::kWrite, kImagePath)
                                : gate_.ParkAfter(OpKind::kWrite, kImagePath);
    Racer keeper([&] { RunAll(); });
    keeping.WaitUntilParked();
    Racer writer([&] { EXPECT_OK(Start(data)); });
    writer.WaitUntilBlockedOrDone();
    keeping.Release();
    keeper.Join();
    writer.Join();
    Started(data);
    ExpectAsReferenceEverAfter();
  }
}

TEST_P(FetchRace, KeepingWaitsForAWriteUnderWay) {
  const auto is_change = [](const Operation& operation) {
    return IsChange(operation.kind) && operation.path == kImagePath;
  };
  for (const bool before : {true, false}) {
    SetUp();
    ASSERT_OK(FetchRead(kC + 5 * kS));
    const auto data = random_.Bytes(std::get<0>(GetParam()).length);
    Gate::Stop writing = before ? gate_.ParkBefore(is_change) : gate_.ParkAfter(is_change);
    Racer writer([&] { EXPECT_OK(Start(data)); });
    writing.WaitUntilParked();
    Racer keeper([&] { RunAll(); });
    keeper.WaitUntilBlockedOrDone();
    writing.Release();
    writer.Join();
    keeper.Join();
    Started(data);
    ExpectAsReferenceEverAfter();
  }
}

TEST_P(FetchRace, ReadAfterTheAnswerSeesTheWrite) {
  ASSERT_OK(FetchRead(kC));
  Do();
  ExpectReadOfAll();
  Gate::Stop keeping = gate_.ParkBefore(OpKind::kWrite, kImagePath);
  Racer keeper([&] { RunAll(); });
  keeper.WaitUntilBlockedOrDone();
  ExpectReadOfAll();
  keeping.Release();
  keeper.Join();
  ExpectReadOfAll();
}

TEST_P(FetchRace, WriteWhileTheBaseIsAskedForHolesSurvives) {
  Gate::Stop asking = gate_.ParkBefore(
      [](const Operation& operation) { return operation.kind == OpKind::kSeekData; });
  Racer reader([&] { EXPECT_OK(FetchRead(kC)); });
  asking.WaitUntilParked();
  Do();
  asking.Release();
  reader.Join();
  RunAll();
  ExpectAsReferenceEverAfter();
}

std::string FetchRaceName(const testing::TestParamInfo<FetchRaceCase>& one) {
  return std::string(std::get<0>(one.param).name) +
         (std::get<1>(one.param) ? "" : "WithoutSubclusters") + "By" +
         std::to_string(std::get<2>(one.param) / kKiB) + "k";
}

INSTANTIATE_TEST_SUITE_P(Changes, FetchRace,
                         testing::Combine(testing::ValuesIn(kRacingChanges), testing::Bool(),
                                          testing::Values(4 * kKiB, kC, kMiB)),
                         FetchRaceName);

}  // namespace
}  // namespace addcow
