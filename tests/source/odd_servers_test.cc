// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NbdSource against servers that break the protocol, hang or have odd sizes.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "common/base/interrupted.h"
#include "common/base/units.h"
#include "common/source/nbd_source.h"
#include "common/source/nbd_uri.h"
#include "tests/source/scripted_server.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"

namespace addcow {
namespace {

using Client = ScriptedServer::Client;
using Request = ScriptedServer::Request;
using std::chrono::seconds;
using std::chrono::steady_clock;

class OddServerTest : public testing::Test {
 protected:
  void TearDown() override {
    source_.reset();
    server_.reset();
  }
  // All is data where the script does not answer itself.
  void Serve(ScriptedExport what, ScriptedServer::Script script) {
    const std::string path = directory_.path() + "/odd.sock";
    server_ = std::make_unique<ScriptedServer>(path, what, std::move(script));
    ASSERT_OK_AND_ASSIGN(source_, NbdSource::Open(ServerOfUri("nbd+unix:///?socket=" + path),
                                                  {.timeout = seconds(5), .log = {}}));
    ASSERT_OK(source_->Start());
  }
  Status Read(uint64_t offset, size_t length, std::vector<std::byte>& bytes) {
    bytes.assign(length, std::byte{0xee});
    return source_->Read(bytes, offset);
  }

