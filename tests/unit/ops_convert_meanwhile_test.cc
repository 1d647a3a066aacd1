// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow upgrade and downgrade that are stopped, and what other programs do between the
// two times that they open the image: once to look, once to copy up.

#include <gtest/gtest.h>

#include <utility>

#include "common/ops/rebase.h"
#include "tests/support/convert_fixture.h"
#include "tests/support/forwarding_file.h"

namespace addcow {
namespace {

class ConvertMeanwhile : public ConvertFixture {};

TEST_F(ConvertMeanwhile, StoppedItLeavesTheDiskAndGoesOnWhenItIsRunAgain) {
  for (const bool subclusters : {true, false}) {
    for (uint64_t at = 1;; at++) {
      MakePartial();
      const Header header = TestHeader(fake_);
      ConvertOptions options = To(k64kForm, subclusters);
      uint64_t looks = 0;
      uint64_t last = 0;
      uint64_t total = 0;
      options.interrupted = [&] { return ++looks >= at; };
      options.progress = [&](uint64_t done, uint64_t of) {
        EXPECT_GE(done, last);
        EXPECT_LE(done, of);
        EXPECT_TRUE(total == 0 || total == of);
        last = done;
        total = of;
      };
      const auto converted = Convert(fake_, options);
      ExpectDisk();
      if (converted) {
        EXPECT_EQ(last, total);
        EXPECT_EQ(at, subclusters ? 2u : 5u);
        EXPECT_EQ(total, converted->copied);
        EXPECT_EQ(converted->copied, subclusters ? 0 : 3 * kC - 100);
        break;
      }
      EXPECT_TRUE(FailsWith(converted, kErrInterrupted));
      EXPECT_EQ(TestHeader(fake_).revision, header.revision);
      EXPECT_FALSE(TestHeader(fake_).no_subclusters);
      EXPECT_EQ(fake_.List().size(), 3u);
      ASSERT_OK(Convert(fake_, To(k64kForm, subclusters)));
      EXPECT_EQ(TestHeader(fake_).revision, Revision::kAcow);
      ExpectDisk();
    }
  }
}

// Acts between the two times that the files are opened, where something must be
// copied up.
class Meanwhile final : public Interceptor {
 public:
  Meanwhile(FakeFileSystem& files, std::function<void()> act)
      : files_(files), act_(std::move(act)) {}
  Verdict Before(const Operation& operation) override {
    if (operation.kind != OpKind::kOpen || operation.path != kAddCowPath) return {};
    if (opened_ && files_.open_files() == 0) std::exchange(act_, [] {})();
    opened_ = true;
    return {};
  }

 private:
  FakeFileSystem& files_;
  std::function<void()> act_;
  bool opened_ = false;
};

TEST_F(ConvertMeanwhile, AnotherProgramsChangeOfTheHeaderIsNotUndone) {
  for (const Form& meanwhile_to : {kVersion1Form, k8kForm}) {
    MakePartial(k64kForm);
    fake_.PutName("/vm/moved.img", fake_.Find(kBackingPath));
    bool acted = false;
    Meanwhile meanwhile(fake_, [&] {
      acted = true;
      ASSERT_OK(RebaseUnsafely(fake_, {.add_cow_path = kAddCowPath,
                                       .backing = NamedFile{"moved.img", "raw"},
                                       .image_name = {}}));
      ASSERT_OK(Convert(fake_, To(meanwhile_to)));
      ASSERT_OK(fake_.Remove(kBackingPath));
    });
    ForwardingFileSystem seam(fake_, meanwhile);
    EXPECT_TRUE(FailsWith(Convert(seam, To(k2MForm, false)), EAGAIN));
    EXPECT_TRUE(acted);
    EXPECT_EQ(TestHeader(fake_).backing->name, "moved.img");
    ExpectDisk();
  }
}

TEST_F(ConvertMeanwhile, AnotherProgramsWritesAreKept) {
  MakePartial(k64kForm);
  bool acted = false;
  Meanwhile meanwhile(fake_, [&] {
    acted = true;
    auto image = OpenTestImage(fake_);
    ASSERT_OK(image);
    ASSERT_OK((*image)->Write(Repeat(1, 5000), 3 * kC + 1000));
    ASSERT_OK((*image)->Close());
    std::ranges::fill(std::span(disk_).subspan(3 * kC + 1000, 5000), std::byte{1});
  });
  ForwardingFileSystem seam(fake_, meanwhile);
  EXPECT_OK(Convert(seam, To(k2MForm, false)));
  EXPECT_TRUE(acted);
  ExpectDisk();
}

}  // namespace
}  // namespace addcow
