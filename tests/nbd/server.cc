// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See server.h.

#include "tests/nbd/server.h"

#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

extern char** environ;

namespace addcow {

void NbdDelete::operator()(nbd_handle* nbd) const {
  if (nbd_aio_is_ready(nbd) == 1) {
    EXPECT_NBD(nbd_shutdown(nbd, 0));
  }
  nbd_close(nbd);
}

void NbdTest::SetUp() {
  if (std::getenv("ADDCOW_RUN") == nullptr)
    GTEST_SKIP() << "ADDCOW_RUN does not say where ./run is (make check sets it)";
  if (std::system("command -v nbdkit >/dev/null") != 0)
    GTEST_SKIP() << "nbdkit is not installed";
  std::string name = std::filesystem::temp_directory_path() / "addcow-nbd.XXXXXX";
  ASSERT_NE(mkdtemp(name.data()), nullptr);
  directory_ = name;
}

void NbdTest::TearDown() {
  if (server_ > 0) StopServer();
  if (!directory_.empty()) std::filesystem::remove_all(directory_);
}

void NbdTest::MakeImage(const ImageSpec& spec) {
  ASSERT_OK_AND_ASSIGN(contents_, MakeTestImage(PosixFileSystem(), directory_, spec));
}

void NbdTest::StartServer(const std::vector<std::string>& options,
                          const std::vector<std::string>& parameters) {
  const std::string pid_file = directory_ + "/pid";
  std::vector<std::string> words = {std::getenv("ADDCOW_RUN"), "nbdkit", "-f",    "-U",
                                    directory_ + "/sock",      "-P",     pid_file};
  words.insert(words.end(), options.begin(), options.end());
  words.insert(words.end(), {"addcow", "file=" + directory_ + "/x.add-cow"});
  words.insert(words.end(), parameters.begin(), parameters.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  // A server that was killed leaves both.
  std::filesystem::remove(pid_file);
  std::filesystem::remove(directory_ + "/sock");
  ASSERT_EQ(posix_spawn(&server_, arguments[0], nullptr, nullptr, arguments.data(), environ),
            0);
  struct stat st;
  while (stat(pid_file.c_str(), &st) != 0 || st.st_size == 0) {
    int status = 0;
    if (waitpid(server_, &status, WNOHANG) == server_) {
      server_ = -1;
      FAIL() << "nbdkit ended at once, wait status " << status;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

void NbdTest::StopServer() {
  ASSERT_GT(server_, 0);
  ASSERT_EQ(kill(server_, SIGTERM), 0);
  int status = -1;
  ASSERT_EQ(waitpid(server_, &status, 0), server_);
  server_ = -1;
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
}

void NbdTest::KillServer() {
  ASSERT_GT(server_, 0);
  ASSERT_EQ(kill(server_, SIGKILL), 0);
  int status = -1;
  ASSERT_EQ(waitpid(server_, &status, 0), server_);
  server_ = -1;
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "wait status " << status;
}

NbdHandle NbdTest::Connect() {
  NbdHandle nbd(nbd_create());
  EXPECT_NBD(nbd_add_meta_context(nbd.get(), LIBNBD_CONTEXT_BASE_ALLOCATION));
  EXPECT_NBD(nbd_set_full_info(nbd.get(), true));
  EXPECT_NBD(nbd_connect_unix(nbd.get(), (directory_ + "/sock").c_str()));
  return nbd;
}

Result<std::unique_ptr<Image>> NbdTest::OpenFiles() const {
  ImageSource source;
  source.add_cow_path = directory_ + "/x.add-cow";
  source.mode = OpenMode::kReadOnly;
  source.access.lock = false;  // the server may have them
  return Image::Open(PosixFileSystem(), source, [](LogLevel, const std::string&) {});
}

std::vector<std::byte> NbdTest::ReadFromFiles() {
  auto image = OpenFiles();
  EXPECT_OK(image);
  return image ? ReadAll(**image) : std::vector<std::byte>();
}

uint64_t NbdTest::AllocatedInFile() {
  auto image = OpenFiles();
  EXPECT_OK(image);
  if (!image) return UINT64_MAX;
  uint64_t bytes = 0;
  EXPECT_OK((*image)->Map(0, (*image)->virtual_size(), [&](const Extent& extent) {
    if (extent.source == Extent::Source::kImage) bytes += extent.length;
    return true;
  }));
  return bytes;
}

std::vector<std::byte> NbdRead(nbd_handle* nbd, uint64_t offset, uint64_t count) {
  std::vector<std::byte> bytes(count);
  constexpr uint64_t kLargest = 32 * kMiB;
  for (uint64_t done = 0; done < count;) {
    const uint64_t part = std::min(kLargest, count - done);
    if (nbd_pread(nbd, bytes.data() + done, part, offset + done, 0) == -1) {
      ADD_FAILURE() << nbd_get_error();
      return {};
    }
    done += part;
  }
  return bytes;
}

}  // namespace addcow
