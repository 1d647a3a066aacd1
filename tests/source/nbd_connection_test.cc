// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One connection, with a server that is no more than what it has said already.

#include "common/source/nbd_connection.h"

#include <gtest/gtest.h>
#include <libnbd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>

#include "tests/support/expect.h"

namespace addcow {
namespace {

using std::chrono::minutes;

// The old handshake: the server says all of it first, and asks nothing.
std::string OldHandshake() {
  std::string bytes("NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53", 16);
  bytes += std::string("\x00\x00\x00\x00\x00\x10\x00\x00", 8);  // 1 MiB
  bytes += std::string("\x00\x00\x00\x03", 4);                  // flags: read only
  bytes += std::string(124, '\0');
  return bytes;
}

class Peer final : public NbdConnection::Peer {
 public:
  ~Peer() override {
    if (server_ >= 0) ::close(server_);
  }
  int Connect(nbd_handle* handle) override {
    std::array<int, 2> ends;
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    server_ = ends[1];
    const std::string handshake = OldHandshake();
    EXPECT_EQ(::write(server_, handshake.data(), handshake.size()),
              static_cast<ssize_t>(handshake.size()));
    return nbd_aio_connect_socket(handle, ends[0]);
  }
  Status Accept(nbd_handle*, const NbdExport& found) override {
    size = found.size;
    return {};
  }
  void Ready() override { ready = true; }
  void Lost(const Error& error) override { ADD_FAILURE() << error.Message(); }
  void Closing(nbd_handle*) override {}

  bool ready = false;
  uint64_t size = 0;

 private:
  int server_ = -1;
};

// Nothing more comes from a server that has said all: who waits for it waits in vain.
TEST(NbdConnectionTest, IsReadyWhereTheServerAnsweredAtOnce) {
  Peer peer;
  NbdConnection connection(peer, "here", minutes(5));
  const auto until = NbdConnection::Clock::now() + minutes(5);
  while (!peer.ready && NbdConnection::Clock::now() < until) connection.Run(until);
  EXPECT_TRUE(peer.ready);
  EXPECT_LT(NbdConnection::Clock::now(), until);
  EXPECT_EQ(peer.size, 1u << 20);
  connection.Close();
}

}  // namespace
}  // namespace addcow
