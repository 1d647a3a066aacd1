// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a disk owes its clients: fed with requests as they begin and as they
// are answered, it keeps the versions of each sector that may be read after a
// crash (CrashModel). Also while many are in flight:
//
// - A write has made its version when it begins: from then on it may be read.
// - A flush covers the writes that were answered before it began. The version
//   of one in flight then need not be there.
// - A write with FUA covers itself when it is answered.
//
// Two changes of one sector must not be in flight together, since nobody then
// knows which version is the later one. A load that does so is an error.
//
// Threads: one at a time.

#ifndef ADDCOW_TESTS_REPLAY_ACKNOWLEDGED_H
#define ADDCOW_TESTS_REPLAY_ACKNOWLEDGED_H

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tests/replay/recording.h"
#include "tests/support/crash_model.h"

namespace addcow {

class Acknowledged {
 public:
  // All of `contents` is durable. A disk, or a part of one: offsets are those
  // in `contents`.
  explicit Acknowledged(std::vector<std::byte> contents) : model_(std::move(contents)) {}

  // `id` is the caller's, and not in use.
  void BeginWrite(uint64_t id, std::span<const std::byte> data, uint64_t offset, bool fua);
  void BeginZero(uint64_t id, uint64_t offset, uint64_t length, bool fua);
  void BeginFlush(uint64_t id);
  // Not for an unknown id. A request that failed promises nothing.
  void End(uint64_t id, bool success);

  bool IsInFlight(uint64_t id) const { return in_flight_.contains(id); }
  // Whether a change in flight touches a sector of the range.
  bool IsBusy(uint64_t offset, uint64_t length) const;
  bool idle() const { return in_flight_.empty(); }

  // A record of the log; those of system calls are passed over. Empty, or
  // what is wrong with the load.
  std::string Apply(const Record& record);

  // Everything that was answered is durable: the server has ended cleanly.
  void AllDurable();

  const CrashModel& model() const { return model_; }

  struct Counts {
    uint64_t writes = 0;   // answered; zeroes and trims too
    uint64_t flushes = 0;  // answered; FUA too
    uint64_t failed = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Request {
    uint64_t offset = 0;
    uint64_t length = 0;  // 0: a flush
    bool fua = false;
    CrashModel::Moment covers = {};  // of a flush
  };

  // Of each sector, the version that the last answered request left.
  CrashModel::Moment Answered() const;

  CrashModel model_;
  std::map<uint64_t, Request> in_flight_;
  Counts counts_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_REPLAY_ACKNOWLEDGED_H
