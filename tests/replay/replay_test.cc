// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Power cuts under the real thing: the real nbdkit serves an image under fio,
// or under our own client, with a recorder in it. The log is then played back
// step by step. At many of its steps the files are made as a power cut just
// there may leave them; the real plugin opens them, and every sector must read
// the last version that a flush covered, or a later one. "addcow check" must
// find no more than leaks.
//
// ADDCOW_REPLAY_STATES says how many such states each test looks at.

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>

#include "tests/replay/power_cut.h"
#include "tests/replay/program.h"
#include "tests/replay/random_client.h"
#include "tests/support/forms.h"

namespace addcow {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kC = kClusterSize;
constexpr uint64_t kFioSize = 48 * kC;

// The files' numbers in the log.
constexpr uint32_t kImageNumber = 0;
constexpr uint32_t kAddCowNumber = 1;

std::vector<std::byte> ReadFile(const std::string& path) {
  std::vector<std::byte> bytes(fs::file_size(path));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  EXPECT_TRUE(file.good()) << path;
  return bytes;
}

void WriteFile(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  EXPECT_TRUE(file.good()) << path;
}

class Replay : public NbdTest {
 protected:
  void SetUp() override {
    NbdTest::SetUp();
    if (IsSkipped()) return;
    // Larger than the bytes that fio uses, and odd; the backing file ends in
    // the middle, and the image file is full of old bytes.
    MakeImage(InForm({.size = 50 * kC + 1000,
                      .backing_size = 30 * kC + 333,
                      .backing_data = {{{0, 12 * kC + 5000}, {20 * kC, 10 * kC + 333}}},
                      .allocated = {3, 4, 17},
                      .seed = TestSeed() >> 8},
                     form()));
    for (const std::string& path : Paths()) before_.push_back(ReadFile(path));
    backing_ = ReadFile(directory_ + "/base.img");
    fs::create_directory(directory_ + "/cut");
    fs::create_hard_link(directory_ + "/base.img", directory_ + "/cut/base.img");
  }

  virtual Form form() const { return kVersion1Form; }

  // In the order of their numbers.
  std::vector<std::string> Paths() const {
    return {directory_ + "/disk.raw", directory_ + "/x.add-cow"};
  }

  // Serves the image under `load` with the recorder in the server.
  void RecordServer(const std::function<void()>& load, std::optional<uint32_t> drop_sync = {},
                    const std::vector<std::string>& parameters = {}) {
    const std::string log = directory_ + "/log";
    {
      const RecorderEnvironment environment(log, Paths(), directory_ + "/base.img", drop_sync);
      StartServer({RecorderFilter()}, parameters);
    }
    if (HasFatalFailure()) return;
    load();
    StopServer();
    recording_ = Recording::Read(log, Recording::Ending::kWhole);
    EXPECT_EQ(ReadFile(directory_ + "/base.img"), backing_);
    EXPECT_EQ(CheckRecording(), "");
  }

  void RunFio() {
    Program fio(FioWords(directory_ + "/sock", 0, kFioSize, TestSeed() >> 8,
                         {"--io_size=4M", "--fsync=6"}),
                directory_ + "/fio.log");
    EXPECT_EQ(fio.Wait(), 0) << fio.Output();
  }

  void RunClient() {
    RandomClient client(Connect(), 0, contents_, TestSeed());
    EXPECT_EQ(client.Run(300), "");
  }

  // Whether the whole recording can be replayed, and gives just the files that
  // the server left: then nothing that was written has escaped the recorder.
  std::string CheckRecording() const;
  // Replays the recording. Empty, or the first wrong state.
  std::string PlayBack();
  std::string CheckState(const PowerCut& power, const PowerCut::Choice& choice,
                         const CrashModel& model);
  std::vector<bool> ChooseSteps(uint64_t states);

