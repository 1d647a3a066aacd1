// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fetch: copy-on-read. What is fetched, once, and for whom; what is kept, and
// found by the next process. Its races with writes are in fetch_race_test.cc, its failures
// in fetch_failure_test.cc.

#include "common/jobs/fetch.h"

#include <thread>

#include "common/jobs/fetch_threads.h"
#include "tests/support/fetch_fixture.h"
#include "tests/support/forms.h"

namespace addcow {
namespace {

class FetchTest : public FetchFixture {};

// What is read.

TEST_F(FetchTest, SmallReadFetchesItsWindow) {
  MakeFetch({}, kSmall);
  ExpectRead(kC + 100, 50);
  EXPECT_EQ(source_->reads(), (Reads{{kC, kC}}));
  ExpectRead(kC + 5000, 20000);
  EXPECT_EQ(source_->reads().size(), 1u);
}

TEST_F(FetchTest, AnswerComesBeforeAnythingIsKept) {
  MakeFetch({}, kSmall);
  ExpectRead(0, 100);
  EXPECT_EQ(Done(), Lines{});
  EXPECT_FALSE(IsAllocated(0));
  RunAll();
  EXPECT_TRUE(IsAllocated(0));
  ExpectImageFileAsReference(0);
  EXPECT_EQ(fetch_->memory_used(), 0u);
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, NeededPieceIsReadFirstAndTheRestLater) {
  MakeFetch({.size = 2 * kMiB, .backing_size = 2 * kMiB}, kLarge);
  ExpectRead(kMiB + 300 * kKiB, 1000);
  EXPECT_EQ(source_->reads(), (Reads{{kMiB + 256 * kKiB, 64 * kKiB}}));
  RunAll();
  EXPECT_FALSE(source_->ReadTwice());
  EXPECT_EQ(source_->bytes_read(), kMiB);
  EXPECT_FALSE(IsAllocated(15));
  for (uint64_t cluster = 16; cluster < 32; cluster++) EXPECT_TRUE(IsAllocated(cluster));
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, LargeRequestIsReadInLargePieces) {
  MakeFetch({.size = 5 * kMiB, .backing_size = 5 * kMiB}, kSmall);
  ExpectRead(100, 5 * kMiB - 200);
  EXPECT_EQ(source_->reads(), (Reads{{0, 2 * kMiB}, {2 * kMiB, 2 * kMiB}, {4 * kMiB, kMiB}}));
  RunAll();
  EXPECT_TRUE(image_->bitmap().all());
}

TEST_F(FetchTest, SizeGoesByWhatItStandsOn) {
  Make({});
  EXPECT_EQ(Fetch::DefaultSize(*image_), 64 * kKiB);
  Make({.on_image = true});
  EXPECT_EQ(Fetch::DefaultSize(*image_), kMiB);
  MakeFetch({});
  EXPECT_EQ(Fetch::DefaultSize(*image_), kMiB);
}

TEST_F(FetchTest, WhatIsAllocatedIsNotFetched) {
  MakeFetch({.allocated = {1}, .subclusters = {2, 3, 8}}, kSmall);
  ExpectRead(0, 3 * kC);
  RunAll();
  EXPECT_EQ(source_->reads(),
            (Reads{{0, 2 * kS}, {4 * kS, 4 * kS}, {9 * kS, 7 * kS}, {2 * kC, kC}}));
  EXPECT_TRUE(IsAllocated(0));
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, WhatIsAllocatedIsRead) {
  MakeFetch({.allocated = {0, 1}}, kSmall);
  ExpectRead(100, kC);
  EXPECT_EQ(source_->reads(), Reads{});
  EXPECT_EQ(fetch_->memory_used(), 0u);
}

TEST_F(FetchTest, LastClusterAndTheBackingFilesEndAreCut) {
  MakeFetch({.size = 3 * kC + 5000, .backing_size = 2 * kC + 700}, kLarge);
  ExpectRead(2 * kC + 600, 200);
  EXPECT_EQ(source_->bytes_read(), 700u);
  ExpectReadOfAll();
  RunAll();
  EXPECT_EQ(source_->bytes_read(), 2 * kC + 700);
  EXPECT_TRUE(IsAllocated(2));
  EXPECT_FALSE(IsAllocated(3)) << "nothing is there";
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, LastClusterIsKept) {
  MakeFetch({.size = 3 * kC + 5000, .backing_size = 4 * kC}, kLarge);
  ExpectRead(3 * kC + 4999, 1);
  RunAll();
  EXPECT_TRUE(image_->bitmap().all());
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, ReadPastTheEndIsRefusedAsByTheImage) {
  MakeFetch({}, kSmall);
  std::vector<std::byte> buffer(100);
  EXPECT_TRUE(FailsWith(fetch_->Read(buffer, 4 * kC - 50), EINVAL));
}

// Holes.

TEST_F(FetchTest, HolesAreNeitherReadNorKept) {
  MakeFetch({.backing_data = {{{kC, kC}}}}, kLarge);
  ExpectRead(3 * kC, 100);
  RunAll();
  EXPECT_EQ(source_->reads(), Reads{});
  ExpectReadOfAll();
  RunAll();
  EXPECT_EQ(source_->reads(), (Reads{{kC, kC}}));
  EXPECT_TRUE(IsAllocated(1));
  EXPECT_EQ(image_->bitmap().allocated(), 1u);
  EXPECT_OK(image_->Map(2 * kC, 2 * kC, [](const Extent& extent) {
    EXPECT_EQ(extent, (Extent{2 * kC, 2 * kC, Extent::Source::kBacking, false}));
    return true;
  }));
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, HolesAreNotReadForWantOfRoom) {
  MakeFetch({.backing_data = {{{kC, kC}, {3 * kC + kS, 1000}}}},
            {.size = kC, .memory = 2 * kC});
  ExpectRead(0, 100);
  ExpectRead(kC, 100);
  source_->Forget();
  ExpectRead(2 * kC, 2 * kC);
  EXPECT_EQ(source_->bytes_read(), kS) << "the file has no smaller holes";
}

TEST_F(FetchTest, ClusterThatIsDataInPartIsKeptWhole) {
  MakeFetch({.backing_data = {{{5 * kS, 2 * kS}}}}, kLarge);
  ExpectRead(5 * kS, 100);
  RunAll();
  EXPECT_EQ(source_->bytes_read(), 2 * kS);
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_TRUE(IsHole(kImagePath, 0, 5 * kS));
  ASSERT_OK(image_->Flush());
  EXPECT_FALSE(HasSubclustersOnDisk());
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, ShortAnswersAboutDataAreEnough) {
  MakeFetch({.backing_data = {{{kC, 2 * kC}}}}, kLarge);
  source_->longest_run = 1000;
  ExpectReadOfAll();
  RunAll();
  EXPECT_FALSE(source_->ReadTwice());
  EXPECT_EQ(source_->bytes_read(), 2 * kC);
  EXPECT_EQ(image_->bitmap().allocated(), 2u);
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, WhatCannotBeToldIsData) {
  MakeFetch({.backing_data = {{{kC, 2 * kC}}}}, kLarge);
  source_->cannot_tell = true;
  ExpectReadOfAll();
  RunAll();
  EXPECT_FALSE(source_->ReadTwice());
  EXPECT_TRUE(image_->bitmap().all());
  ExpectAsReferenceEverAfter();
}

// One fetch for all who wait.

TEST_F(FetchTest, ManyWhoWantTheSamePieceWaitForOneRead) {
  MakeFetch({}, kSmall);
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  Racer first([&] { ExpectRead(0, 512); });
  reading.WaitUntilParked();
  std::vector<std::unique_ptr<Racer>> others;
  for (uint64_t i = 1; i < 16; i++)
    others.push_back(std::make_unique<Racer>([this, i] { ExpectRead(i * kS + 7, 1000); }));
  for (const auto& other : others) {
    other->WaitUntilBlockedOrDone();
    EXPECT_FALSE(other->done());
  }
  reading.Release();
  first.Join();
  others.clear();
  EXPECT_EQ(source_->reads(), (Reads{{0, kC}}));
  RunAll();
  EXPECT_EQ(source_->reads().size(), 1u);
}

TEST_F(FetchTest, WhoseBytesAreThereIsAnsweredWhileTheRestIsRead) {
  MakeFetch({.size = kMiB, .backing_size = kMiB}, kLarge);
  ExpectRead(0, 512);
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  Racer worker([&] { RunAll(); });
  reading.WaitUntilParked();
  ExpectRead(4096, 50000);
  EXPECT_EQ(source_->reads().size(), 2u);
  // Nobody reads these yet: it does so itself.
  ExpectRead(600 * kKiB, 100);
  // These are being read.
  Racer waits([&] { ExpectRead(100 * kKiB, 100); });
  waits.WaitUntilBlockedOrDone();
  EXPECT_FALSE(waits.done());
  reading.Release();
  waits.Join();
  worker.Join();
  EXPECT_FALSE(source_->ReadTwice());
  EXPECT_EQ(source_->bytes_read(), kMiB);
  ExpectAsReferenceEverAfter();
}

// It was claimed with what the first wants, who finds a hole between them.
TEST_F(FetchTest, WhatAnotherHasClaimedAndDoesNotReadIsReadOnce) {
  MakeFetch({.backing_data = {{{0, kS}, {8 * kS, kS}}}}, kSmall);
  Gate::Stop asking = gate_.ParkBefore(
      [](const Operation& operation) { return operation.kind == OpKind::kSeekData; });
  Racer first([&] { ExpectRead(0, 512); });
  asking.WaitUntilParked();
  Racer second([&] { ExpectRead(8 * kS, 512); });
  second.WaitUntilBlockedOrDone();
  EXPECT_FALSE(second.done());
  asking.Release();
  first.Join();
  second.Join();
  RunAll();
  EXPECT_FALSE(source_->ReadTwice());
  EXPECT_EQ(source_->bytes_read(), 2 * kS);
  EXPECT_TRUE(IsAllocated(0));
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, WhileItIsKeptNobodyReadsItAgain) {
  MakeFetch({}, kSmall);
  ExpectRead(0, 512);
  Gate::Stop keeping = gate_.ParkBefore(OpKind::kWrite, kImagePath);
  Racer worker([&] { RunAll(); });
  keeping.WaitUntilParked();
  ExpectRead(0, kC);
  EXPECT_EQ(source_->reads().size(), 1u);
  keeping.Release();
}

TEST_F(FetchTest, SlowBaseHoldsUpNobodyElse) {
  MakeFetch({.allocated = {2}}, kSmall);
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  std::vector<std::byte> old_or_new(512);
  Racer reader([&] { EXPECT_OK(fetch_->Read(old_or_new, 0)); });
  reading.WaitUntilParked();
  Write(kS, 100);  // reads what is around it by itself
  Write(0, kC);
  ExpectRead(0, kC);
  ExpectRead(2 * kC, kC);
  ASSERT_OK(image_->Flush());
  reading.Release();
  reader.Join();
  ExpectAsReferenceEverAfter();
}

// A cache.

class FetchForms : public FetchFixture, public testing::WithParamInterface<Form> {};

TEST_P(FetchForms, NextProcessReadsNothingTwice) {
  for (const bool subclusters : {true, false}) {
    for (const uint64_t size : {4 * kKiB, 64 * kKiB, 256 * kKiB, kMiB}) {
      SCOPED_TRACE(testing::Message() << "fetch-size " << size);
      subclusters_ = subclusters;
      const uint64_t cluster = GetParam().cluster_size;
      const uint64_t disk = std::max(3 * cluster + 5000, 300 * kKiB);
      MakeFetch(InForm({.size = disk,
                        .backing_size = disk - 4000,
                        .backing_data = {{{0, cluster / 2 + 1000}, {2 * cluster, cluster}}},
                        .seed = TestSeed()},
                       GetParam()),
                {.size = size});
      Write(cluster + 10, 3000);
      for (int i = 0; i < 40; i++) {
        const uint64_t offset = random_.Below(disk);
        ExpectRead(offset, random_.Between(1, std::min<uint64_t>(disk - offset, 30000)));
        if (random_.OneIn(4)) (void)fetch_->RunOne();
      }
      ExpectReadOfAll();
      EXPECT_FALSE(source_->ReadTwice());
      StopCleanly();
      Open({.size = size});
      ExpectReadOfAll();
      EXPECT_EQ(source_->bytes_read(), 0u);
      ExpectAsReference();
    }
  }
}

TEST_P(FetchForms, KilledProcessLeavesNothingWrong) {
  for (const bool flushed : {true, false}) {
    MakeFetch(InForm({.size = 2 * kMiB + 700, .backing_size = kMiB + 100, .seed = TestSeed()},
                     GetParam()),
              kLarge);
    Write(5000, 10000);
    ASSERT_OK(image_->Flush());
    ExpectReadOfAll();
    (void)fetch_->RunOne();
    if (flushed) {
      ASSERT_OK(image_->Flush());
    }
    Open(kLarge);
    ExpectAsReferenceEverAfter();
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, FetchForms, testing::Values(kVersion1Form, k4kForm, k2MForm),
                         [](const auto& form) { return std::string(form.param.name); });

TEST_F(FetchTest, StopKeepsWhatIsThereAndReadsNoMore) {
  MakeFetch({.size = 2 * kMiB, .backing_size = 2 * kMiB}, kLarge);
  ExpectRead(300 * kKiB, 1000);
  ExpectRead(kMiB, 1000);
  StopCleanly();
  EXPECT_EQ(source_->bytes_read(), 2 * kC);
  EXPECT_EQ(image_->bitmap().allocated(), 2u);
  EXPECT_TRUE(BitOnDisk(4));
  EXPECT_TRUE(BitOnDisk(16));
  Open(kLarge);
  ExpectAsReference();
}

TEST_F(FetchTest, ThreadsKeepWhatWasReadAndEnd) {
  Make({.size = 4 * kMiB, .backing_size = 4 * kMiB});
  for (int round = 0; round < 2; round++) {
    Open();
    fetch_.reset();
    {
      ASSERT_OK_AND_ASSIGN(const auto threads, FetchThreads::Start(*image_, kLarge, nullptr));
      for (uint64_t offset = 0; offset < 3 * kMiB; offset += 50000) {
        std::vector<std::byte> buffer(1000);
        ASSERT_OK(threads->fetch().Read(buffer, offset));
        EXPECT_EQ(reference_->Check(buffer, offset), "");
      }
    }
    ASSERT_OK(image_->Close());
    EXPECT_FALSE(source_->ReadTwice());
    if (round == 1) {
      EXPECT_EQ(source_->bytes_read(), 0u);
    }
  }
  ExpectAsReference();
}

// Each thread knows what is in its own subclusters, whatever the others do beside it.
TEST_F(FetchTest, OverASlowBaseEveryAnsweredWriteStays) {
  for (const uint64_t size : {16 * kKiB, 256 * kKiB}) {
    Make({.size = kMiB, .backing_size = kMiB, .seed = TestSeed()});
    Open();
    fetch_.reset();
    std::atomic<uint64_t> reads = 0;
    source_->before_read = [&reads] {
      std::this_thread::sleep_for(std::chrono::microseconds(reads++ % 7 * 300));
    };
    {
      ASSERT_OK_AND_ASSIGN(const auto threads,
                           FetchThreads::Start(*image_, {.size = size}, nullptr));
      std::vector<std::thread> clients;
      for (uint64_t client = 0; client < 6; client++) {
        clients.emplace_back([&, client] {
          Random random(TestSeed() + client);
          for (uint64_t at = client * 1000; at + 1000 <= kMiB; at += 6000) {
            std::vector<std::byte> bytes(random.Between(1, 1000));
            if (random.OneIn(3)) {
              bytes = random.Bytes(bytes.size());
              EXPECT_OK(image_->Write(bytes, at));
              reference_->Write(bytes, at);
            }
            EXPECT_OK(threads->fetch().Read(bytes, at));
            EXPECT_EQ(reference_->Check(bytes, at), "");
          }
        });
      }
      for (std::thread& client : clients) client.join();
    }
    ExpectAsReference();
    ASSERT_OK(image_->Close());
    Open();
    ExpectAsReference();
  }
}

// Prefetching.

TEST_F(FetchTest, PrefetchKeeps) {
  MakeFetch({.allocated = {1}}, kSmall);
  ASSERT_OK(fetch_->Prefetch(100, 3 * kC));
  EXPECT_EQ(source_->reads(), (Reads{{0, kC}, {2 * kC, 2 * kC}}));
  RunAll();
  EXPECT_TRUE(image_->bitmap().all());
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchTest, PrefetchWaitsForRoom) {
  MakeFetch({}, {.size = kC, .memory = 2 * kC});
  Racer prefetcher([&] { EXPECT_OK(fetch_->Prefetch(0, 4 * kC)); });
  while (!prefetcher.done()) {
    (void)fetch_->RunOne();
    std::this_thread::yield();
  }
  RunAll();
  EXPECT_TRUE(image_->bitmap().all());
  EXPECT_FALSE(source_->ReadTwice());
}

TEST_F(FetchTest, PrefetchFailsWhereTheBaseDoes) {
  MakeFetch({}, kSmall);
  source_->Break({kC, kC});
  EXPECT_OK(fetch_->Prefetch(0, kC));
  EXPECT_TRUE(FailsWith(fetch_->Prefetch(0, 2 * kC), EIO));
}

TEST_F(FetchTest, WhereTheImageHasNoSubclustersAWindowIsACluster) {
  subclusters_ = false;
  MakeFetch({}, {.size = 4 * kKiB});
  ExpectRead(0, 100);
  RunAll();
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_EQ(source_->reads(), (Reads{{0, kC}}));
}

TEST_F(FetchTest, OverAnImageItIsTheSame) {
  MakeFetch({.on_image = true}, kLarge);
  ExpectReadOfAll();
  EXPECT_FALSE(source_->ReadTwice());
  ExpectAsReferenceEverAfter();
}

}  // namespace
}  // namespace addcow
