// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A client that keeps many requests of every kind in flight on one connection,
// at odd offsets, with flushes and FUA, and knows at every moment what was
// acknowledged to it (Acknowledged). It changes only its own part of the disk.
//
// Threads: one, but for issued() and flushes_issued().

#ifndef ADDCOW_TESTS_REPLAY_RANDOM_CLIENT_H
#define ADDCOW_TESTS_REPLAY_RANDOM_CLIENT_H

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/nbd/server.h"
#include "tests/replay/acknowledged.h"
#include "tests/support/random.h"

namespace addcow {

class RandomClient {
 public:
  // `part` is what the disk reads from `start` to its end, or to where the
  // client's part ends.
  RandomClient(NbdHandle nbd, uint64_t start, std::vector<std::byte> part, uint64_t seed)
      : nbd_(std::move(nbd)), start_(start), disk_(std::move(part)), random_(seed) {}

  // Runs `count` requests to their end, or until the connection is lost, which
  // leaves those in flight unanswered. Empty, or the first thing wrong.
  std::string Run(uint64_t count);

  const Acknowledged& disk() const { return disk_; }
  // How many requests, and flushes among them, were sent so far. Any thread.
  uint64_t issued() const { return issued_.load(std::memory_order_relaxed); }
  uint64_t flushes_issued() const { return flushes_issued_.load(std::memory_order_relaxed); }

 private:
  struct Request {
    uint64_t id = 0;
    int64_t cookie = -1;
    std::vector<std::byte> data;
  };

  bool Lost() const;
  void Issue();
  ByteRange RandomRange();
  int64_t Send(Request& request);
  std::string Reap();

  const NbdHandle nbd_;
  const uint64_t start_;
  Acknowledged disk_;
  Random random_;
  std::map<uint64_t, Request> in_flight_;
  std::atomic<uint64_t> issued_ = 0;
  std::atomic<uint64_t> flushes_issued_ = 0;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_REPLAY_RANDOM_CLIENT_H
