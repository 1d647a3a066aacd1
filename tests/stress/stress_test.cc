// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Many threads, random operations at odd offsets, on one Image, against a
// disk that says what must be read. On files in memory, where the threads
// meet most often, and on real ones; with the background flush and without.
// In half of the rounds reads are kept (copy-on-read). All threads make a fill go on, a
// cluster at a time, ask how far it is, and see the backing file let go. Made to be run
// under ThreadSanitizer (make stress).
//
// A test is a row of rounds, each on a new image: after some hundred
// operations every cluster is allocated, and the races of allocation are over.
// Half of the operations are near a place that all threads go along together,
// from the start of the disk to its end: there they meet in clusters that are
// not allocated yet. After a round the image is opened again and must read the
// same.
//
// ADDCOW_STRESS_SECONDS says how long all tests together run, ADDCOW_SEED
// repeats the choice of operations; the schedule is the system's.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

#include "common/base/zero_bytes.h"
#include "common/jobs/background_flush.h"
#include "common/jobs/fetch_threads.h"
#include "common/jobs/fill.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/forms.h"
#include "tests/support/random.h"
#include "tests/support/reference_disk.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kThreads = 8;
constexpr uint64_t kOperationsInARound = 150;  // of each thread

struct Setup {
  const char* name;
  bool real_files;
  bool background_flush;
  Form form = kVersion1Form;
};

// What requests are about, in bytes: clusters, or, where these are large, many in one.
constexpr uint64_t UnitOf(uint64_t cluster_size) {
  return std::min(cluster_size, kClusterSize);
}

// Of all tests together. AddressSanitizer looks for other things than races.
#ifdef __SANITIZE_ADDRESS__
constexpr uint64_t kSeconds = 8;
#else
constexpr uint64_t kSeconds = 20;
#endif

// What all threads share: the image, and the first thing wrong.
class StressTest : public testing::TestWithParam<Setup> {
 protected:
  void SetUp() override {
    memory_.MakeDirectory(kDirectory);
    const int tests = testing::UnitTest::GetInstance()->test_to_run_count();
    end_ = Clock::now() +
           std::chrono::milliseconds(EnvironmentNumber("ADDCOW_STRESS_SECONDS", kSeconds) *
                                     1000 / static_cast<uint64_t>(tests));
  }
  void TearDown() override {
    std::printf("# %llu operations in %llu rounds\n",
                static_cast<unsigned long long>(operations_.load()),
                static_cast<unsigned long long>(rounds_));
    std::fflush(stdout);
  }

  FileSystem& file_system() {
    return GetParam().real_files ? PosixFileSystem() : static_cast<FileSystem&>(memory_);
  }
  std::string directory() const {
    return GetParam().real_files ? temp_dir_.path() : kDirectory;
  }

  // Whether there is to be another round.
  bool NextRound() {
    if (rounds_ > 0 && (Clock::now() >= end_ || HasFailure())) return false;
    rounds_++;
    return true;
  }
  Random RandomOf(uint64_t thread) const {
    return Random(Random(TestSeed() + rounds_ * (kThreads + 1) + thread).Next());
  }

  uint64_t cluster_size() const { return GetParam().form.cluster_size; }

  void OpenImage(const ImageSpec& spec) {
    image_.reset();
    for (const char* name :
         {"/x.add-cow", "/disk.raw", "/base.img", "/base.add-cow", "/base.raw"})
      (void)file_system().Remove(directory() + name);
    ASSERT_OK_AND_ASSIGN(
        contents_, MakeTestImage(file_system(), directory(), InForm(spec, GetParam().form)));
    OpenAgain();
  }

  // As the next process finds it: after a clean stop, or after this one was
  // killed behind a flush.
  void Reopen(bool clean_stop) {
    ASSERT_OK(clean_stop ? image_->Close() : image_->Flush());
    image_.reset();
    OpenAgain();
  }

  // In one round of three without subclusters.
  void OpenAgain() {
    ASSERT_OK_AND_ASSIGN(image_, OpenTestImage(file_system(), directory(), OpenMode::kReadWrite,
                                               nullptr, rounds_ % 3 != 0));
  }

