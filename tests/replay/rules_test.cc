// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The rules by which a log is played back, on small logs made by hand: what a
// sync keeps, what a flush promises.

#include <gtest/gtest.h>

#include "tests/replay/acknowledged.h"
#include "tests/replay/power_cut.h"

namespace addcow {
namespace {

constexpr uint64_t kS = kSectorSize;

class Log {
 public:
  // Both begin a call, and return its number.
  uint64_t Begin(RecordKind kind, uint64_t offset = 0, uint64_t length = 0, uint8_t value = 0,
                 uint32_t file = 0, bool fua = false) {
    Record record;
    record.header.kind = kind;
    record.header.id = ++last_id_;
    record.header.file = file;
    record.header.fua = fua;
    record.header.offset = offset;
    record.header.length = length;
    data_ = Repeat(value, length);
    if (record.header.data_length() > 0) record.data = data_;
    Apply(record);
    return last_id_;
  }
  void End(uint64_t id, int64_t result = 0) {
    Record record;
    record.header.id = id;
    record.header.result = result;
    Apply(record);
  }
  void Do(RecordKind kind, uint64_t offset = 0, uint64_t length = 0, uint8_t value = 0,
          uint32_t file = 0) {
    const uint64_t id = Begin(kind, offset, length, value, file);
    End(id, kind == RecordKind::kFileWrite ? static_cast<int64_t>(length) : 0);
  }

  // The first byte of sector `sector` of a file when only synced data is kept.
  std::byte Synced(uint64_t sector, uint32_t file = 0) const {
    return power.Cut({})[file][sector * kS];
  }
  // Whether the disk may read sectors with these values after a crash.
  bool MayRead(uint8_t first, uint8_t second) const {
    auto bytes = Repeat(first, kS);
    const auto rest = Repeat(second, kS);
    bytes.insert(bytes.end(), rest.begin(), rest.end());
    return disk.model().Check(bytes).empty();
  }

  PowerCut power{{Repeat(0, 4 * kS), Repeat(0, 4 * kS)}};
  Acknowledged disk{Repeat(0, 2 * kS)};
  std::string wrong;

 private:
  void Apply(const Record& record) {
    for (const std::string& said : {power.Apply(record), disk.Apply(record)})
      if (wrong.empty()) wrong = said;
  }

