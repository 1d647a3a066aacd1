// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NbdWriter: writes a disk that an NBD server has, for verbs that copy to one: ascending, in
// large pieces, several of them in flight on one connection.
//
// What fails is the next call's error, Flush's at the latest, and then all is over: a
// connection is not made again, since nobody knows what of the writes the server did. Only
// kErrInterrupted leaves what is in flight as it is.
//
// Threads: one at a time.
//
// Source: the NBD protocol,
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md

#ifndef ADDCOW_COMMON_SOURCE_NBD_WRITER_H
#define ADDCOW_COMMON_SOURCE_NBD_WRITER_H

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/format/layout.h"
#include "common/source/nbd_server.h"

struct nbd_handle;

namespace addcow {

class NbdWriter {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    std::chrono::seconds timeout{60};  // for an answer, while nothing else is answered
    Interrupted interrupted = {};
  };

  // Connects. EROFS where the server lets nobody write.
  static Result<std::unique_ptr<NbdWriter>> Open(std::unique_ptr<NbdServer> server,
                                                 Options options);
  // Without Close, the server sees that the client has gone, and what was not flushed may be
  // lost.
  ~NbdWriter();
  NbdWriter(const NbdWriter&) = delete;
  NbdWriter& operator=(const NbdWriter&) = delete;

  uint64_t size() const { return size_; }  // of the disk, in bytes
  std::string name() const { return server_->name(); }

  // Within the disk. `data` is copied, and on its way when it returns. What overlaps with
  // something that is on its way is in no order: flush before it.
  Status Write(std::span<const std::byte> data, uint64_t offset);
  // Makes the range read as zeroes, without storage if the server can do that.
  Status Zero(uint64_t offset, uint64_t length);
  // Waits for all of them, and has the server bring them to its disk.
  Status Flush();
  // Flush, and goodbye: a server of ours closes its image then, and has done so when this
  // returns. The last call.
  Status Close();

 private:
  struct Slot {
    int64_t cookie = -1;  // of the command that is in flight; -1: none is
    ByteRange range;
    bool zeroes = false;  // write zeroes
    std::vector<std::byte> bytes;
  };
  static constexpr size_t kSlots = 16;

  NbdWriter(std::unique_ptr<NbdServer> server, Options options);

  Status Connect();
  void HangUp();
  Status WriteAligned(std::span<const std::byte> data, uint64_t offset);
  Status WritePart(std::span<const std::byte> data, uint64_t offset);
  Result<Slot*> FreeSlot(ByteRange range, bool zeroes);
  Result<std::vector<std::byte>> ReadBlock(uint64_t offset, uint64_t length);
  template <typename Command>
  Status Start(const char* operation, ByteRange range, Command command, bool zeroes = false);
  Status WaitForAll();
  // One look at what was answered, and waits for more.
  Status Turn(Clock::time_point limit);
  Status TakeAnswers();
  Error LibnbdError(const char* operation, uint64_t offset) const;
  Status Over(Error error);

  const std::unique_ptr<NbdServer> server_;
  const Options options_;
  nbd_handle* handle_ = nullptr;
  uint64_t size_ = 0;
  uint64_t minimum_ = 0;  // of a block, bytes
  uint64_t maximum_ = 0;  // of a command, bytes
  bool can_zero_ = false;
  bool can_flush_ = false;
  std::array<Slot, kSlots> slots_;
  uint64_t unflushed_ = 0;  // bytes
  std::optional<Error> failed_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_NBD_WRITER_H
