// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See scripted_server.h.

#include "tests/source/scripted_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace addcow {

namespace {

// What the protocol calls them.
constexpr uint32_t kOptGo = 7;
constexpr uint32_t kOptStructuredReply = 8;
constexpr uint32_t kOptSetMetaContext = 10;
constexpr uint32_t kRepAck = 1;
constexpr uint32_t kRepInfo = 3;
constexpr uint32_t kRepMetaContext = 4;
constexpr uint32_t kRepUnsupported = 0x80000001;
constexpr uint32_t kContext = 42;

// Big-endian.
template <typename T>
std::string Big(T value) {
  std::string text;
  for (size_t i = sizeof(T); i-- > 0;)
    text += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
  return text;
}
uint64_t FromBig(const std::string& text, size_t at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; i++)
    value = value << 8 | static_cast<unsigned char>(text[at + i]);
  return value;
}

void Write(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t count = ::send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (count <= 0) return;
    at += static_cast<size_t>(count);
  }
}
bool Read(int fd, size_t bytes, std::string& text) {
  text.assign(bytes, '\0');
  for (size_t at = 0; at < bytes;) {
    const ssize_t count = ::recv(fd, text.data() + at, bytes - at, 0);
    if (count <= 0) return false;
    at += static_cast<size_t>(count);
  }
  return true;
}

}  // namespace

void ScriptedServer::Client::Chunk(const Request& request, uint16_t type, bool last,
                                   const std::string& payload) {
  Write(fd_, Big<uint32_t>(0x668e33ef) + Big<uint16_t>(last ? 1 : 0) + Big(type) +
                 Big(request.cookie) + Big(static_cast<uint32_t>(payload.size())) + payload);
}
void ScriptedServer::Client::Data(const Request& request, uint64_t offset, uint32_t length,
                                  char byte, bool last) {
  Chunk(request, 1, last, Big(offset) + std::string(length, byte));
}
void ScriptedServer::Client::Blocks(const Request& request,
                                    const std::vector<std::pair<uint32_t, uint32_t>>& all) {
  std::string payload = Big(kContext);
  for (const auto& [length, flags] : all) payload += Big(length) + Big(flags);
  Chunk(request, 5, true, payload);
}
void ScriptedServer::Client::Error(const Request& request, uint32_t code) {
  Chunk(request, 32769, true, Big(code) + Big<uint16_t>(0));
}
void ScriptedServer::Client::End(const Request& request) { Chunk(request, 0, true, ""); }

ScriptedServer::ScriptedServer(const std::string& path, ScriptedExport what, Script script)
    : what_(what), script_(std::move(script)) {
  ::sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  ::unlink(path.c_str());
  listening_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::bind(listening_, reinterpret_cast<::sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(listening_, 16), 0);
  accepting_ = std::thread([this] { Accept(); });
}

ScriptedServer::~ScriptedServer() {
  ::shutdown(listening_, SHUT_RDWR);
  accepting_.join();
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    for (const int fd : fds_) ::shutdown(fd, SHUT_RDWR);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  MutexLock lock(mutex_);
  for (const int fd : fds_) ::close(fd);
  ::close(listening_);
}

void ScriptedServer::Client::Hang() const {
  std::string text;
  while (Read(fd_, 1, text)) {
  }
}

void ScriptedServer::Accept() {
  for (;;) {
    const int fd = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd == -1) return;
    MutexLock lock(mutex_);
    fds_.push_back(fd);
    threads_.emplace_back([this, fd] { Serve(fd); });
  }
}

bool ScriptedServer::Greet(Client& client) {
  const int fd = client.fd();
  std::string text;
  Write(fd, "NBDMAGICIHAVEOPT" + Big<uint16_t>(3));
  if (!Read(fd, 4, text)) return false;
  for (;;) {
    if (!Read(fd, 16, text)) return false;
    const auto option = static_cast<uint32_t>(FromBig(text, 8, 4));
    if (!Read(fd, FromBig(text, 12, 4), text)) return false;
    const auto reply = [&](uint32_t type, const std::string& payload) {
      Write(fd, Big<uint64_t>(0x3e889045565a9) + Big(option) + Big(type) +
                    Big(static_cast<uint32_t>(payload.size())) + payload);
    };
    if (option == kOptSetMetaContext) {
      reply(kRepMetaContext, Big(kContext) + "base:allocation");
      reply(kRepAck, "");
    } else if (option == kOptStructuredReply) {
      reply(kRepAck, "");
    } else if (option == kOptGo) {
      const auto flags = static_cast<uint16_t>(1 | 2 | (what_.multi_conn ? 1 << 8 : 0));
      reply(kRepInfo, Big<uint16_t>(0) + Big(what_.size) + Big(flags));
      if (what_.minimum != 0)
        reply(kRepInfo, Big<uint16_t>(3) + Big(what_.minimum) + Big<uint32_t>(65536) +
                            Big(what_.maximum));
      reply(kRepAck, "");
      return true;
    } else {
      reply(kRepUnsupported, "");
    }
  }
}

void ScriptedServer::Serve(int fd) {
  Client client(fd);
  std::string text;
  if (Greet(client))
    while (Read(fd, 28, text)) {
      const Request request{.type = static_cast<uint16_t>(FromBig(text, 6, 2)),
                            .cookie = FromBig(text, 8, 8),
                            .offset = FromBig(text, 16, 8),
                            .length = static_cast<uint32_t>(FromBig(text, 24, 4))};
      constexpr uint16_t kDisconnect = 2;
      if (request.type == kDisconnect || !script_(client, request)) break;
    }
  ::shutdown(fd, SHUT_RDWR);
}

}  // namespace addcow
