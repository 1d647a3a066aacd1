// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See nbd_pool.h.

#include "common/source/nbd_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "common/base/start_thread.h"

namespace addcow {

namespace {

// How often who waits looks whether it was interrupted. A thread is not woken by a signal.
constexpr auto kGlance = std::chrono::milliseconds(200);

}  // namespace

// A connection and its thread.
class NbdPool::Line final : public NbdConnection::Peer {
 public:
  Line(NbdPool& pool, size_t index)
      : pool_(pool),
        index_(index),
        connection_(*this, pool.server_->name(), pool.options_.timeout) {}

  ~Line() override {
    if (thread_.joinable()) thread_.join();
    connection_.Close();
  }

  NbdConnection& connection() { return connection_; }

  Status Start() {
    ADDCOW_TRY_ASSIGN(thread_, StartThread("addcow-nbd", pool_.server_->name(), [this] {
                        while (!pool_.stop_ && !connection_.closed())
                          connection_.Run(Clock::now() + std::chrono::hours(1));
                      }));
    return {};
  }

  Status MayConnect() override { return pool_.MayConnect(index_); }
  int Connect(nbd_handle* handle) override { return pool_.server_->Connect(handle, index_); }
  Status Accept(nbd_handle* handle, const NbdExport& found) override {
    ADDCOW_TRY(pool_.Accept(index_, found));
    if (index_ == 0) pool_.server_->Connected(handle);
    return {};
  }
  void Ready() override {
    ready_ = true;
    pool_.Ready(std::exchange(was_there_, true));
  }
  void Lost(const Error& error) override { pool_.Lost(error, std::exchange(ready_, false)); }
  void Closing(nbd_handle* handle) override { pool_.server_->Closing(handle, index_); }

