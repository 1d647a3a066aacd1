// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NbdSource against real servers: what they differ in, and what becomes of them.

#include "common/source/nbd_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <sstream>
#include <thread>

#include "common/base/units.h"
#include "common/source/nbd_uri.h"
#include "tests/source/base_server.h"
#include "tests/support/expect.h"
#include "tests/support/random.h"

namespace addcow {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class NbdSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v nbdkit >/dev/null") != 0)
      GTEST_SKIP() << "nbdkit is not installed";
    std::string name = std::filesystem::temp_directory_path() / "addcow-source.XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    server_ = std::make_unique<BaseServer>(directory_);
  }
  void TearDown() override {
    source_.reset();
    server_.reset();
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }

  // A file with data in some of its pieces of 64 KiB.
  void MakeFile(uint64_t size) {
    contents_.assign(size, std::byte{0});
    Random random(17);
    for (uint64_t at = 0; at < size; at += 64 * kKiB)
      if (random.OneIn(2)) {
        const auto bytes = random.Bytes(std::min(64 * kKiB, size - at));
        std::ranges::copy(bytes, contents_.begin() + static_cast<std::ptrdiff_t>(at));
      }
    Write();
  }
  void Write() {
    std::ofstream file(path(), std::ios::binary);
    for (uint64_t at = 0; at < contents_.size(); at += 64 * kKiB) {
      const uint64_t end = std::min<uint64_t>(at + 64 * kKiB, contents_.size());
      const auto* bytes = reinterpret_cast<const char*>(contents_.data());
      if (std::any_of(bytes + at, bytes + end, [](char c) { return c != 0; })) {
        file.seekp(static_cast<std::streamoff>(at));
        file.write(bytes + at, static_cast<std::streamsize>(end - at));
      }
    }
    file.close();
    std::filesystem::resize_file(path(), contents_.size());
  }
  std::string path() const { return directory_ + "/base.raw"; }
  std::string log() const { return directory_ + "/log"; }

  void Open(seconds timeout = seconds(30)) {
    NbdOptions options;
    options.timeout = timeout;
    options.log = [this](LogLevel, const std::string& line) {
      MutexLock lock(mutex_);
      lines_.push_back(line);
    };
    ASSERT_OK_AND_ASSIGN(source_, NbdSource::Open(ServerOfUri(server_->uri()), options));
  }

  bool Logged(const std::string& text) {
    MutexLock lock(mutex_);
    return std::ranges::any_of(lines_,
                               [&](const auto& line) { return line.find(text) != line.npos; });
  }

  // Expects the range as the file has it.
  void ExpectRead(uint64_t offset, uint64_t length) {
    std::vector<std::byte> bytes(length, std::byte{0xee});
    const Status read = source_->Read(bytes, offset);
    ASSERT_OK(read);
    ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(),
                           contents_.begin() + static_cast<std::ptrdiff_t>(offset)))
        << "offset " << offset << ", length " << length;
  }
  void ReadAtRandom(uint64_t seed, int reads) {
    Random random(seed);
    for (int i = 0; i < reads && !HasFatalFailure(); i++) {
      const uint64_t offset = random.Below(contents_.size());
      const uint64_t most =
          std::min<uint64_t>(contents_.size() - offset, random.OneIn(4) ? 300 * kKiB : 5000);
      ExpectRead(offset, random.Between(1, most));
    }
  }
  // Where there is data, which has to be read from the server.
  uint64_t Data() const {
    uint64_t at = 0;
    while (contents_[at] == std::byte{0}) at += 64 * kKiB;
    return at;
  }
  Status ReadOne(uint64_t offset) {
    std::vector<std::byte> bytes(512);
    return source_->Read(bytes, offset);
  }

  // The bytes that nbdkit's log filter saw read.
  uint64_t BytesRead() {
    std::ifstream file(log());
    std::stringstream text;
    text << file.rdbuf();
    const std::string all = text.str();
    const std::regex read(R"( Read id=\d+ offset=0x[0-9a-f]+ count=0x([0-9a-f]+) )");
    uint64_t bytes = 0;
    for (std::sregex_iterator it(all.begin(), all.end(), read), end; it != end; ++it)
      bytes += std::stoull((*it)[1].str(), nullptr, 16);
    return bytes;
  }

  std::string directory_;
  std::unique_ptr<BaseServer> server_;
  std::vector<std::byte> contents_;
  Mutex mutex_;
  std::vector<std::string> lines_;
  std::unique_ptr<NbdSource> source_;
};

struct Way {
  const char* name;
  std::vector<std::string> before;  // of nbdkit, and its filters
  std::vector<std::string> after;   // parameters of the filters
  uint64_t size = 3 * kMiB;
  bool extents = true;
};

void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

class NbdServers : public NbdSourceTest, public testing::WithParamInterface<Way> {};

