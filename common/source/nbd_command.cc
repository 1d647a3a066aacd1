// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See nbd_command.h.

#include "common/source/nbd_command.h"

namespace addcow {

void NbdBatch::Started(NbdCommand& command) {
  MutexLock lock(mutex_);
  command.in_flight = true;
  in_flight_++;
}

void NbdBatch::Ended(NbdCommand& command) {
  if (command.answered && command.error == 0 && command.succeeded) command.succeeded();
  // The owner may destroy both as soon as the lock is free.
  MutexLock lock(mutex_);
  command.in_flight = false;
  if (--in_flight_ == 0) changed_.NotifyAll();
}

bool NbdBatch::WaitUntil(Clock::time_point time) {
  MutexLock lock(mutex_);
  while (in_flight_ > 0)
    if (!changed_.WaitUntil(mutex_, time)) return in_flight_ == 0;
  return true;
}

void NbdBatch::VisitInFlight(const std::function<void(NbdConnection&)>& visit) {
  MutexLock lock(mutex_);
  for (const NbdCommand& command : commands_)
    if (command.in_flight) visit(*command.on);
}

}  // namespace addcow
