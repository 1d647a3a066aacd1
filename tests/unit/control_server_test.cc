// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/control: the socket, the server behind it and its client, with threads.

#include "common/control/control_server.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "common/control/control_client.h"
#include "tests/support/control_double.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"

namespace addcow {
namespace {

constexpr const char* kStatusLine = "{\"execute\": \"status\"}\n";
constexpr const char* kFlushLine = "{\"execute\": \"flush\"}\n";

// A peer that sends and reads what it likes, and waits for ever.
class Peer {
 public:
  explicit Peer(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    const auto address = SocketAddress(path);
    EXPECT_OK(address);
    EXPECT_EQ(
        ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address), 0);
  }

  void Say(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      ASSERT_GT(count, 0);
      bytes.remove_prefix(static_cast<size_t>(count));
    }
  }
  // What the system takes of it without waiting.
  void SayWhatGoes(std::string_view bytes) {
    (void)::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  void SayNoMore() { (void)::shutdown(fd_.get(), SHUT_WR); }

  // Empty: it was disconnected.
  std::string Hear() {
    for (;;) {
      if (const size_t end = input_.find('\n'); end != std::string::npos) {
        std::string line = input_.substr(0, end);
        input_.erase(0, end + 1);
        return line;
      }
      char buffer[4096];
      const ssize_t count = ::recv(fd_.get(), buffer, sizeof buffer, 0);
      if (count <= 0) return "";
      input_.append(buffer, static_cast<size_t>(count));
    }
  }

 private:
  UniqueFd fd_;
  std::string input_;
};

class ControlServerTest : public testing::Test {
 protected:
  void Start() {
    auto socket = ControlSocket::Listen(path_);
    ASSERT_OK(socket);
    socket_ = std::move(*socket);
    auto server = ControlServer::Start(*socket_, double_.Handlers());
    ASSERT_OK(server);
    server_ = std::move(*server);
  }
  void TearDown() override { double_.HoldFlushes(false); }

