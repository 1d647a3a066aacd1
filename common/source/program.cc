// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See program.h.

#include "common/source/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "common/base/unique_fd.h"

extern char** environ;

namespace addcow {

namespace {

using Clock = std::chrono::steady_clock;

// posix_spawn with files for the three standard ones.
class Files {
 public:
  Files(const std::string& directory, int output, int errors) {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawn_file_actions_addchdir_np(&actions_, directory.c_str());
    ::posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions_, output, 1);
    ::posix_spawn_file_actions_adddup2(&actions_, errors, 2);
    ::posix_spawnattr_init(&attributes_);
    // The server blocks some in its threads.
    ::sigset_t none;
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK);
  }
  ~Files() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  Result<::pid_t> Spawn(std::vector<std::string> words) const {
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    ::pid_t child = -1;
    const int code = ::posix_spawnp(&child, arguments.front(), &actions_, &attributes_,
                                    arguments.data(), environ);
    if (code != 0) return Fail(Error::System(code, "run", words.front()));
    return child;
  }

 private:
  ::posix_spawn_file_actions_t actions_;
  ::posix_spawnattr_t attributes_;
};

// How long a program may still be waited for.
class Patience {
 public:
  Patience(const std::string& program, const ProgramLimits& limits)
      : program_(program), limits_(limits), start_(Clock::now()) {}

  Status Check() const {
    ADDCOW_TRY(CheckInterrupted(limits_.interrupted, program_));
    if (!limits_.timeout || Clock::now() - start_ < *limits_.timeout) return {};
    return Fail(Error::Because(ETIMEDOUT, program_,
                               fmt::format("does not end in {} s ({}timeout=SECONDS gives it "
                                           "more)",
                                           limits_.timeout->count(), limits_.option_prefix)));
  }

 private:
  const std::string& program_;
  const ProgramLimits& limits_;
  const Clock::time_point start_;
};

// Until the other side closes it.
Status ReadAll(int fd, const Patience& patience, std::string& text) {
  constexpr int kLookMilliseconds = 50;
  std::array<char, 4096> part;
  for (;;) {
    ADDCOW_TRY(patience.Check());
    ::pollfd poll = {.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&poll, 1, kLookMilliseconds) <= 0) continue;
    const ssize_t count = ::read(fd, part.data(), part.size());
    if (count == 0) return {};
    if (count > 0) text.append(part.data(), static_cast<size_t>(count));
  }
}

// What it ended with. It can have closed what it prints to long before.
Result<int> EndOf(::pid_t child, const Patience& patience) {
  int status = 0;
  for (;;) {
    const ::pid_t ended = ::waitpid(child, &status, WNOHANG);
    // ECHILD: it has ended, and nobody is told how, where SIGCHLD is ignored.
    if (ended == child || (ended == -1 && errno == ECHILD)) return status;
    ADDCOW_TRY(patience.Check());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

bool HasProgram(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::string_view left = path != nullptr ? path : "/usr/bin:/bin";
  while (!left.empty()) {
    const std::string_view directory = left.substr(0, left.find(':'));
    left.remove_prefix(std::min(left.size(), directory.size() + 1));
    if (::access((std::string(directory) + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

Result<std::string> OutputOf(const std::vector<std::string>& words,
                             const std::string& directory, const ProgramLimits& limits) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) == -1)
    return Fail(Error::System(errno, "make a pipe for", words.front()));
  const UniqueFd from(ends[0]);
  UniqueFd to(ends[1]);
  const ErrorOutput errors;
  ADDCOW_TRY_ASSIGN(const ::pid_t child, Files(directory, to.get(), errors.fd()).Spawn(words));
  to = UniqueFd();
  std::string text;
  const Patience patience(words.front(), limits);
  const Status read = ReadAll(from.get(), patience, text);
  const Result<int> end = read ? EndOf(child, patience) : Fail(read.error());
  if (!end) {
    (void)::kill(child, SIGKILL);
    while (::waitpid(child, nullptr, 0) == -1 && errno == EINTR) {
    }
    return Fail(end.error());
  }
  if (WIFEXITED(*end) && WEXITSTATUS(*end) == 0) return text;
  std::string said = errors.Text();
  if (said.starts_with(words.front() + ": ")) said.erase(0, words.front().size() + 2);
  return Fail(Error::Because(EIO, words.front(), said.empty() ? "failed" : said));
}

std::string PathOfFd(int fd) { return fmt::format("/proc/{}/fd/{}", ::getpid(), fd); }

ErrorOutput::ErrorOutput() : fd_(::memfd_create("addcow-errors", MFD_CLOEXEC)) {}

ErrorOutput::~ErrorOutput() {
  if (fd_ >= 0) ::close(fd_);
}

void ErrorOutput::Clear() { (void)!::ftruncate(fd_, 0); }

std::string ErrorOutput::Text() const {
  constexpr ::off_t kMost = 1000;
  const ::off_t size = ::lseek(fd_, 0, SEEK_END);
  if (size <= 0) return "";
  std::string text(static_cast<size_t>(std::min(size, kMost)), '\0');
  const ssize_t count =
      ::pread(fd_, text.data(), text.size(), size - static_cast<::off_t>(text.size()));
  text.resize(count > 0 ? static_cast<size_t>(count) : 0);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\0')) text.pop_back();
  std::ranges::replace(text, '\n', ' ');
  return text;
}

}  // namespace addcow
