// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See program.h.

#include "tests/replay/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include "common/base/unique_fd.h"
#include "tests/nbd/server.h"

namespace addcow {

Program::Program(std::vector<std::string> words, std::string output)
    : output_(std::move(output)) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const UniqueFd log(::open(output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!log.valid() || !nothing.valid()) throw std::runtime_error("cannot open " + output_);
  pid_ = ::fork();
  if (pid_ == -1) throw std::runtime_error("fork");
  if (pid_ > 0) return;
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::dup2(nothing.get(), STDIN_FILENO) != -1 &&
      ::dup2(log.get(), STDOUT_FILENO) != -1 && ::dup2(log.get(), STDERR_FILENO) != -1)
    ::execvp(arguments[0], arguments.data());
  ::_exit(127);
}

Program::~Program() { Kill(); }

void Program::Kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
  Wait();
}

int Program::Wait() {
  if (pid_ > 0 && ::waitpid(pid_, &status_, 0) != pid_) throw std::runtime_error("waitpid");
  pid_ = -1;
  return WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
}

bool Program::HasEnded() {
  if (pid_ > 0 && ::waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = -1;
  return pid_ <= 0;
}

std::string Program::Output() const {
  std::ifstream file(output_);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> FioWords(const std::string& socket, uint64_t start, uint64_t size,
                                  uint64_t seed, const std::vector<std::string>& more) {
  std::vector<std::string> words = {
      "fio",
      "--name=load",
      "--thread=1",
      "--ioengine=nbd",
      "--uri=nbd+unix:///?socket=" + socket,
      "--rw=randwrite",
      "--bsrange=512-64k",
      "--iodepth=8",
      "--serialize_overlap=1",
      "--fsync=8",
      "--verify=crc32c",
      "--verify_interval=512",
      "--verify_backlog=24",
      "--verify_fatal=1",
      "--verify_state_save=0",
      "--allrandrepeat=1",
      fmt::format("--randseed={}", seed),
      fmt::format("--offset={}", start),
      fmt::format("--size={}", size),
  };
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

bool HaveFio() {
  return std::system("fio --enghelp 2>/dev/null | grep -w nbd >/dev/null") == 0;
}

int RunCheck(const std::string& add_cow_path, const std::string& output) {
  return Program({std::getenv("ADDCOW_RUN"), "addcow", "check", add_cow_path}, output).Wait();
}

std::vector<std::byte> ReadThroughServer(const std::string& add_cow_path) {
  const NbdHandle nbd(nbd_create());
  std::vector<std::string> words = {std::getenv("ADDCOW_RUN"), "nbdkit", "-f", "-r", "addcow",
                                    "file=" + add_cow_path};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  // It is ended and waited for when the handle goes.
  if (nbd_connect_systemd_socket_activation(nbd.get(), arguments.data()) == -1) {
    std::cout << "# no server for " << add_cow_path << ": " << nbd_get_error() << "\n";
    return {};
  }
  const int64_t size = nbd_get_size(nbd.get());
  if (size == -1) {
    std::cout << "# " << nbd_get_error() << "\n";
    return {};
  }
  return NbdRead(nbd.get(), 0, static_cast<uint64_t>(size));
}

}  // namespace addcow
