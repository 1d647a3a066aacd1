// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A qemu-nbd of ours that is killed: it is started anew on what was opened, and on nothing
// else that has got its name.

#include "common/source/qemu_server.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "common/base/mutex.h"
#include "common/base/units.h"
#include "common/source/nbd_source.h"
#include "tests/support/expect.h"

namespace addcow {
namespace {

class QemuServerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v qemu-nbd >/dev/null && command -v qemu-img >/dev/null") != 0)
      GTEST_SKIP() << "qemu-nbd or qemu-img is not installed";
    std::string name = std::filesystem::temp_directory_path() / "addcow-qemu.XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = std::filesystem::canonical(name);
    // 1 MiB in the base, and nothing in what stands on it.
    std::ofstream(Path("base.raw")) << std::string(kMiB, 'a');
    std::ofstream(Path("other.raw")) << std::string(kMiB, 'b');
    Make("top", "base.raw");
    Make("new", "other.raw");
  }
  void TearDown() override {
    source_.reset();
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  void Make(const std::string& name, const std::string& base) {
    ASSERT_EQ(std::system(("qemu-img create -q -f qcow2 -F raw -b " + base + " " +
                           Path(name + ".qcow2"))
                              .c_str()),
              0);
  }
  void Move(const std::string& from, const std::string& to) {
    std::filesystem::rename(Path(from), Path(to));
  }

  QemuHeldFile Held(const std::string& name) const {
    QemuHeldFile held{.path = Path(name), .info = {}, .file = nullptr};
    auto file = PosixFileSystem().Open(held.path, OpenMode::kReadOnly);
    EXPECT_OK(file);
    if (!file) return held;
    held.file = std::move(*file);
    const auto info = held.file->Info();
    EXPECT_OK(info);
    if (info) held.info = *info;
    return held;
  }
  Result<std::unique_ptr<NbdServer>> Server() const {
    std::vector<QemuHeldFile> held;
    held.push_back(Held("base.raw"));
    held.push_back(Held("top.qcow2"));
    return ServerOfQemuImage(PosixFileSystem(), {.path = Path("top.qcow2"), .format = "qcow2"},
                             std::move(held));
  }
  NbdOptions Options() {
    return {.timeout = std::chrono::seconds(30),
            .log =
                [this](LogLevel, const std::string& line) {
                  MutexLock lock(mutex_);
                  lines_.push_back(line);
                },
            .interrupted = {}};
  }
  void Open() {
    ASSERT_OK_AND_ASSIGN(auto server, Server());
    ASSERT_OK_AND_ASSIGN(source_, NbdSource::Open(std::move(server), Options()));
    ASSERT_OK(source_->Start());
    EXPECT_EQ(Read(), 'a');
  }

  // The byte that all is made of; nothing where it cannot be read.
  std::optional<char> Read() {
    std::vector<std::byte> bytes(64 * kKiB);
    const Status read = source_->Read(bytes, at_ += 64 * kKiB);
    if (read) return static_cast<char>(bytes.front());
    EXPECT_EQ(read.error().code(), EIO) << read.error().Message();
    return std::nullopt;
  }
  int Logged(const std::string& text) {
    MutexLock lock(mutex_);
    return static_cast<int>(std::ranges::count_if(
        lines_, [&](const auto& line) { return line.find(text) != line.npos; }));
  }

  // All that serve the image and have not ended are killed. How many.
  int Kill() const {
    int killed = 0;
    for (const auto& process : std::filesystem::directory_iterator("/proc")) {
      std::ifstream file(process.path() / "cmdline");
      const std::string words{std::istreambuf_iterator<char>(file), {}};
      if (!words.starts_with("qemu-nbd") || words.find(Path("top.qcow2")) == words.npos)
        continue;
      killed += ::kill(std::stoi(process.path().filename()), SIGKILL) == 0;
    }
    return killed;
  }
  // Kills it, and waits until it is connected to anew or refused.
  void KillAndWait(const std::string& line) {
    const int before = Logged(line);
    ASSERT_EQ(Kill(), 1);
    while (Logged(line) == before) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }

  static constexpr const char* kRefused = "so not read again";

  std::string directory_;
  std::unique_ptr<Source> source_;
  uint64_t at_ = 0;
  Mutex mutex_;
  std::vector<std::string> lines_ ADDCOW_GUARDED_BY(mutex_);
};

TEST_F(QemuServerTest, OneThatIsKilledIsStartedAnew) {
  Open();
  KillAndWait("connected again");
  EXPECT_EQ(Read(), 'a');
  EXPECT_EQ(Logged(kRefused), 0);
}

TEST_F(QemuServerTest, AnotherFileOfItsNameIsRefusedForGood) {
  Open();
  Move("top.qcow2", "old.qcow2");
  Move("new.qcow2", "top.qcow2");
  KillAndWait("top.qcow2: was replaced by another file");
  EXPECT_EQ(Logged(kRefused), 1);
  EXPECT_EQ(Read(), std::nullopt);
  // Not even started.
  EXPECT_EQ(Kill(), 0);
  Move("old.qcow2", "top.qcow2");
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_EQ(Read(), std::nullopt);
}

// It may have got the number of the one before it, if that was let go.
TEST_F(QemuServerTest, AnotherFileInPlaceOfOneThatWasRemovedIsRefused) {
  Open();
  std::filesystem::remove(Path("top.qcow2"));
  std::filesystem::copy(Path("new.qcow2"), Path("top.qcow2"));
  KillAndWait("top.qcow2: was replaced by another file");
  EXPECT_EQ(Read(), std::nullopt);
}

TEST_F(QemuServerTest, SoIsOneBelowIt) {
  Open();
  Move("other.raw", "base.raw");
  KillAndWait("stands on " + Path("base.raw") + ", which was replaced by another file");
  EXPECT_EQ(Read(), std::nullopt);
}

// It is moved, and moved back: nothing is lost.
TEST_F(QemuServerTest, OneThatIsAwayForAWhileIsReadAgain) {
  Open();
  Move("top.qcow2", "away.qcow2");
  ASSERT_EQ(Kill(), 1);
  while (Logged("the connection was lost") == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  Move("away.qcow2", "top.qcow2");
  EXPECT_EQ(Read(), 'a');
  EXPECT_EQ(Logged(kRefused), 0);
}

TEST_F(QemuServerTest, OneThatIsReplacedBeforeItIsServedIsNotServed) {
  ASSERT_OK_AND_ASSIGN(auto server, Server());
  Move("other.raw", "base.raw");
  const auto opened = NbdSource::Open(std::move(server), Options());
  EXPECT_TRUE(FailsWith(opened, EAGAIN));
}

}  // namespace
}  // namespace addcow
