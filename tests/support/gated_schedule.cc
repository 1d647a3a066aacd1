// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See gated_schedule.h.

#include "tests/support/gated_schedule.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <string_view>

#include "common/base/unique_fd.h"

namespace addcow {

namespace {

// So many times in a row the kernel must say that a thread sleeps, so long
// apart. A lane is at its next operation within microseconds, mostly, so the
// first question comes later. Sleeping, not yielding: on a busy machine who
// yields is the last to get the processor again.
constexpr int kLooks = 5;
constexpr std::chrono::microseconds kBetweenLooks(100);

// The lane that the calling thread is, with its schedule.
thread_local void* this_lane = nullptr;

struct Sleep {
  bool sleeps = false;
  uint64_t count = 0;  // how often it went to sleep so far
};

Sleep SleepOf(int thread) {
  Sleep sleep;
  const UniqueFd fd(
      ::open(fmt::format("/proc/self/task/{}/status", thread).c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> buffer;
  const ssize_t length = fd.get() < 0 ? -1 : ::read(fd.get(), buffer.data(), buffer.size() - 1);
  if (length <= 0) return sleep;  // it has ended
  buffer[static_cast<size_t>(length)] = '\0';
  const std::string_view text(buffer.data(), static_cast<size_t>(length));
  sleep.sleeps = text.find("\nState:\tS") != std::string_view::npos;
  constexpr std::string_view kCount = "\nvoluntary_ctxt_switches:";
  if (const size_t at = text.find(kCount); at != std::string_view::npos)
    sleep.count = std::strtoull(text.data() + at + kCount.size(), nullptr, 10);
  return sleep;
}

}  // namespace

GatedSchedule::GatedSchedule(size_t lanes)
    : lanes_([lanes] {
        std::vector<std::unique_ptr<Lane>> made;
        for (size_t i = 0; i < lanes; i++) made.push_back(std::make_unique<Lane>());
        return made;
      }()) {}

GatedSchedule::~GatedSchedule() { LetGo(); }

void GatedSchedule::Start(size_t index, std::function<void()> body) {
  Lane& lane = *lanes_[index];
  lane.state = State::kRunning;
  lane.kernel_id = 0;
  lane.thread = std::thread([this, &lane, body = std::move(body)] {
    this_lane = &lane;
    lane.kernel_id = ::gettid();
    body();
    SetState(lane, State::kDone);
  });
}

void GatedSchedule::Step(size_t index) {
  Lane& lane = *lanes_[index];
  lane.state = State::kRunning;
  MutexLock lock(lane.mutex);
  lane.go = true;
  lane.changed.NotifyAll();
}

void GatedSchedule::SetState(Lane& lane, State state) {
  const std::lock_guard lock(settle_mutex_);
  lane.state = state;
  settled_.notify_all();
}

void GatedSchedule::WaitABit(const Lane& lane) {
  std::unique_lock lock(settle_mutex_);
  // The system's clock: ThreadSanitizer does not know the wait by another.
  settled_.wait_until(lock, std::chrono::system_clock::now() + kBetweenLooks, [&] {
    return lane.state != State::kRunning && lane.state != State::kWaiting;
  });
}

void GatedSchedule::SettleLane(Lane& lane) {
  // Whether it still waits has to be asked for at once.
  if (lane.state == State::kRunning) WaitABit(lane);
  int looks = 0;
  Sleep before;
  // A lane that waits and gets its lock parks, or is done, by itself.
  while (lane.state == State::kRunning || lane.state == State::kWaiting) {
    const Sleep now = SleepOf(lane.kernel_id);
    if (!now.sleeps || now.count != before.count) looks = 0;
    before = now;
    const bool as_before = lane.state == State::kWaiting && now.count == lane.waiting_since;
    if (!now.sleeps || (++looks < kLooks && !as_before)) {
      WaitABit(lane);
      continue;
    }
    lane.waiting_since = now.count;
    // Not over what the lane itself says meanwhile.
    State running = State::kRunning;
    lane.state.compare_exchange_strong(running, State::kWaiting);
    return;
  }
}

// Those that run first: what they do on their way to their next operation may
// be what another one waits for.
void GatedSchedule::Settle() {
  for (bool changed = true; changed;) {
    changed = false;
    for (const auto& lane : lanes_)
      if (lane->state == State::kRunning) SettleLane(*lane);
    for (const auto& lane : lanes_) {
      if (lane->state != State::kWaiting) continue;
      SettleLane(*lane);
      if (lane->state != State::kWaiting) changed = true;
    }
  }
}

void GatedSchedule::Finish(size_t index) {
  Lane& lane = *lanes_[index];
  lane.thread.join();
  lane.state = State::kIdle;
}

void GatedSchedule::LetGo() {
  open_ = true;
  for (const auto& lane : lanes_) {
    MutexLock lock(lane->mutex);
    lane->go = true;
    lane->changed.NotifyAll();
  }
  for (const auto& lane : lanes_) {
    if (lane->thread.joinable()) lane->thread.join();
    lane->state = State::kIdle;
    MutexLock lock(lane->mutex);
    lane->go = false;
  }
  open_ = false;
}

Verdict GatedSchedule::Before(const Operation& operation) {
  if (this_lane == nullptr) return {};
  Lane& lane = *static_cast<Lane*>(this_lane);
  MutexLock lock(lane.mutex);
  if (open_) return {};
  lane.at_change = IsChange(operation.kind) || IsSync(operation.kind);
  SetState(lane, State::kParked);
  while (!lane.go) lane.changed.Wait(lane.mutex);
  lane.go = false;
  return {};
}

bool GatedSchedule::InLane() { return this_lane != nullptr; }

}  // namespace addcow