  TempDir directory_;
  std::unique_ptr<ScriptedServer> server_;
  std::unique_ptr<NbdSource> source_;
};

bool AllIsData(Client& client, const Request& request) {
  client.Blocks(request, {{request.length, 0}});
  return true;
}

// What was not sent must not be taken for what the disk holds.
TEST_F(OddServerTest, AReplyThatEndsEarlyIsAnError) {
  Serve({}, [](Client& client, const Request& request) {
    if (request.type == ScriptedServer::kBlockStatus) return AllIsData(client, request);
    if (request.offset == 0)
      client.End(request);
    else
      client.Data(request, request.offset, request.length / 2, 'x', true);
    return true;
  });
  std::vector<std::byte> bytes;
  for (const uint64_t offset : {uint64_t{0}, 64 * kKiB}) {
    const Status read = Read(offset, 4096, bytes);
    EXPECT_TRUE(FailsWith(read, EIO)) << offset;
    EXPECT_TRUE(FailsSaying(read, "Protocol error")) << offset;
  }
}

// In any order, and with what lies between told as a hole.
TEST_F(OddServerTest, AReplyInPiecesIsRead) {
  Serve({}, [](Client& client, const Request& request) {
    if (request.type == ScriptedServer::kBlockStatus) return AllIsData(client, request);
    client.Data(request, request.offset + 1024, request.length - 1024, 'b', false);
    client.Data(request, request.offset, 1024, 'a', true);
    return true;
  });
  std::vector<std::byte> bytes;
  ASSERT_OK(Read(512, 4096, bytes));
  EXPECT_EQ(std::ranges::count(bytes, std::byte{'a'}), 1024);
  EXPECT_EQ(std::ranges::count(bytes, std::byte{'b'}), 3072);
}

// Cut and rounded by the server's sizes, with zeroes among them, and one that fails: of each
// that is there it is told once.
TEST_F(OddServerTest, OfSeveralPiecesItIsToldWhichAreThere) {
  constexpr uint64_t kBroken = 700 * kKiB;
  Serve({.minimum = 4096, .maximum = 64 * kKiB}, [](Client& client, const Request& request) {
    const uint64_t end = request.offset + request.length;
    if (request.type == ScriptedServer::kBlockStatus)
      client.Blocks(request,
                    {{512 * kKiB, 0}, {64 * kKiB, 3}, {request.length - 576 * kKiB, 0}});
    else if (request.offset <= kBroken && kBroken < end)
      client.Error(request, EIO);
    else
      client.Data(request, request.offset, request.length, 'x', true);
    return true;
  });
  ASSERT_OK(source_->RunAt(0, kMiB));
  struct {
    uint64_t offset;
    size_t length;
    int64_t zeroes;
    bool there;
  } const kPieces[] = {{0, 256 * kKiB, 0, true},
                       {300 * kKiB + 7, 100, 0, true},
                       {400 * kKiB, 200 * kKiB, 64 * kKiB, true},
                       {520 * kKiB, 4096, 4096, true},
                       {690 * kKiB, 100 * kKiB, 0, false},
                       {900 * kKiB, 4096, 0, true}};
  std::vector<std::vector<std::byte>> bytes;
  std::vector<Source::Piece> pieces;
  for (const auto& piece : kPieces) {
    bytes.emplace_back(piece.length, std::byte{0xee});
    pieces.push_back({bytes.back(), piece.offset});
  }
  std::mutex mutex;
  std::map<size_t, int> told;
  EXPECT_TRUE(FailsWith(source_->ReadPieces(pieces,
                                            [&](size_t index) {
                                              const std::lock_guard lock(mutex);
                                              told[index]++;
                                            }),
                        EIO));
  for (size_t i = 0; i < std::size(kPieces); i++) {
    // One that is rounded is told of at the end, if all are there.
    const bool rounded = kPieces[i].offset % 4096 != 0;
    EXPECT_EQ(told[i], kPieces[i].there && !rounded ? 1 : 0) << i;
    if (told[i] == 0) continue;
    EXPECT_EQ(std::ranges::count(bytes[i], std::byte{0}), kPieces[i].zeroes) << i;
    EXPECT_EQ(std::ranges::count(bytes[i], std::byte{'x'}),
              std::ssize(bytes[i]) - kPieces[i].zeroes)
        << i;
  }
  told.clear();
  pieces.erase(pieces.begin() + 4);
  ASSERT_OK(source_->ReadPieces(pieces, [&](size_t index) {
    const std::lock_guard lock(mutex);
    told[index]++;
  }));
  for (size_t i = 0; i < pieces.size(); i++) EXPECT_EQ(told[i], 1) << i;
}

// The last of its blocks is not whole.
TEST_F(OddServerTest, AnExportThatEndsBetweenItsBlocksIsReadToTheEnd) {
  Serve({.size = kMiB + 100, .minimum = 512}, [](Client& client, const Request& request) {
    if (request.type == ScriptedServer::kBlockStatus)
      client.Blocks(request, {{512, 0}, {request.length - 512, request.offset == 0 ? 3u : 0u}});
    else
      client.Data(request, request.offset, request.length, 'x', true);
    return true;
  });
  std::vector<std::byte> bytes;
  ASSERT_OK(Read(kMiB - 1000, 1100, bytes));
  EXPECT_EQ(std::ranges::count(bytes, std::byte{'x'}), 1100);
  ASSERT_OK_AND_ASSIGN(const DataRun run, source_->RunAt(0, kMiB + 100));
  EXPECT_EQ(run.end, 512u);
}

// Also where it says so in more pieces than are kept of one answer.
TEST_F(OddServerTest, AnAnswerOfManyBlocksIsUsedToTheEnd) {
  std::atomic<int> asked = 0;
  Serve({.size = 64 * kMiB}, [&asked](Client& client, const Request& request) {
    asked++;
    std::vector<std::pair<uint32_t, uint32_t>> all;
    for (uint64_t at = request.offset; at < request.offset + request.length; at += 512)
      all.emplace_back(512, at / 512 % 2 == 0 ? 0 : 3);
    client.Blocks(request, all);
    return true;
  });
  ASSERT_OK_AND_ASSIGN(const DataRun first, source_->RunAt(0, 64 * kMiB));
  EXPECT_TRUE(first.data);
  EXPECT_EQ(first.end, 512u);
  ASSERT_OK_AND_ASSIGN(const DataRun last, source_->RunAt(64 * kMiB - 512, 64 * kMiB));
  EXPECT_FALSE(last.data);
  EXPECT_EQ(asked, 2);
}

TEST_F(OddServerTest, WhoIsInterruptedDoesNotWaitForTheTimeout) {
  const std::string path = directory_.path() + "/odd.sock";
  const auto open = [&](Interrupted interrupted) {
    return NbdSource::Open(
        ServerOfUri("nbd+unix:///?socket=" + path),
        {.timeout = std::chrono::hours(1), .log = {}, .interrupted = std::move(interrupted)});
  };
  server_ = std::make_unique<ScriptedServer>(path, ScriptedExport{},
                                             [](Client& client, const Request&) {
                                               client.Hang();
                                               return true;
                                             });
  for (const bool started : {false, true}) {
    std::atomic<bool> interrupted = false;
    ASSERT_OK_AND_ASSIGN(source_, open([&] { return interrupted.load(); }));
    if (started) {
      ASSERT_OK(source_->Start());
    }
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      interrupted = true;
    });
    std::vector<std::byte> bytes;
    EXPECT_TRUE(FailsWith(Read(0, 512, bytes), kErrInterrupted)) << started;
    EXPECT_TRUE(FailsWith(Read(0, 512, bytes), kErrInterrupted)) << started;
    other.join();
    source_.reset();
  }
  server_.reset();
  EXPECT_TRUE(FailsWith(open([] { return true; }), kErrInterrupted));
}

// In one line, with the server's name once.
TEST_F(OddServerTest, AReadThatFailsNamesTheServerOnce) {
  Serve({}, [](Client&, const Request&) { return false; });
  std::vector<std::byte> bytes;
  const Status read = Read(0, 512, bytes);
  ASSERT_TRUE(FailsWith(read, EIO));
  const std::string message = read.error().Message();
  EXPECT_EQ(message.find("nbd+unix"), message.rfind("nbd+unix")) << message;
}

// Nobody's turn to ask begins when the time of another one is over.
TEST_F(OddServerTest, ReadersWaitTogetherForWhatNobodyAnswers) {
  Serve({}, [](Client& client, const Request&) {
    client.Hang();
    return false;
  });
  const auto before = steady_clock::now();
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 6; i++)
    threads.emplace_back([this, i] {
      std::vector<std::byte> bytes;
      EXPECT_TRUE(FailsWith(Read(i * 4096, 4096, bytes), EIO));
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_LT(steady_clock::now() - before, seconds(25));
}

}  // namespace
}  // namespace addcow