TEST_P(NbdServers, ReadsWhatTheyHave) {
  const Way& way = GetParam();
  MakeFile(way.size);
  std::vector<std::string> words = way.before;
  words.insert(words.end(), {"file", path()});
  words.insert(words.end(), way.after.begin(), way.after.end());
  server_->Start(words);
  Open();
  ASSERT_EQ(source_->size(), way.size);
  ReadAtRandom(1, 50);
  ASSERT_OK(source_->Start());
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 8; i++) threads.emplace_back([&, i] { ReadAtRandom(i + 2, 50); });
  for (std::thread& thread : threads) thread.join();
  ExpectRead(0, way.size);
  ASSERT_OK(source_->Prefetch(1, way.size - 1));

  // Every zero, if it can tell, and nothing else.
  for (uint64_t at = 0; at < way.size;) {
    ASSERT_OK_AND_ASSIGN(const DataRun run, source_->RunAt(at, way.size));
    ASSERT_GT(run.end, at);
    const auto begin = contents_.begin();
    const bool zero = std::all_of(begin + static_cast<std::ptrdiff_t>(at),
                                  begin + static_cast<std::ptrdiff_t>(run.end),
                                  [](std::byte byte) { return byte == std::byte{0}; });
    EXPECT_EQ(run.data, !zero || !way.extents) << at << " to " << run.end;
    at = run.end;
  }
}

INSTANTIATE_TEST_SUITE_P(
    , NbdServers,
    testing::Values(
        Way{"Plain", {}, {}}, Way{"NoExtents", {"--filter=noextents"}, {}, 3 * kMiB, false},
        Way{"NoStructuredReplies", {"--no-sr"}, {}, 3 * kMiB, false},
        Way{"OldStyleHandshake", {"--oldstyle"}, {}, 3 * kMiB, false},
        Way{"NoMultiConn", {"--filter=multi-conn"}, {"multi-conn-mode=disable"}},
        Way{"Minimum512",
            {"--filter=blocksize-policy"},
            {"blocksize-minimum=512", "blocksize-error-policy=error"}},
        Way{"Minimum4096",
            {"--filter=blocksize-policy"},
            {"blocksize-minimum=4096", "blocksize-error-policy=error"}},
        Way{"Maximum64k",
            {"--filter=blocksize-policy"},
            {"blocksize-minimum=512", "blocksize-maximum=64k", "blocksize-error-policy=error"}},
        Way{"OddSize", {}, {}, 3 * kMiB + 77},
        Way{"OddSizeNoExtents", {"--filter=noextents"}, {}, kMiB + 511, false}),
    [](const auto& way) { return way.param.name; });

TEST_F(NbdSourceTest, ZeroesAreNotFetched) {
  MakeFile(4 * kMiB);
  server_->Start({"--filter=log", "file", path(), "logfile=" + log()});
  Open();
  ExpectRead(0, 4 * kMiB);
  uint64_t data = 0;
  for (uint64_t at = 0; at < contents_.size(); at += 64 * kKiB)
    for (uint64_t i = at; i < at + 64 * kKiB; i++)
      if (contents_[i] != std::byte{0}) {
        data += 64 * kKiB;
        break;
      }
  ASSERT_GT(data, 0u);
  ASSERT_LT(data, 4 * kMiB);
  EXPECT_EQ(BytesRead(), data);
}

// Few questions for a large disk; also of a server that does not take long ones, which is not
// taken to have data for that.
TEST_F(NbdSourceTest, ALargeHoleIsAskedForInFewSteps) {
  constexpr uint64_t kSize = 64 * kGiB;
  for (const char* most : {"4294967295", "2147483647"}) {
    server_->Start({"eval", "get_size=echo " + std::to_string(kSize),
                    "pread=head -c $3 /dev/zero", "can_extents=exit 0",
                    "extents=echo $3 >>" + log() + "; if [ $3 -gt " + most +
                        " ]; then echo EINVAL >&2; exit 1; fi; echo $4 $3 hole,zero"});
    Open();
    for (uint64_t at = 0; at < kSize;) {
      ASSERT_OK_AND_ASSIGN(const DataRun run, source_->RunAt(at, kSize));
      ASSERT_FALSE(run.data) << most << " at " << at;
      ASSERT_GT(run.end, at);
      at = run.end;
    }
    source_.reset();
    server_->Kill();
    std::ifstream file(log());
    const std::vector<std::string> asked{std::istream_iterator<std::string>(file), {}};
    if (std::string(most) == "4294967295") {
      EXPECT_LE(asked.size(), 20u);
    } else {
      EXPECT_LE(asked.size(), 70u);
    }
    std::filesystem::remove(log());
  }
}

TEST_F(NbdSourceTest, AServerThatIsNotThereIsNamed) {
  auto opened = NbdSource::Open(ServerOfUri(server_->uri()), {});
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().Message().find(server_->uri()), std::string::npos)
      << opened.error().Message();
  EXPECT_NE(opened.error().Message().find("No such file"), std::string::npos)
      << opened.error().Message();
}

