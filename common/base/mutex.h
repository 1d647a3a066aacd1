// SPDX-License-Identifier: LGPL-2.1-or-later
//
// std::mutex with clang's thread-safety annotations, so that
// `clang++ -Wthread-safety -Werror` refuses code that touches guarded data
// without its lock. What the annotations do not check: data reached through a
// pointer or reference that left the locked scope, and constructors. The
// tests under ThreadSanitizer are for those.

#ifndef ADDCOW_COMMON_BASE_MUTEX_H
#define ADDCOW_COMMON_BASE_MUTEX_H

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define ADDCOW_ANNOTATE(x) __attribute__((x))
#else
#define ADDCOW_ANNOTATE(x)
#endif

#define ADDCOW_GUARDED_BY(x) ADDCOW_ANNOTATE(guarded_by(x))
#define ADDCOW_REQUIRES(...) ADDCOW_ANNOTATE(requires_capability(__VA_ARGS__))
#define ADDCOW_EXCLUDES(...) ADDCOW_ANNOTATE(locks_excluded(__VA_ARGS__))
#define ADDCOW_ACQUIRED_BEFORE(...) ADDCOW_ANNOTATE(acquired_before(__VA_ARGS__))

namespace addcow {

class ADDCOW_ANNOTATE(capability("mutex")) Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ADDCOW_ANNOTATE(acquire_capability()) { mutex_.lock(); }
  void Unlock() ADDCOW_ANNOTATE(release_capability()) { mutex_.unlock(); }

 private:
  friend class ConditionVariable;
  std::mutex mutex_;
};

// Holds a Mutex for a scope.
class ADDCOW_ANNOTATE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ADDCOW_ANNOTATE(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.Lock();
  }
  ~MutexLock() ADDCOW_ANNOTATE(release_capability()) { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class ConditionVariable {
 public:
  // Releases `mutex` while waiting and holds it again on return. May return
  // without a notification: wait in a loop over the condition.
  void Wait(Mutex& mutex) ADDCOW_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // As Wait, but no longer than until `time`. False: it has come.
  bool WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point time)
      ADDCOW_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const std::cv_status status = condition_.wait_until(lock, time);
    lock.release();
    return status == std::cv_status::no_timeout;
  }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_MUTEX_H
