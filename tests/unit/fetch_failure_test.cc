// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/jobs/fetch: where there is no room in memory or in the files, where the base
// fails, and where nothing can be kept: who is told, and that reads go on.

#include "common/jobs/fetch.h"

#include "tests/support/fetch_fixture.h"

namespace addcow {
namespace {

class FetchFailure : public FetchFixture {};

TEST_F(FetchFailure, WhatFindsNoRoomIsOnlyRead) {
  MakeFetch({}, {.size = kC, .memory = 2 * kC});
  ExpectRead(0, 100);
  ExpectRead(kC, 100);
  source_->Forget();
  ExpectRead(2 * kC, 100);
  EXPECT_EQ(source_->reads(), (Reads{{2 * kC, 100}}));
  ExpectRead(kC, 5000);
  EXPECT_EQ(source_->reads().size(), 1u) << "has a window";
  EXPECT_EQ(fetch_->memory_used(), 2 * kC);
  RunAll();
  EXPECT_EQ(image_->bitmap().allocated(), 2u);
  ExpectRead(2 * kC, 100);
  RunAll();
  EXPECT_TRUE(IsAllocated(2));
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchFailure, OnlyWhoseOwnBytesFailIsTold) {
  MakeFetch({}, kSmall);
  source_->Break({5 * kS, 1});
  ExpectRead(0, 512);
  std::vector<std::byte> buffer(kS);
  EXPECT_TRUE(FailsWith(fetch_->Read(buffer, 5 * kS), EIO));
  EXPECT_TRUE(FailsWith(fetch_->Read(std::span(buffer).first(1), 5 * kS), EIO));
  ExpectRead(5 * kS + 1, kS);
  ExpectRead(6 * kS, 10 * kS);
  EXPECT_TRUE(FailsWith(fetch_->Read(std::span(buffer).first(1), 5 * kS), EIO));
  RunAll();
  EXPECT_EQ(image_->bitmap().allocated(), 0u);
  source_->Mend();
  ExpectRead(5 * kS, kS);
  RunAll();
  EXPECT_TRUE(IsAllocated(0));
  ExpectAsReferenceEverAfter();
}

// The base is on a file of which the gate holds up a read, and which fails then.
TEST_F(FetchFailure, OfThoseWhoWaitOnlyWhoseOwnBytesFailIsTold) {
  MakeFetch({}, kSmall);
  Gate::Stop reading = gate_.ParkBefore(OpKind::kRead, kBackingPath);
  Racer first([&] { ExpectRead(0, 512); });
  reading.WaitUntilParked();
  Status failed;
  std::vector<std::byte> buffer(100);
  Racer second([&] { failed = fetch_->Read(buffer, 5 * kS); });
  Racer third([&] { ExpectRead(9 * kS, 3 * kS); });
  second.WaitUntilBlockedOrDone();
  third.WaitUntilBlockedOrDone();
  EXPECT_FALSE(second.done());
  EXPECT_FALSE(third.done());
  faults_.Set({.at = 1,
               .error = EIO,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kRead && operation.path == kBackingPath &&
                        operation.offset <= 5 * kS &&
                        operation.offset + operation.length > 5 * kS;
               }});
  reading.Release();
  first.Join();
  second.Join();
  third.Join();
  EXPECT_TRUE(FailsWith(failed, EIO));
}

TEST_F(FetchFailure, RestThatFailsIsNobodysFailure) {
  MakeFetch({.size = 2 * kMiB, .backing_size = 2 * kMiB}, kLarge);
  source_->Break({600 * kKiB, 1});
  ExpectRead(0, 512);
  RunAll();
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_TRUE(IsAllocated(7));
  EXPECT_FALSE(IsAllocated(8));
  EXPECT_EQ(messages_, Lines{});
  source_->Mend();
  ExpectReadOfAll();
  RunAll();
  EXPECT_TRUE(image_->bitmap().all());
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchFailure, WhatCannotBeKeptIsLoggedOnceAndRead) {
  MakeFetch({}, {.size = kC, .pause = std::chrono::hours(1)});
  faults_.Set({.at = 1,
               .error = ENOSPC,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kImagePath;
               }});
  ExpectRead(0, 100);
  ExpectRead(kC, 100);
  RunAll();
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_NE(messages_[0].find("is not kept"), std::string::npos) << messages_[0];
  EXPECT_EQ(image_->bitmap().allocated(), 0u);
  source_->Forget();
  ExpectRead(0, 100);
  EXPECT_EQ(source_->reads(), (Reads{{0, 100}})) << "for a while it is read only";
  EXPECT_EQ(fetch_->memory_used(), 0u);
  ExpectReadOfAll();
}

TEST_F(FetchFailure, KeepingIsTriedAgain) {
  MakeFetch({}, {.size = kC, .pause = std::chrono::nanoseconds(1)});
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return operation.kind == OpKind::kWrite && operation.path == kImagePath;
               }});
  ExpectRead(0, 100);
  RunAll();
  EXPECT_EQ(messages_.size(), 1u);
  EXPECT_FALSE(IsAllocated(0));
  ExpectRead(0, 100);
  RunAll();
  EXPECT_TRUE(IsAllocated(0));
  EXPECT_EQ(messages_.size(), 1u);
  ExpectAsReferenceEverAfter();
}

TEST_F(FetchFailure, NoRoomForBitsIsNobodysFailure) {
  MakeFetch({}, {.size = 4 * kKiB, .pause = std::chrono::hours(1)});
  faults_.Set({.at = 1,
               .error = ENOSPC,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [](const Operation& operation) {
                 return IsChange(operation.kind) && operation.path == kAddCowPath;
               }});
  ExpectRead(0, 100);
  RunAll();
  EXPECT_EQ(messages_.size(), 1u);
  ExpectReadOfAll();
}

TEST_F(FetchFailure, AfterAFailedSyncAllIsOnlyRead) {
  MakeFetch({}, kSmall);
  ExpectRead(0, 100);
  Write(3 * kC, 100);
  faults_.Set({.at = 1, .error = EIO, .where = [](const Operation& operation) {
                 return IsSync(operation.kind);
               }});
  EXPECT_TRUE(FailsWith(image_->Flush(), EIO));
  RunAll();
  EXPECT_FALSE(IsAllocated(0));
  source_->Forget();
  ExpectRead(kC, 100);
  EXPECT_EQ(source_->reads(), (Reads{{kC, 100}}));
  EXPECT_EQ(messages_, Lines{});
}

TEST_F(FetchFailure, ReadOnlyDiskIsOnlyRead) {
  MakeFetch({}, kSmall);
  Open(kSmall, OpenMode::kReadOnly);
  ExpectRead(kC, 100);
  EXPECT_EQ(source_->reads(), (Reads{{kC, 100}}));
  EXPECT_FALSE(fetch_->RunOne());
}

TEST_F(FetchFailure, WithoutABackingFileThereIsNothingToDo) {
  MakeFetch({.backing_size = std::nullopt}, kSmall);
  ExpectReadOfAll();
  EXPECT_FALSE(fetch_->RunOne());
}

}  // namespace
}  // namespace addcow
