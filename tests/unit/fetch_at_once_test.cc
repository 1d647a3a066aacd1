// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fetch over a base that reads several pieces at once.

#include "tests/support/fetch_fixture.h"

namespace addcow {
namespace {

class FetchAtOnce : public FetchFixture {
 protected:
  void MakeMiB() {
    MakeFetch({.size = 2 * kMiB, .backing_size = 2 * kMiB}, kLarge);
    source_->at_once = 16;
  }
  Gate::Stop ParkBeforeReadOf(uint64_t offset) {
    return gate_.ParkBefore([offset](const Operation& operation) {
      return operation.kind == OpKind::kRead && operation.path == kBackingPath &&
             operation.offset == offset;
    });
  }
};

TEST_F(FetchAtOnce, TheRestIsAskedForInPiecesAllAtOnce) {
  MakeMiB();
  ExpectRead(300 * kKiB, 1000);
  EXPECT_EQ(source_->reads(), (Reads{{256 * kKiB, 64 * kKiB}}));
  RunAll();
  EXPECT_EQ(source_->reads(), (Reads{{256 * kKiB, 64 * kKiB},
                                     {768 * kKiB, 256 * kKiB},
                                     {512 * kKiB, 256 * kKiB},
                                     {320 * kKiB, 192 * kKiB},
                                     {0, 256 * kKiB}}));
  for (uint64_t cluster = 0; cluster < 16; cluster++) EXPECT_TRUE(IsAllocated(cluster));
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchAtOnce, WhoseBytesAreThereIsAnsweredWhileOthersAreRead) {
  MakeMiB();
  ExpectRead(0, 512);
  Gate::Stop reading = ParkBeforeReadOf(256 * kKiB);
  Racer worker([&] { RunAll(); });
  reading.WaitUntilParked();
  ExpectRead(512 * kKiB, 512 * kKiB);
  Racer waits([&] { ExpectRead(500 * kKiB, 100); });
  waits.WaitUntilBlockedOrDone();
  EXPECT_FALSE(waits.done());
  reading.Release();
  waits.Join();
  worker.Join();
  EXPECT_FALSE(source_->ReadTwice());
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchAtOnce, TheRestIsReadWhileTheFirstWaits) {
  MakeMiB();
  Gate::Stop reading = ParkBeforeReadOf(0);
  Racer first([&] { ExpectRead(0, 512); });
  reading.WaitUntilParked();
  Racer worker([&] { RunAll(); });
  ExpectRead(900 * kKiB, 1000);
  EXPECT_FALSE(first.done());
  worker.WaitUntilBlockedOrDone();
  // Not kept before all is there.
  EXPECT_FALSE(IsAllocated(8));
  reading.Release();
  first.Join();
  worker.Join();
  EXPECT_FALSE(source_->ReadTwice());
  for (uint64_t cluster = 0; cluster < 16; cluster++) EXPECT_TRUE(IsAllocated(cluster));
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchAtOnce, OfWhatFailsInTheMiddleTheOthersAreKept) {
  MakeMiB();
  source_->Break({600 * kKiB, 1});
  ExpectRead(0, 512);
  RunAll();
  for (uint64_t cluster = 0; cluster < 8; cluster++) EXPECT_TRUE(IsAllocated(cluster));
  for (uint64_t cluster = 8; cluster < 12; cluster++) EXPECT_FALSE(IsAllocated(cluster));
  for (uint64_t cluster = 12; cluster < 16; cluster++) EXPECT_TRUE(IsAllocated(cluster));
  std::vector<std::byte> buffer(100);
  EXPECT_TRUE(FailsWith(fetch_->Read(buffer, 600 * kKiB), EIO));
  source_->Mend();
  ExpectAsReferenceEverAfter();
}

}  // namespace
}  // namespace addcow
