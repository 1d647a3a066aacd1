// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See nbd_source.h.

#include "common/source/nbd_source.h"

#include <algorithm>
#include <list>
#include <new>
#include <utility>

#include "common/base/units.h"

namespace addcow {

namespace {

// What one block status asks for: few round trips for a disk of any size, and an answer
// that a server need not look for long. A multiple of any minimum.
constexpr uint64_t kRegion = kGiB;
// The same where the last answer had few runs: nearly all that NBD has 32 bits for.
constexpr uint64_t kLongRegion = 4 * kGiB - 32 * kMiB;
constexpr size_t kFewRuns = 1024;

// Some 20 MiB of memory. A base with more of them than that is asked again and again by
// who wants extents, and not at all by who wants to read.
constexpr size_t kMostKnownRuns = 256 * 1024;

}  // namespace

Result<std::unique_ptr<NbdSource>> NbdSource::Open(std::unique_ptr<NbdServer> server,
                                                   NbdOptions options) {
  ADDCOW_TRY_ASSIGN(auto pool, NbdPool::Open(std::move(server), std::move(options)));
  return std::unique_ptr<NbdSource>(new NbdSource(std::move(pool)));
}

NbdSource::NbdSource(std::unique_ptr<NbdPool> pool)
    : pool_(std::move(pool)), runs_(kMostKnownRuns) {}

Status NbdSource::Read(std::span<std::byte> buffer, uint64_t offset) {
  const Piece piece{buffer, offset};
  return ReadAll({&piece, 1}, For::kRead, {});
}

Status NbdSource::ReadPieces(std::span<const Piece> pieces, const Arrived& arrived) {
  return ReadAll(pieces, For::kReadAtOnce, arrived);
}

Status NbdSource::ReadAll(std::span<const Piece> pieces, For what, const Arrived& arrived) {
  Arrivals arrivals(pieces.size(), arrived);
  std::vector<Data> data;
  for (size_t i = 0; i < pieces.size(); i++) ADDCOW_TRY(FindData(pieces[i], i, what, data));
  for (const Data& each : data) arrivals.Expect(each.of);
  for (size_t i = 0; i < pieces.size(); i++) arrivals.Came(i);
  return ReadData(data, arrivals);
}

Status NbdSource::FindData(const Piece& piece, size_t index, For what,
                           std::vector<Data>& data) {
  const uint64_t end = piece.offset + piece.buffer.size();
  for (uint64_t at = piece.offset; at < end;) {
    ADDCOW_TRY_ASSIGN(const DataRun run, Look(at, end, what));
    const auto part = piece.buffer.subspan(static_cast<size_t>(at - piece.offset),
                                           static_cast<size_t>(run.end - at));
    if (run.data)
      data.push_back({{part, at}, index});
    else
      std::ranges::fill(part, std::byte{0});
    at = run.end;
  }
  return {};
}

Status NbdSource::ReadData(const std::vector<Data>& data, Arrivals& arrivals) {
  const NbdExport& found = pool_->found();
  // What begins or ends between the server's blocks, and the blocks that it lies in.
  struct Between {
    std::span<std::byte> to;
    std::vector<std::byte> blocks;
    size_t skip;
    size_t of;
  };
  std::list<Between> between;
  NbdBatch batch;
  for (const auto& [piece, of] : data) {
    const uint64_t end = piece.offset + piece.buffer.size();
    for (uint64_t at = piece.offset; at < end;) {
      const uint64_t first = RoundDown(at, found.minimum);
      const uint64_t stop = std::min(end, first + found.maximum);
      const uint64_t last = std::min(RoundUp(stop, found.minimum), found.size);
      const auto to = piece.buffer.subspan(static_cast<size_t>(at - piece.offset),
                                           static_cast<size_t>(stop - at));
      NbdCommand command{.kind = NbdCommand::Kind::kRead,
                         .offset = first,
                         .length = last - first,
                         .buffer = to.data()};
      arrivals.Expect(of);
      if (first != at || last != stop) {
        Between& part = between.emplace_back();
        part.of = of;
        part.to = to;
        part.blocks.resize(static_cast<size_t>(last - first));
        part.skip = static_cast<size_t>(at - first);
        command.buffer = part.blocks.data();
      } else {
        const size_t whose = of;
        command.succeeded = [&arrivals, whose] { arrivals.Came(whose); };
      }
      batch.Add(std::move(command));
      at = stop;
    }
    arrivals.Came(of);
  }
  ADDCOW_TRY(pool_->Perform(batch));
  for (const Between& part : between) {
    std::copy_n(part.blocks.begin() + static_cast<std::ptrdiff_t>(part.skip), part.to.size(),
                part.to.begin());
    arrivals.Came(part.of);
  }
  return {};
}

Result<DataRun> NbdSource::RunAt(uint64_t offset, uint64_t limit) {
  return Look(offset, limit, For::kExtents);
}

Result<DataRun> NbdSource::Look(uint64_t offset, uint64_t limit, For what) {
  if (!pool_->found().block_status) return DataRun{true, limit};
  const uint64_t region = offset / kRegion;
  std::shared_ptr<Question> question;
  {
    MutexLock lock(mutex_);
    while (question == nullptr) {
      if (const auto run = runs_.At(offset))
        return DataRun{run->data, std::min(run->end, limit)};
      if (what == For::kReadAtOnce || (what == For::kRead && runs_.forgot()))
        return DataRun{true, limit};
      std::shared_ptr<Question>& asked = asking_[region];
      if (asked == nullptr) {
        question = asked = std::make_shared<Question>();
        break;
      }
      const std::shared_ptr<Question> of_another = asked;
      while (!of_another->over) asked_.Wait(mutex_);
      if (of_another->failed) return Fail(*of_another->failed);
    }
  }
  const auto answer = AskOrFail(offset);
  MutexLock lock(mutex_);
  asking_.erase(region);
  question->over = true;
  if (!answer) question->failed = answer.error();
  asked_.NotifyAll();
  if (!answer) return Fail(answer.error());
  uint64_t at = offset;
  for (const DataRun& run : *answer) {
    runs_.Add(at, run.end, run.data);
    at = run.end;
  }
  // A server that does not say is taken to have data.
  const DataRun first = answer->empty() ? DataRun{true, limit} : answer->front();
  return DataRun{first.data, std::min(first.end, limit)};
}

// Who waits for the answer is to hear also of want of memory.
Result<std::vector<DataRun>> NbdSource::AskOrFail(uint64_t offset) try {
  return Ask(offset);
} catch (const std::bad_alloc&) {
  return Fail(Error::System(ENOMEM, "block status", ""));
}

Result<std::vector<DataRun>> NbdSource::Ask(uint64_t offset) {
  const NbdExport& found = pool_->found();
  const uint64_t first = RoundDown(offset, found.minimum);
  bool refused = false;
  if (few_.load(std::memory_order_relaxed) && !no_long_.load(std::memory_order_relaxed)) {
    auto runs = AskUpTo(first, std::min(first + kLongRegion, found.size), offset, refused);
    if (!runs || !refused) return runs;
    // Others count with 31 bits.
    no_long_.store(true, std::memory_order_relaxed);
  }
  const uint64_t region_end = RoundDown(offset, kRegion) + kRegion;
  return AskUpTo(first, std::min(region_end, found.size), offset, refused);
}

Result<std::vector<DataRun>> NbdSource::AskUpTo(uint64_t first, uint64_t end, uint64_t offset,
                                                bool& refused) {
  const NbdExport& found = pool_->found();
  NbdBatch batch;
  const NbdCommand& command = batch.Add(
      {.kind = NbdCommand::Kind::kBlockStatus, .offset = first, .length = end - first});
  std::vector<DataRun> runs;
  if (const Status done = pool_->Perform(batch); !done) {
    refused = command.answered;
    if (refused) return runs;
    return Fail(done.error());
  }
  few_.store(command.blocks.size() < kFewRuns, std::memory_order_relaxed);
  uint64_t at = first;
  for (const NbdCommand::Block& block : command.blocks) {
    at += std::min(block.length, found.size - at);
    if (at > offset) runs.push_back({!block.zero, at});
  }
  return runs;
}

Status NbdSource::Prefetch(uint64_t offset, uint64_t length) {
  const NbdExport& found = pool_->found();
  if (!found.cache) return {};
  NbdBatch batch;
  const uint64_t end = std::min(RoundUp(offset + length, found.minimum), found.size);
  for (uint64_t at = RoundDown(offset, found.minimum); at < end; at += found.maximum)
    batch.Add({.kind = NbdCommand::Kind::kCache,
               .offset = at,
               .length = std::min(found.maximum, end - at)});
  const Status done = pool_->Perform(batch);
  if (done) return {};
  // A hint: who would not take it can be read from all the same.
  for (const NbdCommand& command : batch.commands())
    if (!command.answered) return done;
  return {};
}

}  // namespace addcow
