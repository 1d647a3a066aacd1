// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Many schedules of a few threads, where Gate (gated_file.h) is for one fixed
// one. Each thread ("lane") stops before every operation on a file. Whoever
// holds the schedule decides which of the parked ones does its operation next,
// so that an order drawn from a seed is had again with the seed.
//
// One lane works at a time, from its operation up to its next one. A lane may
// also wait for a lock that another lane holds; it goes on as soon as it gets
// it, up to its next operation. That it waits is asked of the kernel (as in
// racer.h): it sleeps and was not woken over many looks. Should that answer
// come too early, the schedule is another legal one.
//
// Threads that are not lanes pass freely.

#ifndef ADDCOW_TESTS_SUPPORT_GATED_SCHEDULE_H
#define ADDCOW_TESTS_SUPPORT_GATED_SCHEDULE_H

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "tests/support/forwarding_file.h"

namespace addcow {

class GatedSchedule final : public Interceptor {
 public:
  enum class State {
    kIdle,     // nothing to do
    kRunning,  // only until the next Settle
    kParked,   // before an operation
    kWaiting,  // for a lock
    kDone,     // its body has returned
  };

  explicit GatedSchedule(size_t lanes);
  ~GatedSchedule();

  size_t lanes() const { return lanes_.size(); }

  // For an idle lane: runs `body` up to its first operation.
  void Start(size_t lane, std::function<void()> body);
  // For a parked lane: lets it do its operation.
  void Step(size_t lane);
  // Returns once no lane runs.
  void Settle();
  State state(size_t lane) const { return lanes_[lane]->state; }
  // Whether a parked lane stands before a change or a sync: there it matters
  // most who is next.
  bool AtChange(size_t lane) const { return lanes_[lane]->at_change; }
  // For a lane that is done: it is idle again.
  void Finish(size_t lane);
  // From now on nothing parks; waits until all lanes are done.
  void LetGo();

  // Parks the calling thread if it is a lane.
  Verdict Before(const Operation& operation) override;
  // Whether the calling thread is a lane, of any schedule.
  static bool InLane();

 private:
  struct Lane {
    std::thread thread;
    std::atomic<int> kernel_id = 0;
    std::atomic<State> state = State::kIdle;
    std::atomic<bool> at_change = false;
    // How often it had gone to sleep when it was last found to wait.
    uint64_t waiting_since = 0;

    Mutex mutex;
    ConditionVariable changed;
    bool go ADDCOW_GUARDED_BY(mutex) = false;
  };

  void SettleLane(Lane& lane);
  void SetState(Lane& lane, State state);
  // Waits a moment for the lane to stop running by itself.
  void WaitABit(const Lane& lane);

  // For waiting with a limit of time, which Mutex has not. A lane's state is
  // changed by the lane under it.
  std::mutex settle_mutex_;
  std::condition_variable settled_;

  const std::vector<std::unique_ptr<Lane>> lanes_;
  std::atomic<bool> open_ = false;  // nothing parks
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_GATED_SCHEDULE_H