  const TempDir directory_;
  const std::string path_ = directory_ / "ctl";
  ControlDouble double_;
  std::unique_ptr<ControlSocket> socket_;
  std::unique_ptr<ControlServer> server_;
};

TEST(ControlSocket, IsForItsOwnerWhateverTheUmaskIs) {
  const TempDir directory;
  for (const mode_t mask : {0u, 022u, 077u, 0777u}) {
    const mode_t before = ::umask(mask);
    const auto socket = ControlSocket::Listen(directory / "ctl");
    ::umask(before);
    ASSERT_OK(socket);
    struct stat made = {};
    ASSERT_EQ(::lstat((directory / "ctl").c_str(), &made), 0);
    EXPECT_EQ(made.st_mode, static_cast<mode_t>(S_IFSOCK | 0600)) << mask;
  }
  EXPECT_FALSE(std::filesystem::exists(directory / "ctl"));
}

TEST(ControlSocket, ReplacesAStaleOneOnly) {
  const TempDir directory;
  const std::string path = directory / "ctl";
  {
    const UniqueFd left(::socket(AF_UNIX, SOCK_STREAM, 0));
    const auto address = SocketAddress(path);
    ASSERT_EQ(::bind(left.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address),
              0);
  }
  ASSERT_OK_AND_ASSIGN(const auto socket, ControlSocket::Listen(path));
  EXPECT_TRUE(FailsWith(ControlSocket::Listen(path), EADDRINUSE));
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST(ControlSocket, LeavesWhatIsNoSocketAlone) {
  const TempDir directory;
  std::ofstream(directory / "file") << "kept";
  EXPECT_TRUE(FailsWith(ControlSocket::Listen(directory / "file"), ENOTSOCK));
  EXPECT_TRUE(FailsWith(ControlSocket::Listen(directory.path()), ENOTSOCK));
  EXPECT_EQ(std::filesystem::file_size(directory / "file"), 4u);
}

// A stale one that it leads to is not removed either.
TEST(ControlSocket, LeavesASymbolicLinkAlone) {
  const TempDir directory;
  const std::string link = directory / "link";
  const std::string path = directory / "ctl";
  std::filesystem::create_symlink("ctl", link);
  EXPECT_TRUE(FailsWith(ControlSocket::Listen(link), ELOOP)) << "dangling";
  const auto address = SocketAddress(path);
  {
    const UniqueFd left(::socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(::bind(left.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address),
              0);
  }
  EXPECT_TRUE(FailsSaying(ControlSocket::Listen(link), "is a symbolic link"))
      << "to a stale one";
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_TRUE(std::filesystem::is_socket(path));
  ASSERT_OK_AND_ASSIGN(const auto socket, ControlSocket::Listen(path));
  EXPECT_TRUE(FailsWith(ControlSocket::Listen(link), ELOOP)) << "to one that is served";
}

TEST(ControlSocket, RefusesALongPathWithTheRemedy) {
  const std::string path = "/" + std::string(107, 'x');
  EXPECT_TRUE(FailsWith(ControlSocket::Listen(path), ENAMETOOLONG));
  EXPECT_TRUE(FailsSaying(ControlSocket::Listen(path), "is 108 bytes long"));
  EXPECT_OK(SocketAddress(path.substr(1)));
}

TEST(ControlSocket, RemovesOnlyItsOwn) {
  const TempDir directory;
  const std::string path = directory / "ctl";
  ASSERT_OK_AND_ASSIGN(auto first, ControlSocket::Listen(path));
  ASSERT_TRUE(std::filesystem::remove(path));
  ASSERT_OK_AND_ASSIGN(const auto second, ControlSocket::Listen(path));
  first.reset();
  EXPECT_TRUE(std::filesystem::exists(path));
}

// Of those that begin at once over a stale socket one gets it.
TEST(ControlSocket, TwoDoNotTakeTheSameName) {
  const TempDir directory;
  const std::string path = directory / "ctl";
  for (int round = 0; round < 20; round++) {
    {
      const UniqueFd left(::socket(AF_UNIX, SOCK_STREAM, 0));
      const auto address = SocketAddress(path);
      ASSERT_EQ(
          ::bind(left.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address), 0);
    }
    std::vector<std::unique_ptr<ControlSocket>> sockets(4);
    std::vector<std::thread> threads;
    for (auto& socket : sockets)
      threads.emplace_back([&] {
        if (auto made = ControlSocket::Listen(path)) socket = std::move(*made);
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(std::ranges::count_if(sockets, [](const auto& one) { return one != nullptr; }),
              1);
  }
}

TEST_F(ControlServerTest, AnswersManyAtOnce) {
  Start();
  double_.SetStatus({.size = 4711});
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; i++)
    threads.emplace_back([&] {
      for (int round = 0; round < 5; round++) {
        auto client = ControlClient::Connect(path_);
        ASSERT_OK(client);
        for (int asked = 0; asked < 20; asked++) {
          const auto status = client->GetStatus();
          ASSERT_OK(status);
          EXPECT_EQ(status->size, 4711u);
        }
        EXPECT_OK(client->Fill({.action = FillCommand::Action::kPause}));
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(double_.fills().size(), 40u);
}

TEST_F(ControlServerTest, SilentAndSlowOnesDisturbNobody) {
  Start();
  std::vector<std::unique_ptr<Peer>> silent;
  for (int i = 0; i < 20; i++) silent.push_back(std::make_unique<Peer>(path_));
  Peer half(path_);
  half.Say("{\"execute\": \"sta");
  // Asks without end, and never reads.
  Peer greedy(path_);
  std::string questions;
  for (int i = 0; i < 10000; i++) questions += kStatusLine;
  greedy.SayWhatGoes(questions);
  Peer loud(path_);
  loud.SayWhatGoes(std::string(1 << 20, 'x'));
  ASSERT_OK_AND_ASSIGN(auto client, ControlClient::Connect(path_));
  for (int i = 0; i < 100; i++) EXPECT_OK(client.GetStatus());
  half.Say("tus\"}\n");
  EXPECT_TRUE(half.Hear().starts_with("{\"return\""));
}

TEST_F(ControlServerTest, AFlushHoldsUpNobodyElse) {
  Start();
  double_.HoldFlushes(true);
  Peer flushes(path_);
  flushes.Say(kFlushLine);
  flushes.Say(kStatusLine);
  double_.WaitForFlush();
  ASSERT_OK_AND_ASSIGN(auto client, ControlClient::Connect(path_));
  EXPECT_OK(client.GetStatus());
  // All who come meanwhile share one more.
  std::vector<std::unique_ptr<Peer>> others;
  for (int i = 0; i < 5; i++) {
    others.push_back(std::make_unique<Peer>(path_));
    others.back()->Say(kFlushLine);
  }
  EXPECT_OK(client.GetStatus());
  EXPECT_EQ(double_.flushes(), 1);
  double_.HoldFlushes(false);
  EXPECT_EQ(flushes.Hear(), "{\"return\":{}}");
  EXPECT_NE(flushes.Hear().find("version"), std::string::npos);
  for (const auto& peer : others) EXPECT_EQ(peer->Hear(), "{\"return\":{}}");
  EXPECT_LE(double_.flushes(), 6);
}

TEST_F(ControlServerTest, AFlushThatFailsSaysWhy) {
  Start();
  double_.Fail("no room");
  Peer peer(path_);
  peer.Say(kFlushLine);
  EXPECT_EQ(peer.Hear(), "{\"error\":{\"class\":\"Failed\",\"desc\":\"x.add-cow: no room\"}}");
}

TEST_F(ControlServerTest, WhoSaysNoMoreIsAnswered) {
  Start();
  Peer peer(path_);
  peer.Say(std::string(kFlushLine) + kStatusLine);
  peer.SayNoMore();
  EXPECT_EQ(peer.Hear(), "{\"return\":{}}");
  EXPECT_NE(peer.Hear().find("version"), std::string::npos);
  EXPECT_EQ(peer.Hear(), "");
}

TEST_F(ControlServerTest, SaysGoodbye) {
  Start();
  double_.SetStatus(WithFill(FillState::kDone));
  ASSERT_OK_AND_ASSIGN(auto client, ControlClient::Connect(path_));
  EXPECT_OK(client.GetStatus());
  server_.reset();
  EXPECT_TRUE(FailsWith(client.GetStatus(), ECONNRESET));
  ASSERT_TRUE(client.last().has_value());
  EXPECT_EQ(client.last()->fill.state, FillState::kDone);
  socket_.reset();
  EXPECT_TRUE(FailsWith(ControlClient::Connect(path_), ENOENT));
}

TEST_F(ControlServerTest, EndsWithAFlushAndPeersThatDoNotRead) {
  Start();
  Peer greedy(path_);
  std::string questions;
  for (int i = 0; i < 10000; i++) questions += kStatusLine;
  greedy.SayWhatGoes(questions);
  double_.HoldFlushes(true);
  Peer flushes(path_);
  flushes.Say(kFlushLine);
  double_.WaitForFlush();
  std::thread ends([&] { server_.reset(); });
  EXPECT_NE(flushes.Hear().find("\"stop\""), std::string::npos);
  double_.HoldFlushes(false);
  ends.join();
}

TEST(ControlClient, SaysWhatIsWrongWithTheSocket) {
  const TempDir directory;
  EXPECT_TRUE(FailsSaying(ControlClient::Connect(directory / "none"), "control="));
  std::ofstream(directory / "file") << "x";
  EXPECT_TRUE(FailsWith(ControlClient::Connect(directory / "file"), ENOTSOCK));
  const auto address = SocketAddress(directory / "left");
  const UniqueFd left(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(::bind(left.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address),
            0);
  EXPECT_TRUE(FailsWith(ControlClient::Connect(directory / "left"), ECONNREFUSED));
  ASSERT_EQ(::listen(left.get(), 1), 0);
  ASSERT_OK_AND_ASSIGN(
      auto client, ControlClient::Connect(directory / "left", std::chrono::milliseconds(20)));
  EXPECT_TRUE(FailsWith(client.GetStatus(), ETIMEDOUT));
}

// Which says something and then waits for its client.
TEST(ControlClient, KnowsAnNbdServer) {
  const TempDir directory;
  const auto address = SocketAddress(directory / "sock");
  const UniqueFd server(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(::bind(server.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address),
            0);
  ASSERT_EQ(::listen(server.get(), 1), 0);
  ASSERT_OK_AND_ASSIGN(auto client, ControlClient::Connect(directory / "sock"));
  const UniqueFd peer(::accept(server.get(), nullptr, nullptr));
  ASSERT_EQ(::send(peer.get(), "NBDMAGICIHAVEOPT\0\3", 18, MSG_NOSIGNAL), 18);
  EXPECT_TRUE(FailsSaying(client.GetStatus(), "by which clients use the disk"));
}

}  // namespace
}  // namespace addcow