 private:
  NbdPool& pool_;
  const size_t index_;
  // The driver's.
  bool ready_ = false;
  bool was_there_ = false;
  NbdConnection connection_;
  std::thread thread_;
};

NbdPool::NbdPool(std::unique_ptr<NbdServer> server, NbdOptions options)
    : server_(std::move(server)), options_(std::move(options)) {}

Result<std::unique_ptr<NbdPool>> NbdPool::Open(std::unique_ptr<NbdServer> server,
                                               NbdOptions options) {
  std::unique_ptr<NbdPool> pool(new NbdPool(std::move(server), std::move(options)));
  pool->lines_.push_back(std::make_unique<Line>(*pool, 0));
  NbdConnection& first = pool->lines_.front()->connection();
  for (;;) {
    first.Run(Clock::now() + std::chrono::seconds(1));
    MutexLock lock(pool->mutex_);
    if (pool->ready_ > 0) {
      pool->opened_ = true;
      return pool;
    }
    // There may be a typing error in its name: it is not tried again.
    ADDCOW_TRY(pool->CheckInterrupted());
    if (!pool->lost_) continue;
    if (auto refusal = pool->server_->Refusal()) return Fail(std::move(*refusal));
    const std::string said = pool->server_->Explanation();
    return Fail(said.empty() ? *pool->lost_ : pool->lost_->WithNote(said));
  }
}

NbdPool::~NbdPool() {
  stop_ = true;
  for (const auto& line : lines_) line->connection().Wake();
  // The first one last: it can be what keeps the server.
  while (!lines_.empty()) lines_.pop_back();
}

Status NbdPool::Start() {
  if (started_) return {};
  const size_t connections = found_.multi_conn ? kMostConnections : 1;
  while (lines_.size() < connections)
    lines_.push_back(std::make_unique<Line>(*this, lines_.size()));
  started_ = true;
  for (const auto& line : lines_) ADDCOW_TRY(line->Start());
  return {};
}

void NbdPool::Abandon() {
  if (!started_) return;
  {
    MutexLock lock(mutex_);
    refused_ = true;
    lost_ = Error::Because(ECANCELED, server_->name(), "is not read any more");
  }
  changed_.NotifyAll();
  for (const auto& line : lines_) line->connection().Drop();
}

Status NbdPool::MayConnect(size_t index) {
  {
    MutexLock lock(mutex_);
    if (refused_) return Fail(*lost_);
  }
  return index == 0 ? RefuseOther(server_->Changed(false)) : Status();
}

Status NbdPool::Accept(size_t index, const NbdExport& found) {
  std::string wrong = index == 0 ? server_->Changed(true) : "";
  if (!opened_ && wrong.empty()) {
    found_ = found;
    return {};
  }
  if (!wrong.empty()) return RefuseOther(wrong);
  if (found.size != found_.size)
    wrong = fmt::format("has {} bytes now, and had {}", found.size, found_.size);
  else if (found_.minimum % found.minimum != 0 || found.maximum < found_.maximum)
    wrong = "takes other sizes of requests than it did";
  return RefuseOther(wrong);
}

Status NbdPool::RefuseOther(const std::string& wrong) {
  if (wrong.empty()) return {};
  if (!opened_)
    return Fail(Error::Because(EAGAIN, server_->name(),
                               wrong + " while it was being opened (try again)"));
  Error error = Error::Because(EIO, server_->name(),
                               wrong + ": it is not the same any more, and so not read again");
  bool first = false;
  {
    MutexLock lock(mutex_);
    first = !std::exchange(refused_, true);
    if (first) lost_ = error;
  }
  if (first && options_.log) options_.log(LogLevel::kError, error.Message());
  return Fail(std::move(error));
}

SourceCounts NbdPool::counts() {
  MutexLock lock(mutex_);
  return {.connections = ready_,
          .reconnects = reconnects_,
          .retries = retries_.load(std::memory_order_relaxed)};
}

void NbdPool::Ready(bool again) {
  bool first = false;
  {
    MutexLock lock(mutex_);
    first = ready_++ == 0 && lost_.has_value();
    if (again) reconnects_++;
    silent_since_.reset();
    generation_++;
  }
  changed_.NotifyAll();
  if (first && options_.log)
    options_.log(LogLevel::kNote,
                 Error::Because(0, server_->name(), "connected again").Message());
}

void NbdPool::Lost(const Error& error, bool was_ready) {
  bool last = false;
  {
    MutexLock lock(mutex_);
    last = was_ready && --ready_ == 0 && !refused_;
    // One that froze has been lost for as long as it has not answered: who asks again does
    // not wait once more.
    if (last) down_since_ = silent_since_.value_or(Clock::now());
    // Why it was refused stays.
    if (!refused_) lost_ = error;
  }
  changed_.NotifyAll();
  if (last && !stop_ && options_.log) {
    const std::string said = server_->Explanation();
    options_.log(LogLevel::kError,
                 (said.empty() ? error : error.WithNote(said))
                     .WithNote(fmt::format("it is connected again as soon as that can be; what "
                                           "is read from it fails if that takes more than {} s",
                                           options_.timeout.count()))
                     .Message());
  }
}

Status NbdPool::CheckInterrupted() const {
  return addcow::CheckInterrupted(options_.interrupted, server_->name());
}

Error NbdPool::Failure(const NbdCommand& command, const std::string& why) const {
  const char* what = "read";
  if (command.kind == NbdCommand::Kind::kBlockStatus) what = "block status";
  if (command.kind == NbdCommand::Kind::kCache) what = "cache";
  return Error::Because(
      EIO, server_->name(),
      fmt::format("{}: offset={}, count={}: {}", what, command.offset, command.length, why));
}

Status NbdPool::WaitForConnection(uint64_t generation, Clock::time_point deadline) {
  if (!started_) {
    MutexLock drive(drive_mutex_);
    lines_.front()->connection().Run(deadline);
  }
  MutexLock lock(mutex_);
  for (;;) {
    ADDCOW_TRY(CheckInterrupted());
    if (refused_) return Fail(*lost_);
    if (generation_ != generation) return {};
    auto until = deadline;
    if (ready_ == 0) until = std::min(until, down_since_ + options_.timeout);
    if (Clock::now() >= until)
      return Fail(lost_ ? *lost_ : Error::Because(EIO, server_->name(), "no connection"));
    if (!started_) return {};
    (void)changed_.WaitUntil(mutex_, std::min(until, Clock::now() + kGlance));
  }
}

Status NbdPool::Send(NbdCommand& command, Clock::time_point deadline) {
  for (;;) {
    uint64_t generation = 0;
    {
      MutexLock lock(mutex_);
      if (refused_) return Fail(Failure(command, lost_->OfFile("").Message()));
      generation = generation_;
    }
    const size_t first = next_++;
    for (size_t i = 0; i < lines_.size(); i++)
      if (lines_[(first + i) % lines_.size()]->connection().Send(command)) return {};
    if (const Status there = WaitForConnection(generation, deadline); !there)
      return there.error().code() == kErrInterrupted
                 ? there
                 : Fail(Failure(command, there.error().OfFile("").Message()));
  }
}

bool NbdPool::WaitUntil(NbdBatch& batch, Clock::time_point time) {
  for (;;) {
    const auto until = std::min(time, Clock::now() + kGlance);
    if (started_ && batch.WaitUntil(until)) return true;
    if (!started_) {
      MutexLock drive(drive_mutex_);
      if (batch.WaitUntil(Clock::now())) return true;
      lines_.front()->connection().Run(until);
    }
    const bool interrupted = options_.interrupted && options_.interrupted();
    if (Clock::now() >= time || interrupted) return batch.WaitUntil(Clock::now());
  }
}

void NbdPool::Wait(NbdBatch& batch, Clock::time_point deadline) {
  if (WaitUntil(batch, deadline)) return;
  if (Clock::now() >= deadline) {
    MutexLock lock(mutex_);
    silent_since_ = deadline - options_.timeout;
  }
  TakeBack(batch);
}

// libnbd may write to a buffer for as long as the command is in flight, and has no way
// to take one back but to close the connection. Others in flight there are sent again.
void NbdPool::TakeBack(NbdBatch& batch) {
  batch.VisitInFlight([](NbdConnection& connection) { connection.Drop(); });
  while (!WaitUntil(batch, Clock::now() + std::chrono::seconds(1))) {
  }
}

Status NbdPool::Perform(NbdBatch& batch) {
  // Also where there is no memory for an error.
  struct Guard {
    ~Guard() { pool.TakeBack(batch); }
    NbdPool& pool;
    NbdBatch& batch;
  } const guard{*this, batch};
  const auto deadline = Clock::now() + options_.timeout;
  for (bool again = true; again;) {
    again = false;
    Status sent;
    for (NbdCommand& command : batch.commands())
      if (sent && !command.answered) sent = Send(command, deadline);
    Wait(batch, deadline);
    if (!sent) return sent;
    for (const NbdCommand& command : batch.commands()) {
      if (command.answered && command.error != 0)
        return Fail(Failure(command, ErrnoText(command.error)));
      if (!command.answered && Clock::now() >= deadline)
        return Fail(
            Failure(command, fmt::format("no answer in {} s", options_.timeout.count())));
      if (command.answered) continue;
      ADDCOW_TRY(CheckInterrupted());
      again = true;
      retries_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  return {};
}

}  // namespace addcow
