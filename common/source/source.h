// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Source: what unallocated bytes are read from. It does not change for as long as it is
// open, may be slow, and may fail, and then can be asked again.
//
// Threads: any, many at once.

#ifndef ADDCOW_COMMON_SOURCE_SOURCE_H
#define ADDCOW_COMMON_SOURCE_SOURCE_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "common/base/error.h"
#include "common/io/file_info.h"

namespace addcow {

class File;

// What a source has had to do for its answers. Plain values; 0 of what has no connections.
struct SourceCounts {
  uint64_t connections = 0;  // to a server, as things are
  uint64_t reconnects = 0;   // how often one that was lost was made again
  uint64_t retries = 0;      // commands that were sent again, having had no answer

  bool operator==(const SourceCounts&) const = default;
};

class Source {
 public:
  Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  virtual ~Source() = default;

  // In bytes; taken once.
  virtual uint64_t size() const = 0;

  // All of the range lies before the end.
  virtual Status Read(std::span<std::byte> buffer, uint64_t offset) = 0;

  // Several ranges, in no order; where that is faster, at once. One that cannot be read
  // fails all. `arrived`, if it is not empty, is told of each that is there, by its index
  // and as soon as that is so; also where others fail then. That can be in any thread,
  // which holds locks, and not after the return.
  struct Piece {
    std::span<std::byte> buffer;
    uint64_t offset = 0;
  };
  // How many pieces it reads at once, at least one.
  virtual size_t pieces_at_once() const { return 1; }
  using Arrived = std::function<void(size_t index)>;
  virtual Status ReadPieces(std::span<const Piece> pieces, const Arrived& arrived) {
    for (size_t i = 0; i < pieces.size(); i++) {
      ADDCOW_TRY(Read(pieces[i].buffer, pieces[i].offset));
      if (arrived) arrived(i);
    }
    return {};
  }

  // The run at `offset`, which lies before `limit`, which does not lie past the end. It
  // ends at `limit` at the latest, and may end where a run like it begins.
  virtual Result<DataRun> RunAt(uint64_t offset, uint64_t limit) = 0;

  // Asks for the range, which lies before the end, to be in a cache.
  virtual Status Prefetch(uint64_t offset, uint64_t length) = 0;

  // Starts what it needs threads for. Once, after the process has forked for the last
  // time; without it the source works all the same, but slower.
  virtual Status Start() { return {}; }

  // Any thread, at any time.
  virtual SourceCounts counts() { return {}; }

  // From now on reads fail, also those that are on their way and have no answer: for who is
  // about to end and does not wait. Where none takes long, it does nothing.
  virtual void Abandon() {}

  // The local file whose storage can be shared, byte for byte at the same place; or null.
  virtual const File* shared_file() const { return nullptr; }
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_SOURCE_H
