// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Process death under the real thing: nbdkit is killed (SIGKILL) at random
// moments, while fio writes and verifies the first third of the disk and our own
// client the second, both with flushes; the last is left to the fill. A new server then has to
// read every flushed write, or a later one, in each sector; "addcow check" must find no more
// than leaks; the backing file must be as it was. The next round goes on with what is there.
//
// What was acknowledged is known twice: for the whole disk by the recorder
// between server and plugin (filter.cc), whose log outlives the server, and for
// its own part by the client, from the answers that it got. So the check is
// exact: it says nothing about writes that nobody flushed, which fio's own
// verification after a kill would.
//
// In half of the rounds what the server reads of the backing file is kept (copy-on-read),
// and in half of them the backing file is a server's. In seven of eight it fills the image
// meanwhile, at one rate or another, mostly so slow that it is killed before the end. When an
// image has had its rounds, a last server fills it to the end; then the image file alone must
// be the disk.
//
// ADDCOW_KILL_ROUNDS says how many rounds there are.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <string_view>
#include <thread>

#include "tests/replay/program.h"
#include "tests/replay/random_client.h"
#include "tests/source/base_server.h"
#include "tests/support/forms.h"

namespace addcow {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kC = kClusterSize;
// fio's part ends at the first, our client's at the second, in the middle of a cluster.
constexpr uint64_t kBorder = 128 * kC + 36 * kSectorSize;
constexpr uint64_t kClientEnd = 256 * kC - 20 * kSectorSize;
constexpr uint64_t kRoundsOfAnImage = 3;

// Of the images, one after the other: their form, and whether the server may use
// subclusters.
constexpr std::pair<Form, bool> kImages[] = {
    {kVersion1Form, true}, {k4kForm, true}, {kVersion1Form, false}, {k2MForm, true}};

constexpr const char* kFills[] = {"fill=all", "fill=all", "fill=all", "fill=off",
                                  "fill=all", "fill=all", "fill=all", "fill=touched"};
constexpr const char* kFillRates[] = {"fill-rate=512k", "fill-rate=2M", "fill-rate=8M",
                                      "fill-rate=1G"};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool HaveQemuNbd() { return std::system("command -v qemu-nbd >/dev/null") == 0; }

uint64_t SectorsThatDiffer(std::span<const std::byte> a, std::span<const std::byte> b) {
  uint64_t count = 0;
  for (uint64_t at = 0; at < a.size(); at += kSectorSize) {
    const uint64_t length = std::min(kSectorSize, a.size() - at);
    if (!std::ranges::equal(a.subspan(at, length), b.subspan(at, length))) count++;
  }
  return count;
}

class Kill : public NbdTest {
 protected:
  void MakeFreshImage(const Form& form) {
    for (const char* name : {"x.add-cow", "disk.raw", "base.img"})
      fs::remove(directory_ + "/" + name);
    ImageSpec spec;
    spec.size = 384 * kC - random_.Below(kC);
    spec.backing_size = random_.OneIn(4) ? random_.Between(1, spec.size) : spec.size;
    spec.seed = random_.Next() >> 8;
    MakeImage(InForm(spec, form));
    backing_ = ReadFile(directory_ + "/base.img");
  }

  void Round(uint64_t seed);
  void FillToTheEnd();
  void WaitForMoment(const RandomClient& client, const std::atomic<bool>& ended);
  // All that the log of the server says about this round.
  void CheckLog(std::span<const std::byte> actual);

  Random random_{TestSeed()};
  std::string backing_;

