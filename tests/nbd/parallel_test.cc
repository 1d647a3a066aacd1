// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Several connections, many requests in flight on each, of every kind and at
// odd offsets, against a shadow of the disk; the background flush is on.
//
// The disk is cut into stripes of 3001 bytes, which share clusters, sectors
// and words with their neighbours. A stripe belongs to one connection, with
// at most one request in flight, so its content is known at every moment,
// whatever is done to the rest of its cluster. That goes for extents as well:
// what is reported to read as zeroes must be zero in the shadow. In half of the rounds
// the server keeps what it reads (copy-on-read).
//
// Rounds, as in tests/stress. ADDCOW_STRESS_SECONDS is the time for all tests;
// without it each does one round.

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "common/base/zero_bytes.h"
#include "tests/nbd/server.h"
#include "tests/support/forms.h"
#include "tests/support/random.h"
#include "tests/support/reference_disk.h"

namespace addcow {
namespace {

constexpr uint64_t kStripe = 3001;
constexpr uint64_t kConnections = 8;
constexpr uint64_t kRequests = 1000;  // of a connection in a round
constexpr size_t kInFlight = 24;

struct Request {
  int64_t cookie = -1;
  uint64_t stripe = UINT64_MAX;  // none: it has no content to check
  uint64_t offset = 0;
  bool is_read = false;
  std::vector<std::byte> buffer;  // what is written, or room for what is read
  std::string wrong;              // found by a callback
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
    const uint64_t stripe = FreeStripe();
    const uint64_t start = stripe * kStripe;
    const uint64_t room = std::min(kStripe, disk_.size() - start);
    const uint64_t skip = random_.OneIn(4) ? 0 : random_.Below(room);
    const uint64_t length = random_.OneIn(4) ? room - skip : random_.Between(1, room - skip);
    request->offset = start + skip;
    request->buffer = random_.Bytes(length);
    const uint32_t fua = random_.OneIn(100) ? LIBNBD_CMD_FLAG_FUA : 0;
    nbd_completion_callback none = {};
    nbd_handle* nbd = nbd_.get();
    void* data = request->buffer.data();
    const uint64_t kind = random_.Below(100);
    if (kind == 0) {  // neither has anything to do with a stripe
      request->cookie = nbd_aio_flush(nbd, none, 0);
    } else if (kind < 4) {
      const uint64_t offset = random_.Below(disk_.size());
      // With copy-on-read, all of it would be all there is to be allocated.
      const uint64_t most = random_.OneIn(20) ? UINT64_MAX : 100'000;
      request->cookie =
          nbd_aio_cache(nbd, std::min(disk_.size() - offset, most), offset, none, 0);
    } else {
      request->stripe = stripe;
      if (kind < 15) {
        nbd_extent_callback callback = {};
        callback.callback = CheckExtents;
        callback.user_data = request.get();
        const uint32_t one = random_.OneIn(3) ? LIBNBD_CMD_FLAG_REQ_ONE : 0;
        request->cookie =
            nbd_aio_block_status(nbd, length, request->offset, callback, none, one);
        // What the disk has there, for the callback.
        std::ranges::copy(disk_.Range(request->offset, length), request->buffer.begin());
      } else if (kind < 25) {
        request->cookie = nbd_aio_trim(nbd, length, request->offset, none, fua);
        disk_.Zero(request->offset, length);
      } else if (kind < 40) {
        const uint32_t keep = random_.OneIn(2) ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
        request->cookie = nbd_aio_zero(nbd, length, request->offset, none, fua | keep);
        disk_.Zero(request->offset, length);
      } else if (kind < 70) {
        request->cookie = nbd_aio_pwrite(nbd, data, length, request->offset, none, fua);
        disk_.Write(request->buffer, request->offset);
      } else {
        request->cookie = nbd_aio_pread(nbd, data, length, request->offset, none, 0);
        request->is_read = true;
      }
    }
    if (request->cookie == -1) return nbd_get_error();
    in_flight_.push_back(std::move(request));
    return "";
  }

