// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See nbd_writer.h.

#include "common/source/nbd_writer.h"

#include <libnbd.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "common/base/units.h"
#include "common/source/libnbd_words.h"

namespace addcow {

namespace {

// As libnbd's NBD_NULL_COMPLETION, with all its members said.
constexpr nbd_completion_callback kNoCompletion = {
    .callback = nullptr, .user_data = nullptr, .free = nullptr};

// What is sent at once: long enough that commands do not count, and short enough for many.
constexpr uint64_t kWriterPiece = 512 * kKiB;
constexpr uint64_t kZeroPiece = 64 * kMiB;

// What is sent between two flushes. The last one would take longer than the timeout, where a
// server has kept many gigabytes in memory.
constexpr uint64_t kWriterFlush = 512 * kMiB;

// What a server of ours may take to end that is told to.
constexpr std::chrono::seconds kLongestEnd(10);

// The largest clusters that a format of QEMU's has. In one of them nothing else is in flight
// together with a write of zeroes: where all of a cluster would read as zeroes then, qemu-nbd
// makes it a cluster of zeroes, without regard to what allocates it meanwhile (seen with 7.2:
// qcow2_co_pwrite_zeroes), and that brings the backing file's bytes back.
constexpr uint64_t kTargetCluster = 2 * kMiB;

bool ShareACluster(ByteRange a, ByteRange b) {
  return RoundDown(a.offset, kTargetCluster) < b.end() &&
         RoundDown(b.offset, kTargetCluster) < a.end();
}

// Between two looks at a signal.
constexpr std::chrono::milliseconds kWriterGlance(100);

}  // namespace

NbdWriter::NbdWriter(std::unique_ptr<NbdServer> server, Options options)
    : server_(std::move(server)), options_(std::move(options)) {}

NbdWriter::~NbdWriter() { HangUp(); }

// libnbd waits for the end of a server of ours: one that has failed may never end by itself.
void NbdWriter::HangUp() {
  if (handle_ == nullptr) return;
  if (failed_) (void)nbd_kill_subprocess(handle_, SIGKILL);
  server_->Closing(handle_, 0);
  // Told to end, it hangs up when its image is closed.
  const auto limit = Clock::now() + std::min<Clock::duration>(options_.timeout, kLongestEnd);
  while (nbd_aio_is_dead(handle_) != 1 && nbd_aio_is_closed(handle_) != 1 &&
         nbd_poll(handle_, static_cast<int>(kWriterGlance.count())) != -1) {
    if (Clock::now() < limit) continue;
    (void)nbd_kill_subprocess(handle_, SIGKILL);
    break;
  }
  if (const int fd = nbd_aio_get_fd(handle_); fd >= 0) (void)::shutdown(fd, SHUT_RDWR);
  nbd_close(std::exchange(handle_, nullptr));
}

Result<std::unique_ptr<NbdWriter>> NbdWriter::Open(std::unique_ptr<NbdServer> server,
                                                   Options options) {
  std::unique_ptr<NbdWriter> writer(new NbdWriter(std::move(server), std::move(options)));
  ADDCOW_TRY(writer->Connect());
  return writer;
}

Error NbdWriter::LibnbdError(const char* operation, uint64_t offset) const {
  const int code = nbd_get_errno();
  if (operation == nullptr)
    if (auto refusal = server_->Refusal()) return std::move(*refusal);
  std::string reason = LibnbdReason();
  const std::string more = server_->Explanation();
  if (!more.empty()) reason += ": " + more;
  if (operation == nullptr) return Error::Because(code != 0 ? code : EIO, name(), reason);
  return Error::Because(code != 0 ? code : EIO, name(),
                        std::string("cannot ") + operation + " at byte " +
                            std::to_string(offset) + ": " + reason);
}

Status NbdWriter::Over(Error error) {
  if (!failed_) failed_ = std::move(error);
  return Fail(*failed_);
}

Status NbdWriter::Connect() {
  handle_ = nbd_create();
  if (handle_ == nullptr) return Over(LibnbdError(nullptr, 0));
  if (server_->Connect(handle_, 0) == -1) return Over(LibnbdError(nullptr, 0));
  const auto limit = Clock::now() + options_.timeout;
  while (nbd_aio_is_ready(handle_) != 1) {
    if (nbd_aio_is_dead(handle_) == 1 || nbd_aio_is_closed(handle_) == 1)
      return Over(LibnbdError(nullptr, 0));
    ADDCOW_TRY(Turn(limit));
  }
  server_->Connected(handle_);
  if (nbd_is_read_only(handle_) != 0)
    return Over(Error::Because(EROFS, name(), "the server lets nobody write to it"));
  const int64_t size = nbd_get_size(handle_);
  if (size == -1) return Over(LibnbdError(nullptr, 0));
  size_ = static_cast<uint64_t>(size);
  minimum_ = BlockSizeOf(handle_, LIBNBD_SIZE_MINIMUM, kUsualMinimum);
  maximum_ = std::min(BlockSizeOf(handle_, LIBNBD_SIZE_MAXIMUM, kUsualMaximum), kWriterPiece);
  maximum_ = std::max(RoundDown(maximum_, minimum_), minimum_);
  can_zero_ = nbd_can_zero(handle_) == 1;
  can_flush_ = nbd_can_flush(handle_) == 1;
  // The last block may be a short one, which is the server's decision.
  (void)nbd_set_strict_mode(handle_, nbd_get_strict_mode(handle_) & ~LIBNBD_STRICT_ALIGN);
  return {};
}

Status NbdWriter::Turn(Clock::time_point limit) {
  if (options_.interrupted && options_.interrupted())
    return Fail(Error::Because(kErrInterrupted, name(), "interrupted"));
  if (Clock::now() >= limit)
    return Over(Error::Because(ETIMEDOUT, name(), "the server does not answer"));
  if (nbd_poll(handle_, static_cast<int>(kWriterGlance.count())) == -1)
    return Over(LibnbdError(nullptr, 0));
  return {};
}

Status NbdWriter::TakeAnswers() {
  for (Slot& slot : slots_) {
    if (slot.cookie == -1) continue;
    const int done = nbd_aio_command_completed(handle_, static_cast<uint64_t>(slot.cookie));
    if (done == -1) return Over(LibnbdError("write", slot.range.offset));
    if (done == 1) slot.cookie = -1;
  }
  return {};
}

// For a command that may go out now.
Result<NbdWriter::Slot*> NbdWriter::FreeSlot(ByteRange range, bool zeroes) {
  if (failed_) return Fail(*failed_);
  const auto limit = Clock::now() + options_.timeout;
  const auto in_the_way = [&](const Slot& slot) {
    return slot.cookie != -1 && (zeroes || slot.zeroes) && ShareACluster(slot.range, range);
  };
  for (;;) {
    ADDCOW_TRY(TakeAnswers());
    const auto free = std::ranges::find(slots_, -1, &Slot::cookie);
    if (free != slots_.end() && std::ranges::none_of(slots_, in_the_way)) return &*free;
    ADDCOW_TRY(Turn(limit));
  }
}

Status NbdWriter::WaitForAll() {
  if (failed_) return Fail(*failed_);
  auto limit = Clock::now() + options_.timeout;
  const auto in_flight = [&] {
    return std::ranges::count_if(slots_, [](const Slot& slot) { return slot.cookie != -1; });
  };
  for (auto before = in_flight(); before > 0;) {
    ADDCOW_TRY(TakeAnswers());
    const auto now = in_flight();
    // The timeout is for a server that is silent.
    if (now < before) limit = Clock::now() + options_.timeout;
    before = now;
    if (now > 0) ADDCOW_TRY(Turn(limit));
  }
  return {};
}

template <typename Command>
Status NbdWriter::Start(const char* operation, ByteRange range, Command command, bool zeroes) {
  ADDCOW_TRY_ASSIGN(Slot* const slot, FreeSlot(range, zeroes));
  slot->range = range;
  slot->zeroes = zeroes;
  slot->cookie = command(*slot);
  if (slot->cookie == -1) return Over(LibnbdError(operation, range.offset));
  return {};
}

Status NbdWriter::WriteAligned(std::span<const std::byte> data, uint64_t offset) {
  while (!data.empty()) {
    const auto part = data.first(std::min<size_t>(data.size(), static_cast<size_t>(maximum_)));
    ADDCOW_TRY(Start("write", {offset, part.size()}, [&](Slot& slot) {
      slot.bytes.assign(part.begin(), part.end());
      return nbd_aio_pwrite(handle_, slot.bytes.data(), slot.bytes.size(), offset,
                            kNoCompletion, 0);
    }));
    data = data.subspan(part.size());
    offset += part.size();
    unflushed_ += part.size();
  }
  return unflushed_ < kWriterFlush ? Status() : Flush();
}

Result<std::vector<std::byte>> NbdWriter::ReadBlock(uint64_t offset, uint64_t length) {
  ADDCOW_TRY(WaitForAll());
  std::vector<std::byte> bytes(static_cast<size_t>(length));
  ADDCOW_TRY(Start("read", {offset, length}, [&](Slot&) {
    return nbd_aio_pread(handle_, bytes.data(), bytes.size(), offset, kNoCompletion, 0);
  }));
  // The buffer is libnbd's until then: an error ends the connection's use.
  if (const Status read = WaitForAll(); !read) {
    const Status over = Over(read.error());
    HangUp();
    return Fail(over.error());
  }
  return bytes;
}

// Less than a block of the server's: the rest of the block stays.
Status NbdWriter::WritePart(std::span<const std::byte> data, uint64_t offset) {
  const uint64_t start = RoundDown(offset, minimum_);
  const uint64_t end = std::min(start + minimum_, size_);
  ADDCOW_TRY_ASSIGN(std::vector<std::byte> block, ReadBlock(start, end - start));
  std::ranges::copy(data, block.begin() + static_cast<std::ptrdiff_t>(offset - start));
  ADDCOW_TRY(WriteAligned(block, start));
  // Another part of the block may come next, and would be read.
  return WaitForAll();
}

Status NbdWriter::Write(std::span<const std::byte> data, uint64_t offset) {
  if (failed_) return Fail(*failed_);
  const uint64_t end = offset + data.size();
  while (!data.empty()) {
    const uint64_t block_end = std::min(RoundDown(offset, minimum_) + minimum_, size_);
    const bool whole_begin = offset % minimum_ == 0 && end >= block_end;
    const uint64_t stop = whole_begin ? (end == size_ ? end : RoundDown(end, minimum_))
                                      : std::min(block_end, end);
    const auto part = data.first(static_cast<size_t>(stop - offset));
    ADDCOW_TRY(whole_begin ? WriteAligned(part, offset) : WritePart(part, offset));
    data = data.subspan(part.size());
    offset = stop;
  }
  return {};
}

Status NbdWriter::Zero(uint64_t offset, uint64_t length) {
  if (failed_) return Fail(*failed_);
  const uint64_t end = offset + length;
  const uint64_t first = std::min(RoundUp(offset, minimum_), end);
  const uint64_t last = std::max(end == size_ ? end : RoundDown(end, minimum_), first);
  const std::vector<std::byte> zeroes(
      static_cast<size_t>(can_zero_ ? std::min(minimum_, length) : std::min(maximum_, length)));
  const auto write = [&](uint64_t from, uint64_t to) -> Status {
    while (from < to) {
      const uint64_t count = std::min<uint64_t>(zeroes.size(), to - from);
      ADDCOW_TRY(Write(std::span(zeroes).first(static_cast<size_t>(count)), from));
      from += count;
    }
    return {};
  };
  ADDCOW_TRY(write(offset, first));
  if (!can_zero_) {
    ADDCOW_TRY(write(first, last));
  } else {
    for (uint64_t at = first; at < last;) {
      // Cut where clusters begin, so that no piece waits for the one before.
      const uint64_t stop = std::min(RoundDown(at, kTargetCluster) + kZeroPiece, last);
      const auto zero = [&](Slot&) {
        return nbd_aio_zero(handle_, stop - at, at, kNoCompletion, 0);
      };
      ADDCOW_TRY(Start("write zeroes", {at, stop - at}, zero, true));
      at = stop;
    }
  }
  return write(last, end);
}

Status NbdWriter::Flush() {
  ADDCOW_TRY(WaitForAll());
  unflushed_ = 0;
  if (!can_flush_) return {};
  ADDCOW_TRY(
      Start("flush", {}, [&](Slot&) { return nbd_aio_flush(handle_, kNoCompletion, 0); }));
  return WaitForAll();
}

Status NbdWriter::Close() {
  ADDCOW_TRY(Flush());
  if (nbd_aio_disconnect(handle_, 0) == -1) return Over(LibnbdError(nullptr, 0));
  const auto limit = Clock::now() + options_.timeout;
  while (nbd_aio_is_closed(handle_) != 1 && nbd_aio_is_dead(handle_) != 1) {
    // It hangs up; all is flushed.
    if (nbd_poll(handle_, static_cast<int>(kWriterGlance.count())) == -1) break;
    if (Clock::now() >= limit)
      return Over(Error::Because(ETIMEDOUT, name(), "the server does not answer"));
  }
  HangUp();
  return {};
}

}  // namespace addcow