  // Totals.
  uint64_t writes_ = 0;
  uint64_t flushes_ = 0;
  uint64_t fio_writes_ = 0;
  uint64_t in_flush_ = 0;      // rounds in which a flush was under way
  bool subclusters_ = true;    // of the server
  uint64_t lost_ = 0;          // sectors without their last version
  uint64_t rounds_lossy_ = 0;  // rounds with such sectors
  uint64_t remote_rounds_ = 0;
  uint64_t killed_in_a_fill_ = 0;  // rounds
  uint64_t filled_ = 0;            // images, to the end
};

// A random time, a random number of requests, or a moment in a flush.
void Kill::WaitForMoment(const RandomClient& client, const std::atomic<bool>& ended) {
  using std::chrono::microseconds;
  const auto pause = [](uint64_t us) { std::this_thread::sleep_for(microseconds(us)); };
  switch (random_.Below(3)) {
    case 0:
      pause(random_.Below(300'000));
      break;
    case 1: {
      const uint64_t requests = random_.Between(1, 400);
      while (client.issued() < requests && !ended) pause(100);
      break;
    }
    default: {
      const uint64_t flushes = random_.Between(1, 15);
      while (client.flushes_issued() < flushes && !ended) pause(20);
      pause(random_.Below(2500));
      break;
    }
  }
}

void Kill::CheckLog(std::span<const std::byte> actual) {
  const Recording recording =
      Recording::Read(directory_ + "/log", Recording::Ending::kMayBeCut);
  Acknowledged disk(contents_);
  std::map<uint64_t, RecordKind> open;
  for (const addcow::Record& record : recording.records()) {
    ASSERT_EQ(disk.Apply(record), "");
    const RecordHeader& header = record.header;
    if (header.kind == RecordKind::kEnd)
      open.erase(header.id);
    else
      open[header.id] = header.kind;
    if (header.kind == RecordKind::kWrite && header.offset < kBorder) fio_writes_++;
  }
  EXPECT_EQ(disk.counts().failed, 0U) << "requests failed before the kill";
  EXPECT_EQ(disk.model().Check(actual), "");
  writes_ += disk.counts().writes;
  flushes_ += disk.counts().flushes;
  const uint64_t lost = SectorsThatDiffer(actual, disk.model().contents());
  lost_ += lost;
  if (lost > 0) rounds_lossy_++;
  if (std::ranges::any_of(open,
                          [](const auto& entry) { return entry.second == RecordKind::kFlush; }))
    in_flush_++;
}

void Kill::Round(uint64_t seed) {
  std::string backing = directory_ + "/base.img";
  // nbdkit 1.32 ends when a client hangs up on it as these do.
  BaseServer base(directory_);
  if (seed / 8 % 2 == 0 && HaveQemuNbd()) {
    base.StartQemu(backing);
    backing = base.uri();
    remote_rounds_++;
  }
  const std::string log = directory_ + "/log";
  std::ofstream(log, std::ios::trunc).close();  // nothing may be asked before the kill
  {
    const RecorderEnvironment environment(log);
    StartServer({RecorderFilter()},
                {subclusters_ ? "subclusters=on" : "subclusters=off",
                 seed % 2 == 0 ? "copy-on-read=on" : "copy-on-read=off",
                 seed % 3 == 0 ? "fetch-size=1M" : "fetch-size=64k", kFills[seed / 16 % 8],
                 kFillRates[seed / 128 % 4], "sync-interval=1", "backing=" + backing});
  }
  if (HasFatalFailure()) return;

  Program fio(FioWords(directory_ + "/sock", 0, kBorder, seed >> 8,
                       {"--time_based=1", "--runtime=3600", "--rate=,24m"}),
              directory_ + "/fio.log");
  // Mostly both are at work.
  const bool wait = !random_.OneIn(5);
  while (wait && !fio.HasEnded() && fs::file_size(log) == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_FALSE(fio.HasEnded()) << fio.Output();

  const auto own_part =
      std::vector(contents_.begin() + static_cast<std::ptrdiff_t>(kBorder),
                  contents_.begin() + static_cast<std::ptrdiff_t>(kClientEnd));
  std::string wrong;
  std::optional<RandomClient> client(std::in_place, Connect(), kBorder, own_part, seed);
  std::atomic<bool> ended = false;
  std::thread thread([&] {
    wrong = client->Run(UINT64_MAX);
    ended = true;
  });
  WaitForMoment(*client, ended);
  KillServer();
  const uint64_t allocated = AllocatedInFile();
  if (kFills[seed / 16 % 8] == std::string_view("fill=all") && allocated < contents_.size())
    killed_in_a_fill_++;
  // Without a server fio 3.33 may turn round for ever. What is wrong with data
  // it says at once, and ends.
  fio.Kill();
  thread.join();
  EXPECT_EQ(wrong, "");
  EXPECT_EQ(fio.Output().find("verify"), std::string::npos) << fio.Output();

  const auto actual = ReadThroughServer(directory_ + "/x.add-cow");
  ASSERT_EQ(actual.size(), contents_.size());
  CheckLog(actual);
  EXPECT_EQ(
      client->disk().model().Check(std::span(actual).subspan(kBorder, kClientEnd - kBorder)),
      "");
  const int status = RunCheck(directory_ + "/x.add-cow", directory_ + "/check.log");
  EXPECT_TRUE(status == 0 || status == 3) << ReadFile(directory_ + "/check.log");
  EXPECT_TRUE(ReadFile(directory_ + "/base.img") == backing_) << "the backing file changed";
  contents_ = actual;
}

void Kill::FillToTheEnd() {
  Program server({std::getenv("ADDCOW_RUN"), "nbdkit", "-f", "-U", "-", "addcow",
                  "file=" + directory_ + "/x.add-cow", "fill=all", "fill-exit=on"},
                 directory_ + "/fill.log");
  ASSERT_EQ(server.Wait(), 0) << server.Output();
  fs::remove(directory_ + "/base.img");
  const std::string alone = ReadFile(directory_ + "/disk.raw");
  EXPECT_EQ(Difference(std::as_bytes(std::span(alone)), contents_), "");
  EXPECT_EQ(RunCheck(directory_ + "/x.add-cow", directory_ + "/check.log"), 0)
      << ReadFile(directory_ + "/check.log");
  filled_++;
}

TEST_F(Kill, NothingFlushedIsLostWhenTheServerIsKilled) {
  if (!HaveFio()) GTEST_SKIP() << "fio with its nbd engine is not installed";
  const uint64_t rounds = EnvironmentNumber("ADDCOW_KILL_ROUNDS", 12);
  for (uint64_t round = 0; round < rounds; round++) {
    const auto& [form, subclusters] = kImages[round / kRoundsOfAnImage % std::size(kImages)];
    if (round % kRoundsOfAnImage == 0) MakeFreshImage(form);
    subclusters_ = subclusters;
    const uint64_t seed = random_.Next();
    Round(seed);
    if (round % kRoundsOfAnImage == kRoundsOfAnImage - 1) FillToTheEnd();
    ASSERT_FALSE(HasFailure()) << "in round " << round;
  }
  std::cout << fmt::format(
      "# {} rounds, {} over a server, {} in a fill that was not done; {} images filled to the "
      "end; {} writes ({} by fio) and {} flushes acknowledged; {} "
      "rounds were killed "
      "in "
      "a flush; in {} rounds {} sectors did not have their last, unflushed version\n",
      rounds, remote_rounds_, killed_in_a_fill_, filled_, writes_, fio_writes_, flushes_,
      in_flush_, rounds_lossy_, lost_);
  EXPECT_GT(fio_writes_, rounds);
  EXPECT_GT(flushes_, rounds);
}

}  // namespace
}  // namespace addcow