  Recording recording_;
  std::vector<std::vector<std::byte>> before_;  // the files
  std::vector<std::byte> backing_;
  Random random_{TestSeed()};
  uint64_t states_ = 0;
};

// Which steps of the log the power fails after: spread evenly over all steps,
// and again over those that answer a flush, when what was promised is most.
std::vector<bool> Replay::ChooseSteps(uint64_t states) {
  const std::vector<Record>& records = recording_.records();
  std::vector<size_t> all;
  std::vector<size_t> answers;
  std::map<uint64_t, bool> flushes;
  for (size_t i = 0; i < records.size(); i++) {
    const RecordHeader& header = records[i].header;
    if (header.kind == RecordKind::kFlush || header.fua != 0) flushes[header.id] = true;
    if (header.kind == RecordKind::kEnd && flushes.contains(header.id)) answers.push_back(i);
    all.push_back(i);
  }
  std::vector<bool> chosen(records.size());
  for (const auto& [steps, share] :
       {std::pair(all, states / 3), std::pair(answers, states / 6)})
    for (uint64_t i = 0; i < share && !steps.empty(); i++) {
      // One from each of `share` equal parts.
      const uint64_t start = steps.size() * i / share;
      const uint64_t end = std::max(start + 1, steps.size() * (i + 1) / share);
      chosen[steps[random_.Between(start, end - 1)]] = true;
    }
  if (!chosen.empty()) chosen.back() = true;
  return chosen;
}

std::string Replay::CheckRecording() const {
  PowerCut power(before_);
  Acknowledged disk(contents_);
  for (const Record& record : recording_.records()) {
    std::string wrong = power.Apply(record);
    if (wrong.empty()) wrong = disk.Apply(record);
    if (!wrong.empty()) return wrong;
  }
  std::cout << fmt::format(
      "# {} writes and {} flushes acknowledged, {} changes and {} syncs of files\n",
      disk.counts().writes, disk.counts().flushes, power.changes(), power.syncs());
  if (!disk.idle()) return "requests without an answer";
  if (disk.counts().failed > 0) return "requests failed";
  if (disk.counts().flushes < 10 || power.changes() < 100) return "too little was recorded";
  if (power.Cut({PowerCut::Choice::Keep::kEverything}) !=
      PowerCut::Files{ReadFile(Paths()[0]), ReadFile(Paths()[1])})
    return "the files are not what the log gives";
  return "";
}

std::string Replay::PlayBack() {
  const uint64_t wanted = EnvironmentNumber("ADDCOW_REPLAY_STATES", 120);
  const std::vector<bool> chosen = ChooseSteps(wanted);
  const auto steps = static_cast<uint64_t>(std::ranges::count(chosen, true));
  // Where there are more states than steps: several at each.
  const uint64_t some = std::max<uint64_t>(1, wanted / std::max<uint64_t>(1, steps) - 1);
  uint64_t cuts = 0;
  PowerCut power(before_);
  Acknowledged disk(contents_);
  const auto check = [&](uint64_t count) {
    std::string wrong = CheckState(power, {}, disk.model());
    for (uint64_t k = 0; k < count && wrong.empty() && power.pending() > 0; k++)
      wrong = CheckState(power, {PowerCut::Choice::Keep::kSome, random_.Next()}, disk.model());
    return wrong;
  };
  for (size_t i = 0; i < chosen.size(); i++) {
    const Record& record = recording_.records()[i];
    (void)power.Apply(record);  // CheckRecording has seen what they say
    (void)disk.Apply(record);
    if (!chosen[i]) continue;
    cuts++;
    const std::string wrong = check(some);
    if (!wrong.empty()) return fmt::format("after step {} of {}: {}", i, chosen.size(), wrong);
  }
  std::cout << fmt::format("# the power failed after {} of {} steps, {} states were opened\n",
                           cuts, chosen.size(), states_);
  // The server was stopped, not killed: all is durable that it has answered.
  disk.AllDurable();
  return check(some);
}

std::string Replay::CheckState(const PowerCut& power, const PowerCut::Choice& choice,
                               const CrashModel& model) {
  const std::string add_cow = directory_ + "/cut/x.add-cow";
  const auto files = power.Cut(choice);
  WriteFile(directory_ + "/cut/disk.raw", files[kImageNumber]);
  WriteFile(add_cow, files[kAddCowNumber]);
  states_++;
  std::string wrong = model.Check(ReadThroughServer(add_cow));
  const std::string said = directory_ + "/check.log";
  if (const int status = RunCheck(add_cow, said); wrong.empty() && status != 0 && status != 3)
    wrong = fmt::format("addcow check: exit status {}", status);
  if (wrong.empty()) return "";
  return wrong + "\n" + power.Describe(choice);
}

TEST_F(Replay, NothingFlushedIsLostUnderFio) {
  if (!HaveFio()) GTEST_SKIP() << "fio with its nbd engine is not installed";
  RecordServer([this] { RunFio(); });
  ASSERT_FALSE(HasFailure());
  EXPECT_EQ(PlayBack(), "");
}

TEST_F(Replay, NothingFlushedIsLostUnderRequestsOfAllKinds) {
  RecordServer([this] { RunClient(); });
  ASSERT_FALSE(HasFailure());
  EXPECT_EQ(PlayBack(), "");
}

TEST_F(Replay, NothingFlushedIsLostWithoutSubclusters) {
  RecordServer([this] { RunClient(); }, {}, {"subclusters=off"});
  ASSERT_FALSE(HasFailure());
  EXPECT_EQ(PlayBack(), "");
}

class Replay4k : public Replay {
 protected:
  Form form() const override { return k4kForm; }
};

TEST_F(Replay4k, NothingFlushedIsLostUnderRequestsOfAllKinds) {
  RecordServer([this] { RunClient(); });
  ASSERT_FALSE(HasFailure());
  EXPECT_EQ(PlayBack(), "");
}

// A replay that finds nothing is worth something only if it would find what is
// wrong with these servers.

// Bytes are lost, or the disk cannot be opened.
void ExpectLoss(const std::string& found) {
  EXPECT_TRUE(found.find("none of its") != std::string::npos ||
              found.find(": 0 bytes read") != std::string::npos)
      << "found: " << found;
  std::cout << "# found " << found.substr(0, found.find('\n')) << "\n";
}

TEST_F(Replay, FindsAServerThatDoesNotSyncTheImageFile) {
  RecordServer([this] { RunClient(); }, kImageNumber);
  ASSERT_FALSE(HasFailure());
  ExpectLoss(PlayBack());
}

TEST_F(Replay, FindsAServerThatDoesNotSyncTheAddCowFile) {
  RecordServer([this] { RunClient(); }, kAddCowNumber);
  ASSERT_FALSE(HasFailure());
  ExpectLoss(PlayBack());
}

}  // namespace
}  // namespace addcow
