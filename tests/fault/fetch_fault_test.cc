// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Copy-on-read, while every operation on the files fails in turn, in every way, over a base
// that tells of its data at once, in short runs, or not at all. Whatever fails:
//
// - a read is right, or fails because a read of a file did; never since something could
//   not be kept;
// - what was written stays, and is there for the next process once it was flushed;
// - once the fault is gone all is kept, and the image is sound.

#include <gtest/gtest.h>

#include <optional>

#include "common/jobs/fetch.h"
#include "common/ops/check.h"
#include "tests/fault/sweep.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/reference_disk.h"
#include "tests/support/source_double.h"

namespace addcow {
namespace {

enum class Tells { kAll, kShortRuns, kNothing };

struct FetchSetting {
  const char* name;
  uint64_t window;
  Tells tells;
  bool subclusters = true;
};

constexpr FetchSetting kFetchSettings[] = {
    {"By64k", kC, Tells::kAll},
    {"By64kWithoutSubclusters", kC, Tells::kShortRuns, false},
    {"By1M", kMiB, Tells::kShortRuns},
    {"By4kOfABaseThatTellsNothing", 4 * kKiB, Tells::kNothing},
};

const ImageSpec kFetchSpec = {.size = 6 * kC + 5000,
                              .backing_size = 6 * kC - 700,
                              .backing_data = {{{0, 3 * kC + kS}, {4 * kC, 2 * kC - 700}}},
                              .allocated = {2},
                              .subclusters = {3, 4}};

using FetchCase = std::tuple<Sweep, FetchSetting>;

// Reads and writes, and notes what went wrong.
class FetchScript {
 public:
  FetchScript(Image& image, Fetch& fetch, ReferenceDisk& disk)
      : image_(image), fetch_(fetch), disk_(disk) {}

  void Run() {
    Read(100, 700);
    Write(5 * kS + 100, 300);  // what was read is not kept yet
    Keep();
    Read(kC - 500, 1000);
    Read(3 * kC + 2 * kS, kC);
    Write(kC + 3 * kS, 2 * kS);
    Write(4 * kC, kC);
    Read(4 * kC + 10, 2 * kC);
    Flush();
    Keep();
    Read(0, disk_.size());
    Keep();
    Flush();
  }
  void Read(uint64_t offset, uint64_t length) {
    std::vector<std::byte> bytes(length);
    const Status done = fetch_.Read(bytes, offset);
    EXPECT_EQ(done ? "pread" : done.error().operation(), "pread");
    if (!done) failures_++;
    if (!done) return;
    TakeOverFailed(bytes, offset);
    EXPECT_EQ(disk_.Check(bytes, offset), "");
  }
  void Keep() {
    while (fetch_.RunOne()) {
    }
    EXPECT_EQ(fetch_.memory_used(), 0u);
  }
  // What it left, if it failed, is old or new.
  void Write(uint64_t offset, uint64_t length) {
    const std::vector<std::byte> data(length, std::byte{0x77});
    if (image_.Write(data, offset)) return disk_.Write(data, offset);
    failures_++;
    failed_.push_back({offset, length});
  }
  void Flush() {
    if (!image_.Flush()) failures_++;
  }
  int failures() const { return failures_; }

 private:
  // Of a write that failed each byte may be old or new.
  void TakeOverFailed(std::span<const std::byte> bytes, uint64_t offset) {
    for (const ByteRange range : failed_)
      for (uint64_t at = std::max(range.offset, offset);
           at < std::min(range.end(), offset + bytes.size()); at++)
        if (bytes[at - offset] == std::byte{0x77})
          disk_.Write(bytes.subspan(at - offset, 1), at);
  }

  Image& image_;
  Fetch& fetch_;
  ReferenceDisk& disk_;
  int failures_ = 0;
  std::vector<ByteRange> failed_;
};

class FetchFault : public testing::TestWithParam<FetchCase> {
 protected:
  // The next process reads nothing of the base.
  static void ExpectKept(FileSystem& files, const FetchSetting& setting,
                         const ReferenceDisk& disk) {
    SourceDouble* source = nullptr;
    ASSERT_OK_AND_ASSIGN(const auto image, Open(files, setting, &source));
    std::vector<std::byte> bytes(disk.size());
    EXPECT_OK(Fetch(*image, {.size = setting.window}, NoLog).Read(bytes, 0));
    EXPECT_EQ(disk.Check(bytes, 0), "");
    EXPECT_EQ(source == nullptr ? 0 : source->bytes_read(), 0u);
  }
  static Result<std::unique_ptr<Image>> Open(FileSystem& files, const FetchSetting& setting,
                                             SourceDouble** source) {
    ADDCOW_TRY_ASSIGN(
        auto image,
        OpenOnDouble(files, {.add_cow_path = kAddCowPath, .subclusters = setting.subclusters},
                     NoLog, source));
    if (*source != nullptr) {
      (*source)->longest_run = setting.tells == Tells::kShortRuns ? 3000 : 0;
      (*source)->cannot_tell = setting.tells == Tells::kNothing;
    }
    return image;
  }
};

TEST_P(FetchFault, FailsNoReadForWhatCannotBeKept) {
  const auto& [sweep, setting] = GetParam();
  const Fetch::Options options{.size = setting.window, .pause = std::chrono::seconds(0)};
  FakeFileSystem made;
  made.MakeDirectory(kDirectory);
  ASSERT_OK_AND_ASSIGN(const std::vector<std::byte> contents,
                       MakeTestImage(made, kDirectory, kFetchSpec));
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan plan;
    SyncWatch watch;
    ForwardingFileSystem faulty(*files, plan);
    ForwardingFileSystem watched(faulty, watch);
    ReferenceDisk disk(contents);
    SourceDouble* source = nullptr;
    ASSERT_OK_AND_ASSIGN(auto image, Open(watched, setting, &source));
    int logged = 0;
    std::optional<Fetch> fetch(std::in_place, *image, options,
                               [&](LogLevel, const std::string&) { logged++; });
    plan.Set(sweep.At(at));
    FetchScript script(*image, *fetch, disk);
    script.Run();
    const bool fired = plan.fired();
    SCOPED_TRACE("after a fault of " + plan.hit());
    plan.Clear();
    if (!fired || !sweep.visible) {
      EXPECT_EQ(script.failures(), 0);
      EXPECT_EQ(logged, 0);
    }
    EXPECT_LE(logged, 2);  // once more after zeroes that were kept, without a write
    script.Read(0, disk.size());
    script.Keep();
    EXPECT_EQ(disk.Check(ReadAll(*image), 0), "");
    const Status closed = image->Close();
    EXPECT_EQ(bool(closed), !watch.failed());
    fetch.reset();
    image.reset();
    if (closed) ExpectKept(*files, setting, disk);
    const auto report = CheckImage(*files, kAddCowPath, Repair::kNone);
    ASSERT_OK(report);
    EXPECT_EQ(report->corruptions() + report->check_errors, 0u);
    EXPECT_TRUE(files->Find(kBackingPath)->SameBytes(*made.Find(kBackingPath)));
    if (SweepEnds(at, fired, 10)) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Sweeps, FetchFault,
                         testing::Combine(testing::ValuesIn(kSweeps),
                                          testing::ValuesIn(kFetchSettings)),
                         kCaseAndSweepName);

}  // namespace
}  // namespace addcow
