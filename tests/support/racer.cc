// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See racer.h. A thread counts as blocked when the kernel says that it sleeps
// and it has not been woken over many looks.

#include "tests/support/racer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>

namespace addcow {

namespace {

constexpr int kLooksWithoutChange = 100;

struct State {
  bool sleeps = false;
  std::string switches;  // how often it went to sleep so far
};

State StateOf(int thread) {
  State state;
  std::ifstream status(fmt::format("/proc/self/task/{}/status", thread));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("State:")) state.sleeps = line.find("\tS") != std::string::npos;
    if (line.starts_with("voluntary_ctxt_switches:")) state.switches = line;
  }
  return state;
}

}  // namespace

Racer::Racer(std::function<void()> body)
    : id_(started_.get_future()), end_(ended_.get_future()), thread_([this, body] {
        started_.set_value(::gettid());
        body();
        ended_.set_value();
      }) {}

bool Racer::done() const {
  return end_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

void Racer::WaitUntilBlockedOrDone() const {
  const int id = id_.get();
  State before;
  for (int looks = 0; looks < kLooksWithoutChange && !done(); looks++) {
    State now = StateOf(id);
    if (!now.sleeps || now.switches != before.switches) looks = 0;
    before = std::move(now);
    std::this_thread::yield();
  }
}

void Racer::Join() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace addcow
