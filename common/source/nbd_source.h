// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NbdSource: the export of an NBD server as a Source. What the server calls zeroes is not
// read from it, and it is asked once.
//
// Locks: mutex_ is not held while anything waits for the server.

#ifndef ADDCOW_COMMON_SOURCE_NBD_SOURCE_H
#define ADDCOW_COMMON_SOURCE_NBD_SOURCE_H

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/source/arrivals.h"
#include "common/source/known_runs.h"
#include "common/source/nbd_pool.h"
#include "common/source/source.h"

namespace addcow {

class NbdSource final : public Source {
 public:
  // What a server has threads for, and a network with a delay keeps busy: nbdkit has 16 for
  // each connection.
  static constexpr size_t kPiecesAtOnce = 16;

  static Result<std::unique_ptr<NbdSource>> Open(std::unique_ptr<NbdServer> server,
                                                 NbdOptions options);

  uint64_t size() const override { return pool_->found().size; }
  Status Read(std::span<std::byte> buffer, uint64_t offset) override;
  Result<DataRun> RunAt(uint64_t offset, uint64_t limit) override;
  // Nothing is asked of them before: they cost one round trip.
  size_t pieces_at_once() const override { return kPiecesAtOnce; }
  Status ReadPieces(std::span<const Piece> pieces, const Arrived& arrived) override;
  Status Prefetch(uint64_t offset, uint64_t length) override;
  Status Start() override { return pool_->Start(); }
  SourceCounts counts() override { return pool_->counts(); }
  void Abandon() override { pool_->Abandon(); }

 private:
  // Why it is looked whether there is data. For extents a server is asked what is not known;
  // to read, only as long as all answers can be kept; for what is read at once, not at all.
  // What nobody knows is data.
  enum class For { kExtents, kRead, kReadAtOnce };

  explicit NbdSource(std::unique_ptr<NbdPool> pool);

  // Of the pieces, a part that is no zeroes.
  struct Data {
    Piece part;
    size_t of;  // which piece
  };

  Status ReadAll(std::span<const Piece> pieces, For what, const Arrived& arrived);
  Status FindData(const Piece& piece, size_t index, For what, std::vector<Data>& data);
  Status ReadData(const std::vector<Data>& data, Arrivals& arrivals);
  Result<DataRun> Look(uint64_t offset, uint64_t limit, For what) ADDCOW_EXCLUDES(mutex_);
  // The runs from `offset` on; none where the server does not say.
  Result<std::vector<DataRun>> Ask(uint64_t offset);
  Result<std::vector<DataRun>> AskUpTo(uint64_t first, uint64_t end, uint64_t offset,
                                       bool& refused);
  Result<std::vector<DataRun>> AskOrFail(uint64_t offset);

  // What is being asked about a region. Who wants to know the same waits for the answer, and
  // has failed with it where there is none: asking in turn, each would wait for as long.
  struct Question {
    bool over = false;
    std::optional<Error> failed;
  };

  const std::unique_ptr<NbdPool> pool_;
  std::atomic<bool> few_ = false;  // the last answer was short: more can be asked for at once
  std::atomic<bool> no_long_ = false;  // the server does not take that

  Mutex mutex_;
  ConditionVariable asked_;
  KnownRuns runs_ ADDCOW_GUARDED_BY(mutex_);
  std::map<uint64_t, std::shared_ptr<Question>> asking_ ADDCOW_GUARDED_BY(mutex_);
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_NBD_SOURCE_H
