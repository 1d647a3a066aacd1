// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Many threads, random operations at odd offsets, on one Image, against a
// disk that says what must be read. On files in memory, where the threads
// meet most often, and on real ones. Made to be run under ThreadSanitizer.
//
// ADDCOW_STRESS_SECONDS says how long each test runs (default 2), ADDCOW_SEED
// repeats the choice of operations; the schedule is the system's.

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/random.h"
#include "tests/support/reference_disk.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

constexpr uint64_t kThreads = 8;

enum class Where { kMemory, kRealFiles };

// What all threads share: the image, when to stop, and the first thing wrong.
class StressTest : public testing::TestWithParam<Where> {
 protected:
  void SetUp() override { memory_.MakeDirectory(kDirectory); }

  FileSystem& file_system() {
    return GetParam() == Where::kMemory ? static_cast<FileSystem&>(memory_) : PosixFileSystem();
  }
  std::string directory() const {
    return GetParam() == Where::kMemory ? kDirectory : temp_dir_.path();
  }

  void OpenImage(const ImageSpec& spec) {
    ASSERT_OK_AND_ASSIGN(contents_, MakeTestImage(file_system(), directory(), spec));
    Reopen();
  }
  void Reopen() {
    image_.reset();
    ASSERT_OK_AND_ASSIGN(image_, OpenTestImage(file_system(), directory()));
  }

