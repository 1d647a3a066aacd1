// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See random_client.h.

#include "tests/replay/random_client.h"

#include <algorithm>

namespace addcow {

namespace {
constexpr size_t kInFlight = 12;
}  // namespace

bool RandomClient::Lost() const {
  return nbd_aio_is_dead(nbd_.get()) == 1 || nbd_aio_is_closed(nbd_.get()) == 1;
}

std::string RandomClient::Run(uint64_t count) {
  const uint64_t end = issued() + std::min(count, UINT64_MAX - issued());
  std::string wrong;
  for (;;) {
    // Also after a failure: what is in flight has to come back.
    while (wrong.empty() && !Lost() && issued() < end && in_flight_.size() < kInFlight) Issue();
    if (Lost() || in_flight_.empty()) return wrong;
    if (nbd_poll(nbd_.get(), -1) == -1 && !Lost()) return nbd_get_error();
    const std::string reaped = Reap();
    if (wrong.empty()) wrong = reaped;
  }
}

// Small and odd, sectors, or whole clusters of the disk, by a third each.
ByteRange RandomClient::RandomRange() {
  const uint64_t size = disk_.model().size();
  const uint64_t offset = random_.Below(size);
  switch (random_.Below(3)) {
    case 0:
      return {offset, random_.Between(1, std::min<uint64_t>(size - offset, 6000))};
    case 1: {
      const uint64_t sector = RoundDown(offset, kSectorSize);
      return {sector, std::min(random_.Between(1, 40) * kSectorSize, size - sector)};
    }
    default: {
      const uint64_t cluster = RoundDown(start_ + offset, kClusterSize);
      const uint64_t first = cluster < start_ ? 0 : cluster - start_;
      return {first, std::min(random_.Between(1, 2) * kClusterSize, size - first)};
    }
  }
}

void RandomClient::Issue() {
  const uint64_t id = issued_.fetch_add(1, std::memory_order_relaxed);
  Request& request = in_flight_[id];
  request.id = id;
  request.cookie = Send(request);
  // Not sent, or lost on the way: it may have been done or not.
  if (request.cookie == -1 && !Lost()) ADD_FAILURE() << nbd_get_error();
}

int64_t RandomClient::Send(Request& request) {
  nbd_handle* nbd = nbd_.get();
  const nbd_completion_callback none = {};
  ByteRange range = RandomRange();
  for (int tries = 0; tries < 20 && disk_.IsBusy(range.offset, range.length); tries++)
    range = RandomRange();
  const uint64_t kind = random_.Below(14);
  if (kind == 0 || disk_.IsBusy(range.offset, range.length)) {
    disk_.BeginFlush(request.id);
    const int64_t cookie = nbd_aio_flush(nbd, none, 0);
    flushes_issued_.fetch_add(1, std::memory_order_relaxed);
    return cookie;
  }
  const bool durable = random_.OneIn(20);
  const uint32_t fua = durable ? LIBNBD_CMD_FLAG_FUA : 0;
  const uint64_t offset = start_ + range.offset;
  if (kind <= 3) {
    disk_.BeginZero(request.id, range.offset, range.length, durable);
    if (kind == 1) return nbd_aio_trim(nbd, range.length, offset, none, fua);
    return nbd_aio_zero(nbd, range.length, offset, none,
                        fua | (kind == 2 ? LIBNBD_CMD_FLAG_NO_HOLE : 0));
  }
  request.data = random_.Bytes(range.length);
  disk_.BeginWrite(request.id, request.data, range.offset, durable);
  return nbd_aio_pwrite(nbd, request.data.data(), request.data.size(), offset, none, fua);
}

std::string RandomClient::Reap() {
  std::string wrong;
  for (auto it = in_flight_.begin(); it != in_flight_.end();) {
    const Request& request = it->second;
    const int done =
        nbd_aio_command_completed(nbd_.get(), static_cast<uint64_t>(request.cookie));
    if (done == 0 || (done == -1 && Lost())) {
      ++it;
      continue;
    }
    if (done == -1 && wrong.empty()) wrong = nbd_get_error();
    disk_.End(request.id, done == 1);
    it = in_flight_.erase(it);
  }
  return wrong;
}

}  // namespace addcow
