// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How busy clients keep a server, for jobs that give way to them. A request costs two
// additions to a counter, and no look at the clock: who gives way looks now and then.
//
// Threads: any.

#ifndef ADDCOW_COMMON_JOBS_CLIENT_LOAD_H
#define ADDCOW_COMMON_JOBS_CLIENT_LOAD_H

#include <atomic>
#include <cstdint>

namespace addcow {

class ClientLoad {
 public:
  // A request of a client, for as long as it is under way.
  class Request {
   public:
    explicit Request(ClientLoad& load) : load_(load) {
      load_.state_.fetch_add(kBegun | 1, std::memory_order_relaxed);
    }
    ~Request() { load_.state_.fetch_sub(1, std::memory_order_relaxed); }
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

   private:
    ClientLoad& load_;
  };

  struct Look {
    uint64_t begun = 0;      // requests since the server started, modulo 2^48
    uint64_t in_flight = 0;  // requests
  };
  Look Now() const {
    const uint64_t state = state_.load(std::memory_order_relaxed);
    return {state / kBegun, state % kBegun};
  }

 private:
  static constexpr uint64_t kBegun = 1 << 16;  // more are never in flight

  // On a line of its own: all requests write to it.
  alignas(64) std::atomic<uint64_t> state_ = 0;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_JOBS_CLIENT_LOAD_H