  uint64_t last_id_ = 0;
  std::vector<std::byte> data_;
};

TEST(ReplayRules, ATruncationIsKeptByItsSyncOrWithWhatIsPastTheOldEnd) {
  Log log;
  using Choice = PowerCut::Choice;
  const auto size = [&](Choice::Keep keep) { return log.power.Cut({.keep = keep})[0].size(); };
  log.Do(RecordKind::kFileWrite, 3 * kS, kS, 1);
  log.Do(RecordKind::kFileTruncate, 0, 2 * kS);
  log.Do(RecordKind::kFileTruncate, 0, 6 * kS);
  EXPECT_EQ(size(Choice::Keep::kNothing), 4 * kS);
  EXPECT_EQ(size(Choice::Keep::kEverything), 6 * kS);
  EXPECT_EQ(log.power.Cut({.keep = Choice::Keep::kEverything})[0][3 * kS], std::byte{0});
  log.Do(RecordKind::kFileWrite, 5 * kS, kS, 2);
  EXPECT_EQ(log.wrong, "");
  log.Do(RecordKind::kFileSync);
  EXPECT_EQ(size(Choice::Keep::kNothing), 6 * kS);
  EXPECT_EQ(log.Synced(5), std::byte{2});
  log.Do(RecordKind::kFileWrite, 6 * kS, kS, 2);
  EXPECT_NE(log.wrong, "") << "past the end";
}

TEST(ReplayRules, ASyncKeepsWhatReturnedBeforeItBegan) {
  Log log;
  log.Do(RecordKind::kFileWrite, 0, kS, 1);
  const uint64_t under_way = log.Begin(RecordKind::kFileWrite, kS, kS, 1);
  log.Do(RecordKind::kFileWrite, 0, kS, 1, 1);
  const uint64_t sync = log.Begin(RecordKind::kFileSync);
  log.End(under_way, kS);
  log.Do(RecordKind::kFileWrite, 2 * kS, kS, 1);
  EXPECT_EQ(log.Synced(0), std::byte{0}) << "it has not returned yet";
  log.End(sync);
  EXPECT_EQ(log.Synced(0), std::byte{1});
  EXPECT_EQ(log.Synced(1), std::byte{0}) << "was under way";
  EXPECT_EQ(log.Synced(2), std::byte{0}) << "came later";
  EXPECT_EQ(log.Synced(0, 1), std::byte{0}) << "is in the other file";
  EXPECT_EQ(log.power.pending(), 3U);
  EXPECT_EQ(log.wrong, "");
}

TEST(ReplayRules, ASectorThatIsKeptHasTheEarlierChangesToo) {
  Log log;
  log.Do(RecordKind::kFileWrite, 0, 10, 1);
  log.Do(RecordKind::kFileWrite, 10, kS, 2);
  bool second_alone = false;
  bool torn = false;
  for (uint64_t seed = 0; seed < 200; seed++) {
    const auto files = log.power.Cut({PowerCut::Choice::Keep::kSome, seed});
    const auto& file = files[0];
    second_alone = second_alone || (file[0] == std::byte{0} && file[10] == std::byte{2});
    torn = torn || (file[10] != file[kS + 9]);
  }
  EXPECT_FALSE(second_alone);
  EXPECT_TRUE(torn) << "no state in which one sector of the write was lost";
}

TEST(ReplayRules, AShortWriteIsAsLongAsItWas) {
  Log log;
  const uint64_t id = log.Begin(RecordKind::kFileWrite, 0, 2 * kS, 1);
  log.End(id, kS);
  log.Do(RecordKind::kFileSync);
  EXPECT_EQ(log.Synced(0), std::byte{1});
  EXPECT_EQ(log.Synced(1), std::byte{0});
}

TEST(ReplayRules, WhatCannotBeReplayedIsRefused) {
  Log longer;
  longer.Do(RecordKind::kFileWrite, 4 * kS, 1, 1);
  EXPECT_NE(longer.wrong, "");
  Log failed;
  failed.End(failed.Begin(RecordKind::kFileSync), -EIO);
  EXPECT_NE(failed.wrong, "");
  Log overlap;
  overlap.Begin(RecordKind::kWrite, 0, 10, 1);
  overlap.Begin(RecordKind::kZero, 20, 10);
  EXPECT_NE(overlap.wrong, "");
}

TEST(ReplayRules, AFlushCoversWhatWasAnsweredBeforeItBegan) {
  Log log;
  log.Do(RecordKind::kWrite, 0, kS, 1);
  const uint64_t in_flight = log.Begin(RecordKind::kWrite, kS, kS, 1);
  EXPECT_TRUE(log.MayRead(0, 0));
  const uint64_t flush = log.Begin(RecordKind::kFlush);
  log.End(in_flight);
  EXPECT_TRUE(log.MayRead(0, 0)) << "the flush was not answered yet";
  log.End(flush);
  EXPECT_FALSE(log.MayRead(0, 0));
  EXPECT_TRUE(log.MayRead(1, 0)) << "was in flight when the flush began";
  EXPECT_TRUE(log.MayRead(1, 1));
  log.Do(RecordKind::kFlush);
  EXPECT_FALSE(log.MayRead(1, 0));
  EXPECT_EQ(log.wrong, "");
}

TEST(ReplayRules, AFlushThatFailedPromisesNothing) {
  Log log;
  log.Do(RecordKind::kWrite, 0, kS, 1);
  log.End(log.Begin(RecordKind::kFlush), -EIO);
  EXPECT_TRUE(log.MayRead(0, 0));
}

TEST(ReplayRules, FuaCoversItself) {
  Log log;
  log.Do(RecordKind::kWrite, kS, kS, 1);
  log.End(log.Begin(RecordKind::kWrite, 0, kS, 1, 0, true));
  EXPECT_FALSE(log.MayRead(0, 1));
  EXPECT_TRUE(log.MayRead(1, 0));
}

}  // namespace
}  // namespace addcow