TEST_F(NbdSourceTest, AnErrorOfTheServerIsEIO) {
  MakeFile(kMiB);
  server_->Start({"--filter=error", "file", path(), "error-pread-rate=100%", "error=EPERM"});
  Open();
  ASSERT_OK(source_->Start());
  const Status read = ReadOne(Data());
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code(), EIO);
  EXPECT_NE(read.error().Message().find("not permitted"), std::string::npos)
      << read.error().Message();
}

// What is read from it afterwards comes once it is back.
TEST_F(NbdSourceTest, AServerThatComesBackIsReadAgain) {
  MakeFile(kMiB);
  server_->StartQemu(path());
  Open();
  ASSERT_OK(source_->Start());
  ReadAtRandom(1, 20);
  server_->Kill();
  std::thread reader([this] { ReadAtRandom(2, 20); });
  std::this_thread::sleep_for(milliseconds(300));
  server_->StartQemu(path());
  reader.join();
  ReadAtRandom(3, 20);
  EXPECT_TRUE(Logged("connected again"));
  EXPECT_GE(source_->counts().connections, 1u);
  EXPECT_GE(source_->counts().reconnects, 1u);
}

TEST_F(NbdSourceTest, ItComesBackUnderReaders) {
  MakeFile(2 * kMiB);
  server_->StartQemu(path());
  Open();
  ASSERT_OK(source_->Start());
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 6; i++)
    threads.emplace_back([&, i] {
      for (uint64_t round = 0; !stop && !HasFatalFailure(); round++)
        ReadAtRandom(i * 1000 + round, 20);
    });
  for (int i = 0; i < 5; i++) {
    std::this_thread::sleep_for(milliseconds(200));
    server_->Kill();
    server_->StartQemu(path());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  // Some were in flight when the server went.
  EXPECT_GE(source_->counts().retries, 1u);
  EXPECT_GE(source_->counts().reconnects, 5u);
}

TEST_F(NbdSourceTest, ReadsFailAfterTheTimeoutAndThenAtOnce) {
  MakeFile(kMiB);
  server_->StartQemu(path());
  Open(seconds(3));
  ASSERT_OK(source_->Start());
  ASSERT_OK(ReadOne(Data()));
  server_->Kill();
  const auto before = std::chrono::steady_clock::now();
  Status read = Fail(Error::Because(0, "", ""));
  while ((read = ReadOne(Data()))) {
  }
  EXPECT_EQ(read.error().code(), EIO);
  EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(900));
  EXPECT_TRUE(Logged(server_->uri()));
  // No more than a look at the clock each.
  for (uint64_t i = 0; i < 1000; i++) ASSERT_FALSE(ReadOne(Data() + i));
  server_->StartQemu(path());
  while (!ReadOne(Data())) std::this_thread::sleep_for(milliseconds(10));
  ReadAtRandom(4, 20);
}

// Nothing may write to the reader's memory after it was told that there is no answer.
TEST_F(NbdSourceTest, AFrozenServerIsGivenUpAndTakenAgain) {
  MakeFile(kMiB);
  server_->StartQemu(path());
  Open(seconds(3));
  ASSERT_OK(source_->Start());
  ReadAtRandom(1, 20);
  server_->Freeze();
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 8; i++)
    threads.emplace_back([&, i] {
      const Status read = ReadOne(Data() + i);
      // What is zero is known by now, and need not be asked for.
      if (!read) {
        EXPECT_EQ(read.error().code(), EIO);
      }
    });
  for (std::thread& thread : threads) thread.join();
  // Who asks again does not wait for as long once more: these fail together.
  const auto before = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < 100; i++) ASSERT_FALSE(ReadOne(Data() + i));
  EXPECT_LT(std::chrono::steady_clock::now() - before, seconds(50));
  server_->Thaw();
  while (!ReadOne(Data())) std::this_thread::sleep_for(milliseconds(10));
  ReadAtRandom(2, 50);
}

TEST_F(NbdSourceTest, AnotherSizeIsRefusedForGood) {
  MakeFile(kMiB);
  server_->StartQemu(path());
  Open(seconds(5));
  ASSERT_OK(source_->Start());
  ExpectRead(0, kMiB);
  server_->Kill();
  contents_.resize(2 * kMiB);
  Write();
  server_->StartQemu(path());
  while (!Logged("has 2097152 bytes now, and had 1048576"))
    std::this_thread::sleep_for(milliseconds(10));
  contents_.resize(kMiB);
  server_->Kill();
  Write();
  server_->StartQemu(path());
  // It is not tried again.
  std::vector<std::byte> all(kMiB);
  const Status read = source_->Read(all, 0);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code(), EIO);
}

}  // namespace
}  // namespace addcow
