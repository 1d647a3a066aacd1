// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Several connections, many requests in flight on each, random kinds and odd
// offsets, against a shadow of the disk.
//
// The disk is cut into stripes of 3001 bytes, which share clusters, sectors
// and words with their neighbours. A stripe belongs to one connection, with
// at most one request in flight, so its content is known at every moment,
// whatever is done to the rest of its cluster.

#include <thread>

#include "tests/nbd/server.h"
#include "tests/support/random.h"
#include "tests/support/reference_disk.h"

namespace addcow {
namespace {

constexpr uint64_t kStripe = 3001;
constexpr uint64_t kConnections = 4;
constexpr size_t kInFlight = 24;

struct Request {
  int64_t cookie = -1;
  uint64_t stripe = 0;
  uint64_t offset = 0;
  bool is_read = false;
  std::vector<std::byte> buffer;  // what is written, or room for what is read
};

class Client {
 public:
  Client(NbdHandle nbd, ReferenceDisk& disk, uint64_t index, uint64_t seed)
      : nbd_(std::move(nbd)), disk_(disk), index_(index), random_(seed) {}

  // Runs `count` requests to their end. Empty, or the first thing wrong.
  std::string Run(uint64_t count) {
    std::string wrong;
    for (uint64_t issued = 0; (issued < count && wrong.empty()) || !in_flight_.empty();) {
      // Also after a failure: what is in flight has to come back.
      while (wrong.empty() && issued < count && in_flight_.size() < kInFlight) {
        wrong = Issue();
        issued++;
      }
      if (in_flight_.empty()) break;
      if (nbd_poll(nbd_.get(), -1) == -1) return nbd_get_error();
      const std::string reaped = Reap();
      if (wrong.empty()) wrong = reaped;
    }
    if (wrong.empty() && nbd_flush(nbd_.get(), 0) == -1) wrong = nbd_get_error();
    return wrong;
  }

 private:
  uint64_t FreeStripe() {
    const uint64_t stripes = DivideUp(disk_.size(), kStripe);
    for (;;) {
      const uint64_t stripe = random_.Below(stripes);
      const bool busy = std::any_of(in_flight_.begin(), in_flight_.end(),
                                    [&](const auto& r) { return r->stripe == stripe; });
      if (stripe % kConnections == index_ && !busy) return stripe;
    }
  }

  std::string Issue() {
    auto request = std::make_unique<Request>();
    request->stripe = FreeStripe();
    const uint64_t start = request->stripe * kStripe;
    const uint64_t room = std::min(kStripe, disk_.size() - start);
    const uint64_t skip = random_.Below(room);
    const uint64_t length = random_.Between(1, room - skip);
    request->offset = start + skip;
    request->buffer = random_.Bytes(length);
    const uint32_t fua = random_.OneIn(50) ? LIBNBD_CMD_FLAG_FUA : 0;
    nbd_completion_callback none = {};
    nbd_handle* nbd = nbd_.get();
    void* data = request->buffer.data();
    switch (random_.Below(10)) {
      case 0:
        request->cookie = nbd_aio_trim(nbd, length, request->offset, none, fua);
        disk_.Zero(request->offset, length);
        break;
      case 1:
        request->cookie = nbd_aio_zero(nbd, length, request->offset, none, fua);
        disk_.Zero(request->offset, length);
        break;
      case 2:
        request->cookie =
            nbd_aio_zero(nbd, length, request->offset, none, fua | LIBNBD_CMD_FLAG_NO_HOLE);
        disk_.Zero(request->offset, length);
        break;
      case 3:
      case 4:
      case 5:
      case 6:
        request->cookie = nbd_aio_pwrite(nbd, data, length, request->offset, none, fua);
        disk_.Write(request->buffer, request->offset);
        break;
      default:
        request->cookie = nbd_aio_pread(nbd, data, length, request->offset, none, 0);
        request->is_read = true;
    }
    if (request->cookie == -1) return nbd_get_error();
    in_flight_.push_back(std::move(request));
    return "";
  }

  std::string Reap() {
    std::string wrong;
    for (auto it = in_flight_.begin(); it != in_flight_.end();) {
      const Request& request = **it;
      const int done =
          nbd_aio_command_completed(nbd_.get(), static_cast<uint64_t>(request.cookie));
      if (done == 0) {
        ++it;
        continue;
      }
      if (done == -1 && wrong.empty()) wrong = nbd_get_error();
      if (done == 1 && request.is_read && wrong.empty())
        wrong = disk_.Check(request.buffer, request.offset);
      it = in_flight_.erase(it);
    }
    return wrong;
  }

  NbdHandle nbd_;
  ReferenceDisk& disk_;
  const uint64_t index_;
  Random random_;
  std::vector<std::unique_ptr<Request>> in_flight_;
};

class ParallelNbdTest : public NbdTest, public testing::WithParamInterface<ImageSpec> {};

TEST_P(ParallelNbdTest, EveryRequestSeesAndLeavesTheRightBytes) {
  MakeImage(GetParam());
  StartServer();
  ReferenceDisk disk(contents_);
  std::vector<std::string> wrong(kConnections);
  {
    std::vector<std::unique_ptr<Client>> clients;
    for (uint64_t i = 0; i < kConnections; i++)
      clients.push_back(std::make_unique<Client>(Connect(), disk, i, TestSeed() + i));
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < kConnections; i++)
      threads.emplace_back([&, i] { wrong[i] = clients[i]->Run(2000); });
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(wrong, std::vector<std::string>(kConnections));
  {
    const NbdHandle nbd = Connect();
    EXPECT_EQ(disk.Check(NbdRead(nbd.get(), 0, disk.size()), 0), "");
  }
  StopServer();
  EXPECT_EQ(disk.Check(ReadFromFiles(), 0), "");
}

std::string SpecName(const testing::TestParamInfo<ImageSpec>& spec) {
  constexpr const char* kNames[] = {"SameSize", "ShortBacking", "LongSparseBacking"};
  return kNames[spec.index];
}

INSTANTIATE_TEST_SUITE_P(
    Images, ParallelNbdTest,
    testing::Values(
        ImageSpec{.size = 64 * kClusterSize, .backing_size = 64 * kClusterSize},
        ImageSpec{.size = 100 * kClusterSize + 777, .backing_size = 40 * kClusterSize + 333},
        ImageSpec{.size = 50 * kClusterSize,
                  .backing_size = 60 * kClusterSize,
                  .backing_data = {{{5 * kClusterSize + 4096, 30 * kClusterSize}}}}),
    SpecName);

}  // namespace
}  // namespace addcow
