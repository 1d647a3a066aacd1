// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A fill, while every operation on the files fails in turn, in every way, with client's
// writes between its pieces. Whatever fails:
//
// - the disk reads what it should, the whole time;
// - the backing file is there for as long as anything needs it;
// - once the fault is gone the fill goes on to its end, the image file alone is the disk,
//   and the image is sound; but where a sync has failed it has ended, and says so.

#include <gtest/gtest.h>

#include <optional>

#include "common/jobs/fill.h"
#include "common/ops/check.h"
#include "tests/fault/sweep.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/reference_disk.h"

namespace addcow {
namespace {

const ImageSpec kFillSpec = {.size = 6 * kC + 5000,
                             .backing_size = 6 * kC - 700,
                             .backing_data = {{{0, 3 * kC + kS}, {4 * kC, 2 * kC - 700}}},
                             .allocated = {2},
                             .subclusters = {3, 4}};

class FillFault : public testing::TestWithParam<std::tuple<Sweep, bool>> {};

// A client, who knows what it was answered. Its writes are whole subclusters of one byte, so
// that of one that failed either can be told.
class FillClient {
 public:
  FillClient(Image& image, ReferenceDisk& disk) : image_(image), disk_(disk) {}

  void Write(uint64_t offset, uint64_t length) {
    const auto data = Repeat(0x77, length);
    if (image_.Write(data, offset))
      disk_.Write(data, offset);
    else
      unsure_.push_back({offset, length});
  }
  // What it can read is right.
  void Check() {
    for (uint64_t at = 0; at < disk_.size(); at += kS) {
      std::vector<std::byte> bytes(std::min(kS, disk_.size() - at));
      if (!image_.Read(bytes, at)) continue;
      for (const ByteRange range : unsure_)
        if (at >= range.offset && at < range.end() && bytes[0] == std::byte{0x77})
          disk_.Write(bytes, at);
      EXPECT_EQ(disk_.Check(bytes, at), "");
    }
  }

 private:
  Image& image_;
  ReferenceDisk& disk_;
  std::vector<ByteRange> unsure_;
};

TEST_P(FillFault, TheDiskIsRightAndTheFillGoesOn) {
  const auto& [sweep, subclusters] = GetParam();
  FakeFileSystem made;
  made.MakeDirectory(kDirectory);
  ASSERT_OK_AND_ASSIGN(const std::vector<std::byte> contents,
                       MakeTestImage(made, kDirectory, kFillSpec));
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan plan;
    SyncWatch watch;
    ForwardingFileSystem faulty(*files, plan);
    ForwardingFileSystem watched(faulty, watch);
    ReferenceDisk disk(contents);
    ASSERT_OK_AND_ASSIGN(auto image, OpenTestImage(watched, kDirectory, OpenMode::kReadWrite,
                                                   nullptr, subclusters));
    int logged = 0;
    std::optional<Fill> fill(std::in_place, *image,
                             Fill::Options{.piece = kC, .first_retry = {}},
                             [&](LogLevel level, const std::string&) {
                               if (level == LogLevel::kError) logged++;
                             });
    plan.Set(sweep.At(at));
    FillClient client(*image, disk);
    ASSERT_OK(fill->Start(FillMode::kAll));
    const auto steps = [&](int count) {
      for (int i = 0; i < count; i++) (void)fill->Step();
    };
    client.Write(5 * kS, kS);
    steps(2);
    client.Write(4 * kC + 2 * kS, 2 * kS);
    client.Check();
    steps(20);
    EXPECT_TRUE(image->backing().there() || ReadFlags(*files->Find(kAddCowPath)).all_allocated);
    client.Check();
    const bool fired = plan.fired();
    SCOPED_TRACE("after a fault of " + plan.hit());
    plan.Clear();
    EXPECT_LE(logged, fired && sweep.visible ? 2 : 0);  // twice: something succeeded between
    steps(40);
    const FillStatus status = fill->status();
    EXPECT_EQ(status.state, watch.failed() ? FillState::kFailed : FillState::kDone)
        << status.error;
    client.Check();
    const bool done = status.state == FillState::kDone;
    EXPECT_EQ(image->backing().there(), !done);
    if (done) {
      EXPECT_EQ(disk.Check(files->Find(kImagePath)->Bytes(0, disk.size()), 0), "");
    }
    fill.reset();
    image.reset();
    const auto report = CheckImage(*files, kAddCowPath, Repair::kNone);
    ASSERT_OK(report);
    EXPECT_EQ(report->corruptions() + report->check_errors, 0u);
    EXPECT_TRUE(files->Find(kBackingPath)->SameBytes(*made.Find(kBackingPath)));
    if (SweepEnds(at, fired, 10)) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Sweeps, FillFault,
                         testing::Combine(testing::ValuesIn(kSweeps), testing::Bool()),
                         [](const auto& one) {
                           return std::string(std::get<0>(one.param).name) +
                                  (std::get<1>(one.param) ? "" : "WithoutSubclusters");
                         });

}  // namespace
}  // namespace addcow
