// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See base_server.h.

#include "tests/source/base_server.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

extern char** environ;

namespace addcow {

namespace {

bool Listens(const std::string& path) {
  ::sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool listens =
      ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return listens;
}

}  // namespace

BaseServer::~BaseServer() {
  if (server_ > 0) Kill();
}

void BaseServer::Spawn(std::vector<std::string> words) {
  ASSERT_LE(server_, 0);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::filesystem::remove(socket());
  ASSERT_EQ(::posix_spawnp(&server_, arguments[0], nullptr, nullptr, arguments.data(), environ),
            0);
  while (!Listens(socket())) {
    int status = 0;
    if (::waitpid(server_, &status, WNOHANG) == server_) {
      server_ = -1;
      FAIL() << words[0] << " ended at once, wait status " << status;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void BaseServer::Start(const std::vector<std::string>& words) {
  std::vector<std::string> all = {"nbdkit", "-f", "-U", socket()};
  all.insert(all.end(), words.begin(), words.end());
  Spawn(std::move(all));
}

void BaseServer::StartQemu(const std::string& file) {
  Spawn({"qemu-nbd", "--read-only", "--persistent", "--shared=8", "--format=raw",
         "--socket=" + socket(), file});
}

void BaseServer::Kill() {
  ASSERT_GT(server_, 0);
  ASSERT_EQ(::kill(server_, SIGKILL), 0);
  ASSERT_EQ(::waitpid(server_, nullptr, 0), server_);
  server_ = -1;
}

void BaseServer::Freeze() { ASSERT_EQ(::kill(server_, SIGSTOP), 0); }
void BaseServer::Thaw() { ASSERT_EQ(::kill(server_, SIGCONT), 0); }

}  // namespace addcow