  // Runs `body(thread, random)` again and again in all threads, for one
  // round, or until one returns what is wrong.
  template <typename Body>
  void RunThreads(Body body) {
    std::unique_ptr<BackgroundFlush> background;
    if (GetParam().background_flush) {
      ASSERT_OK_AND_ASSIGN(background,
                           BackgroundFlush::Start(*image_, std::chrono::milliseconds(2),
                                                  [](LogLevel, const std::string& message) {
                                                    ADD_FAILURE() << message;
                                                  }));
    }
    if (Random setup = RandomOf(kThreads + 1); setup.OneIn(2)) {
      // Now and then with no room for all that is read.
      const uint64_t size = (4 * kKiB) << setup.Below(9);
      ASSERT_OK_AND_ASSIGN(
          fetch_, FetchThreads::Start(
                      *image_, {.size = size, .memory = setup.OneIn(3) ? 0 : 64 * kMiB},
                      [](LogLevel, const std::string& message) { ADD_FAILURE() << message; }));
    }
    fill_ = std::make_unique<Fill>(*image_,
                                   Fill::Options{.piece = cluster_size(), .look_again = {}},
                                   [](LogLevel level, const std::string& message) {
                                     if (level == LogLevel::kError) ADD_FAILURE() << message;
                                   });
    ASSERT_OK(fill_->Start(rounds_ % 4 == 3 ? FillMode::kTouched : FillMode::kAll));
    std::vector<std::string> wrong(kThreads);
    std::vector<std::thread> threads;
    std::atomic<bool> stop = false;
    done_ = 0;
    for (uint64_t i = 0; i < kThreads; i++) {
      threads.emplace_back([&, i] {
        Random random = RandomOf(i);
        for (uint64_t n = 0; n < kOperationsInARound && !stop; n++) {
          wrong[i] = body(i, random);
          operations_++;
          done_++;
          if (!wrong[i].empty()) stop = true;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    fill_.reset();
    fetch_.reset();
    EXPECT_EQ(wrong, std::vector<std::string>(kThreads)) << "in round " << rounds_;
  }

  Status Read(std::span<std::byte> buffer, uint64_t offset) {
    return fetch_ != nullptr ? fetch_->fetch().Read(buffer, offset)
                             : image_->Read(buffer, offset);
  }

  // A number below `count`, half of the time near where all threads are.
  uint64_t PickNear(Random& random, uint64_t count) const {
    if (random.OneIn(2)) return random.Below(count);
    const uint64_t place = done_ * count / (kThreads * kOperationsInARound);
    return std::min(place + random.Below(2), count - 1);
  }

  // What may go on beside anything else without a change of the contents.
  std::string Disturb(Random& random) {
    const uint64_t clusters = image_->bitmap().clusters();
    const uint64_t first = PickNear(random, clusters);
    const uint64_t count = random.Between(1, std::min<uint64_t>(clusters - first, 3));
    const uint64_t offset = first * cluster_size();
    const uint64_t end = std::min(offset + count * cluster_size(), image_->virtual_size());
    Status done;
    switch (random.Below(5)) {
      case 0:
        done = image_->Flush();
        break;
      case 1: {
        const FillStatus status = fill_->status();
        if (status.position > image_->virtual_size()) return "a fill is past the end";
        if (!status.error.empty()) return status.error;
        break;
      }
      case 2:
        (void)fill_->Step();
        break;
      case 3:
        // A few of the large ones are all of the disk.
        if (cluster_size() <= kClusterSize || random.OneIn(10))
          done = image_->CopyUp({first, count});
        break;
      default:
        // That would keep all of it, and end the races.
        done = fetch_ == nullptr ? image_->Prefetch(0, image_->virtual_size())
                                 : fetch_->fetch().Prefetch(offset, end - offset);
    }
    return done ? "" : done.error().Message();
  }

  // A map must cover its range without gaps whatever goes on. What is wrong
  // with a hole (which reads as zeroes) is for `check_hole` to say.
  template <typename CheckHole>
  std::string CheckMap(uint64_t offset, uint64_t length, CheckHole check_hole) {
    const uint64_t end = offset + length;
    std::string wrong;
    const Status done = image_->Map(offset, length, [&](const Extent& extent) {
      if (extent.offset != offset || extent.length == 0) wrong = "the map has a gap";
      offset += extent.length;
      if (wrong.empty() && !extent.data) wrong = check_hole(extent);
      return wrong.empty();
    });
    if (!done) return done.error().Message();
    if (wrong.empty() && offset != end) wrong = "the map does not end where it should";
    return wrong;
  }

  std::vector<std::byte> contents_;
  std::unique_ptr<Image> image_;
  std::unique_ptr<Fill> fill_;           // over image_, while threads run
  std::unique_ptr<FetchThreads> fetch_;  // over image_, while threads run; or none

 private:
  FakeFileSystem memory_;
  TempDir temp_dir_;
  Clock::time_point end_;
  uint64_t rounds_ = 0;
  std::atomic<uint64_t> done_ = 0;  // operations of this round
  std::atomic<uint64_t> operations_ = 0;
};

// Each thread owns every eighth stripe of the disk: it alone writes there and
// knows what it must read, whatever the others do to the rest of a cluster.
class Stripes {
 public:
  Stripes(ReferenceDisk& disk, uint64_t stripe) : disk_(disk), stripe_(stripe) {}

  uint64_t Count() const { return disk_.size() / stripe_ / kThreads; }  // of one thread

  // An odd range in the thread's stripe `index`.
  ByteRange Pick(uint64_t thread, uint64_t index, Random& random) const {
    const uint64_t stripe = index * kThreads + thread;
    const uint64_t skip = random.OneIn(4) ? 0 : random.Below(stripe_);
    const uint64_t length =
        random.OneIn(4) ? stripe_ - skip : random.Between(1, stripe_ - skip);
    return {stripe * stripe_ + skip, length};
  }

  // Empty, or where the extent, a hole, is not zero in the thread's stripes.
  std::string CheckHole(uint64_t thread, const Extent& extent) const {
    const uint64_t extent_end = extent.offset + extent.length;
    for (uint64_t i = 0; i < Count(); i++) {
      const uint64_t stripe = (i * kThreads + thread) * stripe_;
      const uint64_t start = std::max(stripe, extent.offset);
      const uint64_t end = std::min(stripe + stripe_, extent_end);
      if (start < end && !IsZero(disk_.Range(start, end - start)))
        return "reported as a hole, but is data: offset " + std::to_string(start) +
               ", length " + std::to_string(end - start);
    }
    return "";
  }

 private:
  ReferenceDisk& disk_;
  const uint64_t stripe_;
};

// Small stripes: eight threads share each cluster, and each sector has two.
// Middle ones leave holes in shared clusters. Large ones have whole clusters
// in them and share the first and the last.
TEST_P(StressTest, NeighboursDoNotDisturbEachOther) {
  while (NextRound()) {
    Random setup = RandomOf(kThreads);
    const uint64_t size = setup.Between(30, 50) * kClusterSize + setup.Below(kClusterSize) +
                          (cluster_size() > kClusterSize ? cluster_size() : 0);
    const uint64_t backing_size = setup.Between(1, size + 3 * kClusterSize);
    // A third of the backing files has holes in it.
    std::optional<std::vector<ByteRange>> backing_data;
    if (setup.OneIn(3) && backing_size > kClusterSize)
      backing_data = {{{setup.Below(backing_size / 2), backing_size / 3}}};
    OpenImage({.size = size,
               .backing_size = backing_size,
               .backing_data = backing_data,
               .garbage = setup.OneIn(2),
               .on_image = setup.OneIn(3),
               .seed = setup.Next()});
    ReferenceDisk disk(contents_);
    constexpr uint64_t kStripes[] = {1009, 20011, 150001};
    const Stripes stripes(disk, kStripes[setup.Below(std::size(kStripes))]);

    RunThreads([&](uint64_t thread, Random& random) -> std::string {
      const ByteRange range = stripes.Pick(thread, PickNear(random, stripes.Count()), random);
      const Fua fua = random.OneIn(100) ? Fua::kYes : Fua::kNo;
      const auto check_hole = [&](const Extent& hole) {
        return stripes.CheckHole(thread, hole);
      };
      Status done;
      switch (random.Below(20)) {
        case 0:
          return Disturb(random);
        case 1:
          return CheckMap(0, disk.size(), check_hole);
        case 2:
        case 3:
          return CheckMap(range.offset, range.length, check_hole);
        case 4:
        case 5:
        case 6:  // zero; with leave to punch also what a trim is
        case 7: {
          const ZeroOptions how{.may_punch = random.OneIn(2)};
          done = image_->Zero(range.offset, range.length, how, fua);
          if (done) disk.Zero(range.offset, range.length);
          break;
        }
        case 8:
        case 9:
        case 10:
        case 11:
        case 12: {
          const std::vector<std::byte> data = random.Bytes(range.length);
          done = image_->Write(data, range.offset, fua);
          if (done) disk.Write(data, range.offset);
          break;
        }
        default: {
          std::vector<std::byte> buffer(range.length);
          done = Read(buffer, range.offset);
          if (done) return disk.Check(buffer, range.offset);
        }
      }
      return done ? "" : done.error().Message();
    });

    EXPECT_EQ(disk.Check(ReadAll(*image_), 0), "");
    Reopen(setup.OneIn(2));
    EXPECT_EQ(disk.Check(ReadAll(*image_), 0), "");
  }
}

// All threads write and zero the same sectors, whole clusters among them.
// Each sector must read as one of the writes that it may be.
TEST_P(StressTest, OverlappingRequestsGiveOneOrTheOther) {
  const uint64_t unit = UnitOf(cluster_size());
  const uint64_t size =
      30 * kClusterSize + (cluster_size() > kClusterSize ? 2 * cluster_size() : 0);
  const uint64_t in_unit = unit / kSectorSize;
  const uint64_t sectors_of_disk = size / kSectorSize;
  while (NextRound()) {
    Random setup = RandomOf(kThreads);
    // The backing file is one hole: every sector starts out as zeroes.
    OpenImage({.size = size,
               .backing_size = size,
               .backing_data = std::vector<ByteRange>(),
               .garbage = setup.OneIn(2)});
    SharedSectors sectors(sectors_of_disk, std::byte{0});

    RunThreads([&](uint64_t, Random& random) -> std::string {
      if (random.OneIn(30)) return Disturb(random);
      uint64_t first = PickNear(random, size / unit) * in_unit;
      uint64_t count = in_unit;
      if (!random.OneIn(3)) {  // not a whole one
        first += random.Below(in_unit);
        count = random.Between(1, std::min<uint64_t>(sectors_of_disk - first, 20));
      } else if (random.OneIn(50)) {  // a whole cluster, however large
        first = RoundDown(first, cluster_size() / kSectorSize);
        count = std::min(cluster_size() / kSectorSize, sectors_of_disk - first);
      }
      const uint64_t offset = first * kSectorSize;
      if (random.OneIn(2)) {
        const uint64_t read = sectors.BeginRead();
        std::string wrong;
        if (random.OneIn(4)) {
          wrong = CheckMap(offset, count * kSectorSize, [&](const Extent& hole) {
            return sectors.Check(hole.offset / kSectorSize, Repeat(0, hole.length), read);
          });
        } else {
          std::vector<std::byte> buffer(count * kSectorSize);
          const Status done = Read(buffer, offset);
          wrong = done ? sectors.Check(first, buffer, read) : done.error().Message();
        }
        sectors.EndRead(read);
        return wrong;
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

    const uint64_t read = sectors.BeginRead();
    const std::vector<std::byte> before = ReadAll(*image_);
    EXPECT_EQ(sectors.Check(0, before, read), "");
    Reopen(setup.OneIn(2));
    EXPECT_EQ(Difference(ReadAll(*image_), before), "");
  }
}

std::string SetupName(const testing::TestParamInfo<Setup>& setup) { return setup.param.name; }

INSTANTIATE_TEST_SUITE_P(Files, StressTest,
                         testing::Values(Setup{"Memory", false, false},
                                         Setup{"MemoryWithBackgroundFlush", false, true},
                                         Setup{"RealFiles", true, false},
                                         Setup{"RealFilesWithBackgroundFlush", true, true},
                                         Setup{"MemoryOf4k", false, true, k4kForm},
                                         Setup{"RealFilesOf4k", true, false, k4kForm},
                                         Setup{"MemoryOf2M", false, false, k2MForm},
                                         Setup{"RealFilesOf2M", true, true, k2MForm}),
                         SetupName);

}  // namespace
}  // namespace addcow
