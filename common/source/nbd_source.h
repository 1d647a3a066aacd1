// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NbdSource: the export of an NBD server as a Source. What the server calls zeroes is not
// read from it, and it is asked once.
//
// Locks: mutex_ is not held while anything waits for the server.

#ifndef ADDCOW_COMMON_SOURCE_NBD_SOURCE_H
#define ADDCOW_COMMON_SOURCE_NBD_SOURCE_H

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/source/known_runs.h"
#include "common/source/nbd_pool.h"
#include "common/source/source.h"

namespace addcow {

class NbdSource final : public Source {
 public:
  static Result<std::unique_ptr<NbdSource>> Open(std::unique_ptr<NbdServer> server,
                                                 NbdOptions options);

  uint64_t size() const override { return pool_->found().size; }
  Status Read(std::span<std::byte> buffer, uint64_t offset) override;
  Result<DataRun> RunAt(uint64_t offset, uint64_t limit) override;
  Status Prefetch(uint64_t offset, uint64_t length) override;
  Status Start() override { return pool_->Start(); }

 private:
  // Part of what is to be read: data.
  struct Piece {
    std::span<std::byte> buffer;
    uint64_t offset;
  };

  explicit NbdSource(std::unique_ptr<NbdPool> pool);

  Status ReadPieces(const std::vector<Piece>& pieces);
  // What is known of the bytes, or is asked for. To read, a server is not asked any more
  // whose answers cannot all be kept: then what is not known is data.
  enum class For { kExtents, kRead };
  Result<DataRun> Look(uint64_t offset, uint64_t limit, For what) ADDCOW_EXCLUDES(mutex_);
  // The runs from `offset` on; none where the server does not say.
  Result<std::vector<DataRun>> Ask(uint64_t offset);

  const std::unique_ptr<NbdPool> pool_;

  Mutex mutex_;
  ConditionVariable asked_;
  KnownRuns runs_ ADDCOW_GUARDED_BY(mutex_);
  std::set<uint64_t> asking_ ADDCOW_GUARDED_BY(mutex_);  // about which regions
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_NBD_SOURCE_H