  // Runs `body(thread, random)` again and again in all threads until the time
  // is over, or until one returns what is wrong.
  template <typename Body>
  void RunThreads(Body body) {
    const auto end = std::chrono::steady_clock::now() +
                     std::chrono::seconds(EnvironmentNumber("ADDCOW_STRESS_SECONDS", 2));
    std::vector<std::string> wrong(kThreads);
    std::vector<std::thread> threads;
    std::atomic<bool> stop = false;
    std::atomic<uint64_t> operations = 0;
    for (uint64_t i = 0; i < kThreads; i++) {
      threads.emplace_back([&, i] {
        Random random(TestSeed() + i);
        while (!stop && std::chrono::steady_clock::now() < end) {
          wrong[i] = body(i, random);
          if (!wrong[i].empty()) stop = true;
          operations++;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, std::vector<std::string>(kThreads));
    EXPECT_GT(operations, kThreads);
  }

  // What may go on beside anything else without a change of the contents.
  std::string Disturb(Random& random) {
    const uint64_t clusters = image_->bitmap().clusters();
    const uint64_t first = random.Below(clusters);
    const uint64_t count = random.Between(1, std::min<uint64_t>(clusters - first, 3));
    Status done;
    switch (random.Below(4)) {
      case 0:
        done = image_->Flush();
        break;
      case 1:
        done = image_->CopyUp({first, count});
        break;
      case 2:
        done = image_->Prefetch(0, image_->virtual_size());
        break;
      default:
        return CheckMap();
    }
    return done ? "" : done.error().Message();
  }

  // A map must cover the disk without gaps whatever goes on.
  std::string CheckMap() {
    uint64_t next = 0;
    bool gap = false;
    const Status done = image_->Map(0, image_->virtual_size(), [&](const Extent& extent) {
      gap = gap || extent.offset != next || extent.length == 0;
      next = extent.offset + extent.length;
      return true;
    });
    if (!done) return done.error().Message();
    return gap || next != image_->virtual_size() ? "the map has a gap" : "";
  }

  std::vector<std::byte> contents_;
  std::unique_ptr<Image> image_;

 private:
  FakeFileSystem memory_;
  TempDir temp_dir_;
};

// Each thread owns every eighth stripe of 1009 bytes: it alone writes there
// and knows what it must read, though eight threads share each cluster.
TEST_P(StressTest, NeighboursInOneClusterDoNotDisturbEachOther) {
  constexpr uint64_t kStripe = 1009;
  OpenImage({.size = 40 * kClusterSize + 4321, .backing_size = 25 * kClusterSize + 1234});
  ReferenceDisk disk(contents_);
  const uint64_t stripes = disk.size() / kStripe;

  RunThreads([&](uint64_t thread, Random& random) -> std::string {
    if (random.OneIn(30)) return Disturb(random);
    const uint64_t stripe = std::min(random.Below(stripes / kThreads) * kThreads + thread,
                                     stripes - kThreads + thread);
    const uint64_t skip = random.Below(kStripe);
    const uint64_t offset = stripe * kStripe + skip;
    const uint64_t length = random.Between(1, kStripe - skip);
    const Fua fua = random.OneIn(40) ? Fua::kYes : Fua::kNo;
    Status done;
    switch (random.Below(8)) {
      case 0: {
        const ZeroOptions how{.may_punch = random.OneIn(2)};
        done = image_->Zero(offset, length, how, fua);
        if (done) disk.Zero(offset, length);
        break;
      }
      case 1:
      case 2:
      case 3: {
        const std::vector<std::byte> data = random.Bytes(length);
        done = image_->Write(data, offset, fua);
        if (done) disk.Write(data, offset);
        break;
      }
      default: {
        std::vector<std::byte> buffer(length);
        done = image_->Read(buffer, offset);
        if (done) return disk.Check(buffer, offset);
      }
    }
    return done ? "" : done.error().Message();
  });

  EXPECT_EQ(disk.Check(ReadAll(*image_), 0), "");
  ASSERT_OK(image_->Close());
  Reopen();
  EXPECT_EQ(disk.Check(ReadAll(*image_), 0), "");
}

// All threads write and zero the same sectors, whole clusters among them.
// Each sector must read as one of the writes that it may be.
TEST_P(StressTest, OverlappingRequestsGiveOneOrTheOther) {
  constexpr uint64_t kClusters = 6;
  constexpr uint64_t kSectors = kClusters * kClusterSize / kSectorSize;
  // The backing file is one hole: every sector starts out as zeroes.
  OpenImage({.size = kClusters * kClusterSize,
             .backing_size = kClusters * kClusterSize,
             .backing_data = std::vector<ByteRange>()});
  SharedSectors sectors(kSectors, std::byte{0});

  RunThreads([&](uint64_t, Random& random) -> std::string {
    if (random.OneIn(30)) return Disturb(random);
    uint64_t first = random.Below(kSectors);
    uint64_t count = random.Between(1, std::min<uint64_t>(kSectors - first, 20));
    if (random.OneIn(3)) {  // a whole cluster
      first = RoundDown(first, kClusterSize / kSectorSize);
      count = kClusterSize / kSectorSize;
    }
    const uint64_t offset = first * kSectorSize;
    if (random.OneIn(2)) {
      std::vector<std::byte> buffer(count * kSectorSize);
      const uint64_t read = sectors.BeginRead();
      const Status done = image_->Read(buffer, offset);
      const std::string wrong = sectors.Check(first, buffer, read);
      return done ? wrong : done.error().Message();
    }
    const bool zero = random.OneIn(4);
    const std::byte value = zero ? std::byte{0} : random.NonZeroByte();
    const uint64_t write = sectors.BeginWrite(first, count, value);
    const Status done =
        zero ? image_->Zero(offset, count * kSectorSize, {.may_punch = random.OneIn(2)})
             : image_->Write(std::vector<std::byte>(count * kSectorSize, value), offset);
    sectors.EndWrite(first, count, write);
    return done ? "" : done.error().Message();
  });

  const std::vector<std::byte> before = ReadAll(*image_);
  ASSERT_OK(image_->Close());
  Reopen();
  EXPECT_EQ(Difference(ReadAll(*image_), before), "");
}

std::string WhereName(const testing::TestParamInfo<Where>& where) {
  return where.param == Where::kMemory ? "Memory" : "RealFiles";
}

INSTANTIATE_TEST_SUITE_P(Files, StressTest, testing::Values(Where::kMemory, Where::kRealFiles),
                         WhereName);

}  // namespace
}  // namespace addcow
