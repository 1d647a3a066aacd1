// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A thread of a race test, and a way to know that it got as far as it can:
// it has ended, or it sleeps in the kernel waiting for somebody. A correct
// engine makes a second writer wait for a lock, a wrong one lets it through;
// a test has to give it the time for either before it lets the first one go
// on. That is asked of the kernel (/proc), not guessed with a pause.
//
// Should the kernel's answer come too early (a thread that a debugger or
// valgrind holds up looks the same), the schedule is another one, but still a
// legal one: a test may then miss a bug, never report one that is not.

#ifndef ADDCOW_TESTS_SUPPORT_RACER_H
#define ADDCOW_TESTS_SUPPORT_RACER_H

#include <functional>
#include <future>
#include <thread>

namespace addcow {

class Racer {
 public:
  explicit Racer(std::function<void()> body);
  ~Racer() { Join(); }
  Racer(const Racer&) = delete;
  Racer& operator=(const Racer&) = delete;

  // Returns once the thread has ended or waits for another one.
  void WaitUntilBlockedOrDone() const;
  bool done() const;
  void Join();

 private:
  std::promise<int> started_;  // the kernel's number of the thread
  std::promise<void> ended_;
  std::shared_future<int> id_;
  std::shared_future<void> end_;
  std::thread thread_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_RACER_H
