// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See gated_file.h.

#include "tests/support/gated_file.h"

namespace addcow {

namespace {

Gate::Matcher Matching(OpKind kind, const std::string& path) {
  return [kind, path](const Operation& operation) {
    return operation.kind == kind && operation.path == path;
  };
}

}  // namespace

Gate::Stop Gate::Add(Matcher matcher, bool after) {
  auto entry = std::make_shared<Entry>(Entry{std::move(matcher), after});
  MutexLock lock(mutex_);
  entries_.push_back(entry);
  return Stop(*this, std::move(entry));
}

Gate::Stop Gate::ParkBefore(Matcher matcher) { return Add(std::move(matcher), false); }

Gate::Stop Gate::ParkBefore(OpKind kind, const std::string& path) {
  return Add(Matching(kind, path), false);
}

Gate::Stop Gate::ParkAfter(Matcher matcher) { return Add(std::move(matcher), true); }

Gate::Stop Gate::ParkAfter(OpKind kind, const std::string& path) {
  return Add(Matching(kind, path), true);
}

void Gate::ParkIfMatched(const Operation& operation, bool after) {
  MutexLock lock(mutex_);
  // A copy: `entries_` may grow while this thread is parked.
  const auto entries = entries_;
  for (const auto& entry : entries) {
    if (entry->after != after || entry->state != State::kArmed || !entry->matcher(operation))
      continue;
    entry->state = State::kParked;
    changed_.NotifyAll();
    while (entry->state != State::kReleased) changed_.Wait(mutex_);
  }
}

Verdict Gate::Before(const Operation& operation) {
  ParkIfMatched(operation, false);
  return {};
}

void Gate::After(const Operation& operation, int /*error*/) { ParkIfMatched(operation, true); }

void Gate::Stop::WaitUntilParked() {
  MutexLock lock(gate_.mutex_);
  while (entry_->state == State::kArmed) gate_.changed_.Wait(gate_.mutex_);
}

bool Gate::Stop::IsParked() const {
  MutexLock lock(gate_.mutex_);
  return entry_->state == State::kParked;
}

void Gate::Stop::Release() {
  MutexLock lock(gate_.mutex_);
  entry_->state = State::kReleased;
  gate_.changed_.NotifyAll();
}

}  // namespace addcow