  // libnbd calls it with the extents of one reply: pairs of length and flags.
  static int CheckExtents(void* user_data, const char*, uint64_t offset, uint32_t* entries,
                          size_t count, int*) {
    Request& request = *static_cast<Request*>(user_data);
    const uint64_t end = request.offset + request.buffer.size();
    if (count == 0) request.wrong = "no extent";
    for (size_t i = 0; i + 1 < count; i += 2) {
      const uint64_t extent_end = offset + entries[i];
      const uint64_t stop = std::min(extent_end, end);
      if ((entries[i + 1] & LIBNBD_STATE_ZERO) != 0 && offset < stop &&
          !IsZero(std::span(request.buffer).subspan(offset - request.offset, stop - offset)))
        request.wrong = "reported as zero, but is data: offset " + std::to_string(offset) +
                        ", length " + std::to_string(stop - offset);
      offset = extent_end;
    }
    return 0;
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
      if (wrong.empty()) wrong = request.wrong;
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

class ParallelNbdTest : public NbdTest, public testing::WithParamInterface<ImageSpec> {
 protected:
  void Round(uint64_t seed) {
    for (const char* name : {"/x.add-cow", "/disk.raw", "/base.img"})
      std::filesystem::remove(directory_ + name);
    MakeImage(GetParam());
    StartServer({}, {"sync-interval=1", seed % 3 == 0 ? "subclusters=off" : "subclusters=on",
                     seed / kConnections % 2 == 0 ? "copy-on-read=on" : "copy-on-read=off",
                     seed / kConnections % 5 == 0 ? "fetch-size=4k" : "fetch-size=256k"});
    if (HasFatalFailure()) return;
    ReferenceDisk disk(contents_);
    std::vector<std::string> wrong(kConnections);
    {
      std::vector<std::unique_ptr<Client>> clients;
      for (uint64_t i = 0; i < kConnections; i++)
        clients.push_back(std::make_unique<Client>(Connect(), disk, i, seed + i));
      std::vector<std::thread> threads;
      for (uint64_t i = 0; i < kConnections; i++)
        threads.emplace_back([&, i] { wrong[i] = clients[i]->Run(kRequests); });
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
};

TEST_P(ParallelNbdTest, EveryRequestSeesAndLeavesTheRightBytes) {
  using Clock = std::chrono::steady_clock;
  const auto tests =
      static_cast<uint64_t>(testing::UnitTest::GetInstance()->test_to_run_count());
  const auto end =
      Clock::now() +
      std::chrono::milliseconds(EnvironmentNumber("ADDCOW_STRESS_SECONDS", 0) * 1000 / tests);
  uint64_t rounds = 0;
  do {
    Round(TestSeed() + kConnections * rounds++);
  } while (Clock::now() < end && !HasFailure());
  std::printf("# %llu requests in %llu rounds\n",
              static_cast<unsigned long long>(rounds * kConnections * kRequests),
              static_cast<unsigned long long>(rounds));
}

std::string SpecName(const testing::TestParamInfo<ImageSpec>& spec) {
  constexpr const char* kNames[] = {"SameSize",         "ShortBacking", "LongSparseBacking",
                                    "FoundSubclusters", "Clusters4k",   "Clusters2M"};
  return kNames[spec.index];
}

INSTANTIATE_TEST_SUITE_P(
    Images, ParallelNbdTest,
    testing::Values(ImageSpec{.size = 64 * kClusterSize, .backing_size = 64 * kClusterSize},
                    ImageSpec{.size = 100 * kClusterSize + 777,
                              .backing_size = 40 * kClusterSize + 333},
                    ImageSpec{.size = 50 * kClusterSize,
                              .backing_size = 60 * kClusterSize,
                              .backing_data = {{{5 * kClusterSize + 4096, 30 * kClusterSize}}}},
                    ImageSpec{.size = 30 * kClusterSize + 5000,
                              .backing_size = 30 * kClusterSize,
                              .allocated = {3},
                              .subclusters = {1, 2, 30, 50, 51, 200}},
                    InForm({.size = 40 * kClusterSize + 777,
                            .backing_size = 30 * kClusterSize,
                            .allocated = {1, 2, 30, 50, 51, 200}},
                           k4kForm),
                    InForm({.size = 2 * kMostClusterSize + 5 * kClusterSize + 777,
                            .backing_size = 2 * kMostClusterSize,
                            .allocated = {2},
                            .subclusters = {1, 2, 30, 50, 51, 200}},
                           k2MForm)),
    SpecName);

}  // namespace
}  // namespace addcow
