// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See server_fill.h.

#include "plugin/server_fill.h"

#include <random>
#include <utility>

namespace addcow {

ServerFill::ServerFill(Image& image, const ClientLoad& clients, const Options& options,
                       LogSink log)
    : image_(image),
      exit_(options.exit),
      fill_(image,
            {.rate = options.rate, .clients = &clients, .done = [this] { ExitIfDone(); }},
            std::move(log)) {}

ServerFill::~ServerFill() {
  fill_.Stop();
  if (!fill_.WaitUntilIdle(Fill::Clock::now() + std::chrono::seconds(1)))
    image_.AbandonBacking();
}

Status ServerFill::Start(FillMode mode, std::chrono::seconds delay,
                         std::optional<uint64_t> rate) {
  // First, so that no fill says that it runs without anybody to run it.
  ADDCOW_TRY(StartThreads());
  std::random_device random;
  const double part = static_cast<double>(random()) / static_cast<double>(random.max());
  return fill_.Start(mode, Fill::Jittered(delay, part), rate);
}

Status ServerFill::StartThreads() {
  MutexLock lock(mutex_);
  if (threads_ != nullptr) return {};
  ADDCOW_TRY_ASSIGN(threads_, FillThreads::Start(fill_, image_, fill_.Threads()));
  return {};
}

void ServerFill::Connected() {
  MutexLock lock(mutex_);
  clients_++;
}

void ServerFill::Disconnected() {
  {
    MutexLock lock(mutex_);
    clients_--;
  }
  ExitIfDone();
}

void ServerFill::ExitIfDone() {
  if (!exit_) return;
  // Since it was done a client may have written parts of clusters.
  const FillStatus status = fill_.status();
  if (status.state != FillState::kDone || status.left > 0) return;
  MutexLock lock(mutex_);
  if (clients_ == 0) exit_();
}

}  // namespace addcow
