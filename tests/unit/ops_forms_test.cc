// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The tool's verbs on images of every form: a life from "create" to "flatten", what
// "check" finds and mends, and a file that was made for another disk.

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "common/ops/create.h"
#include "common/ops/flatten.h"
#include "common/ops/info.h"
#include "common/ops/map.h"
#include "common/ops/rebase.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/forms.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

class OpsForms : public testing::TestWithParam<Form> {
 protected:
  OpsForms() { fake_.MakeDirectory(kDirectory); }

  static void NoLog(LogLevel, const std::string&) {}

  uint64_t cluster() const { return GetParam().cluster_size; }
  bool has_subclusters() const { return cluster() > kS; }
  // Two clusters, and a part of a third that ends within a subcluster.
  uint64_t size() const { return 2 * cluster() + cluster() / 2 + 100; }

  void Make(ImageSpec spec) {
    for (const std::string& name : fake_.List()) (void)fake_.Remove(name);
    spec.size = size();
    spec.backing_size = size();
    auto disk = MakeTestImage(fake_, kDirectory, InForm(spec, GetParam()));
    ASSERT_OK(disk);
    disk_ = std::move(*disk);
  }
  FakeInode& AddCow() { return *fake_.Find(kAddCowPath); }

  CreateOptions Options() const {
    CreateOptions options;
    options.add_cow_path = kAddCowPath;
    options.image_name = "disk.raw";
    options.backing = NamedFile{"base.img", "raw"};
    options.revision = GetParam().revision;
    options.cluster_size = cluster();
    return options;
  }

  void ExpectDisk() {
    ASSERT_OK_AND_ASSIGN(const auto image,
                         OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly));
    EXPECT_EQ(Difference(ReadAll(*image), disk_), "");
  }
  CheckReport Check(Repair repair = Repair::kNone) {
    auto report = CheckImage(fake_, kAddCowPath, repair);
    EXPECT_OK(report);
    if (!report) return {};
    EXPECT_FALSE(report->error);
    EXPECT_EQ(report->check_errors, 0u);
    return *report;
  }

  FakeFileSystem fake_;
  std::vector<std::byte> disk_;
};

INSTANTIATE_TEST_SUITE_P(, OpsForms,
                         testing::Values(kVersion1Form, k64kForm, k4kForm, k8kForm, k2MForm),
                         [](const testing::TestParamInfo<Form>& one) {
                           return one.param.name;
                         });

TEST_P(OpsForms, ALifeFromCreateToFlatten) {
  disk_ = Random(TestSeed()).Bytes(size());
  fake_.Put(kBackingPath, disk_);
  ASSERT_OK(CreateImage(fake_, Options()));
  const Layout layout = TestLayout(fake_);
  EXPECT_EQ(layout.geometry(), ReadGeometry(AddCow()));
  EXPECT_EQ(AddCow().size(), layout.bitmap().padded_end());
  EXPECT_TRUE(TestHeader(fake_).backing_identity);
  ExpectDisk();
  {
    ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(fake_));
    const auto data = Repeat(1, kS);
    for (const uint64_t at : {uint64_t{0}, cluster()}) {
      ASSERT_OK(image->Write(data, at));
      std::ranges::copy(data, disk_.begin() + static_cast<std::ptrdiff_t>(at));
    }
    ASSERT_OK(image->Zero(size() - 50, 50, {}));
    std::fill(disk_.end() - 50, disk_.end(), std::byte{0});
    ASSERT_OK(image->Close());
  }
  ExpectDisk();
  EXPECT_EQ(TestHeader(fake_).subclusters, has_subclusters());
  ASSERT_OK_AND_ASSIGN(const ImageInfo info, GetInfo(fake_, kAddCowPath));
  EXPECT_EQ(info.total_clusters, 3u);
  EXPECT_EQ(info.allocated_clusters, has_subclusters() ? 0u : 3u);
  EXPECT_EQ(info.partial_clusters, has_subclusters() ? 3u : 0u);
  EXPECT_EQ(info.allocated_subclusters, has_subclusters() ? 3u : 0u);
  uint64_t of_image = 0;
  ASSERT_OK(MapImage(fake_, kAddCowPath, NoLog, [&](const MapEntry& entry) {
    if (entry.depth == 0) of_image += entry.length;
    return true;
  }));
  EXPECT_EQ(of_image, 2 * kS + size() % kS);
  EXPECT_EQ(Check().corruptions() + Check().leaked_clusters + Check().stray_bits, 0u);

  ASSERT_OK(RebaseUnsafely(fake_, {.add_cow_path = kAddCowPath,
                                   .backing = NamedFile{"./base.img", "raw"},
                                   .image_name = "./disk.raw"}));
  EXPECT_EQ(TestLayout(fake_).geometry(), layout.geometry());
  ExpectDisk();
  ASSERT_OK(FlattenImage(fake_, kAddCowPath, NoLog, [](uint64_t, uint64_t) {}));
  ASSERT_OK(fake_.Remove(kBackingPath));
  EXPECT_TRUE(TestHeader(fake_).all_allocated);
  EXPECT_FALSE(TestHeader(fake_).subclusters);
  EXPECT_EQ(AddCow().size(), layout.bitmap().padded_end());
  EXPECT_EQ(Check().corruptions() + Check().stray_bits, 0u);
  ExpectDisk();
  EXPECT_EQ(Difference(fake_.Find(kImagePath)->Bytes(0, size()), disk_), "");
}

TEST_P(OpsForms, WithoutABackingFileAllIsAllocated) {
  CreateOptions options = Options();
  options.backing.reset();
  disk_ = Random(TestSeed()).Bytes(size());
  fake_.Put(kImagePath, disk_);
  ASSERT_OK(CreateImage(fake_, options));
  EXPECT_TRUE(TestHeader(fake_).all_allocated);
  const Layout layout = TestLayout(fake_);
  EXPECT_EQ(AddCow().Bytes(layout.bitmap().offset, 1), Repeat(0x07, 1)) << "the bits, too";
  EXPECT_EQ(Check().corruptions() + Check().stray_bits, 0u);
  ExpectDisk();
}

TEST_P(OpsForms, CheckGivesLeaksBackAndKeepsWhatIsAllocated) {
  ImageSpec spec{.allocated = {1}};
  if (has_subclusters()) spec.subclusters = {1};
  Make(spec);
  EXPECT_EQ(Check().leaked_clusters, 2u);
  EXPECT_EQ(Check(Repair::kLeaks).leaked_clusters, 0u);
  EXPECT_EQ(Check().leaked_clusters, 0u);
  ExpectDisk();
  const auto& image = *fake_.Find(kImagePath);
  EXPECT_EQ(image.Info()->allocated_bytes, cluster() + (has_subclusters() ? kS : 0));
}

TEST_P(OpsForms, CheckSetsBitsThatAreMissingAndClearsThoseThatAreTooMany) {
  Make({.all_allocated = true});
  const BitmapPlace place = TestLayout(fake_).bitmap();
  ASSERT_TRUE(AddCow().Write(Repeat(0xf4, 1), place.offset));
  EXPECT_EQ(Check().missing_bits, 2u);
  EXPECT_EQ(Check().stray_bits, 4u);
  EXPECT_EQ(Check(Repair::kAll).corruptions(), 0u);
  EXPECT_EQ(AddCow().Bytes(place.offset, 1), Repeat(0x07, 1));
  EXPECT_EQ(AddCow().size(), place.padded_end());
  ExpectDisk();
}

// In version 1 only writers pad.
TEST_P(OpsForms, CheckPadsWhatMustBePadded) {
  const bool must = GetParam().revision == Revision::kAcow;
  Make({.allocated = {0}});
  const BitmapPlace place = TestLayout(fake_).bitmap();
  ASSERT_TRUE(AddCow().Truncate(place.end()));
  ExpectDisk();
  EXPECT_EQ(Check().unpadded, must);
  EXPECT_EQ(Check().corruptions(), must ? 1u : 0u);
  EXPECT_EQ(Check(Repair::kAll).corruptions(), 0u);
  EXPECT_EQ(Check().corruptions(), 0u);
  EXPECT_EQ(AddCow().size(), must ? place.padded_end() : place.end());
  ExpectDisk();
}

// The bits of both bitmaps by the padding, for disks of some units of it: each pair is
// told apart, and the largest disk is said that has just this length.
TEST_P(OpsForms, ASubclusterBitmapOfAnotherDiskIsNoticed) {
  if (!has_subclusters()) return;
  Make({.subclusters = {0}});
  const Header header = TestHeader(fake_);
  const uint64_t unit = 8 * header.geometry().padding * kS;
  const auto place = [&](uint64_t size) {
    return Layout(size, header.geometry()).subcluster_bitmap();
  };
  const uint64_t most = cluster() > kC ? 12 : 30;
  for (uint64_t was = 1; was <= most; was++) {
    ASSERT_TRUE(AddCow().Truncate(place(was * unit).padded_end()));
    for (uint64_t is = 1; is <= most; is++) {
      for (const uint64_t size : {is * unit - unit + 1, is * unit}) {
        ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(size));
        const auto files =
            OpenImageFiles(fake_, {.add_cow_path = kAddCowPath, .want_backing = false});
        ASSERT_EQ(files.has_value(), was == is) << was << " " << is;
        if (files) continue;
        EXPECT_TRUE(FailsSaying(
            files, std::to_string(was * unit) + (was > is ? " bytes at most" : " at most")));
      }
    }
  }
}

TEST_P(OpsForms, ADiskThatHasGrownIsRefusedWithARemedy) {
  Make({.all_allocated = true});
  const Geometry geometry = TestLayout(fake_).geometry();
  const uint64_t most = 8 * geometry.padding * geometry.cluster_size;
  ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(most));
  EXPECT_OK(OpenTestImage(fake_));
  ASSERT_TRUE(fake_.Find(kImagePath)->Truncate(most + 1));
  const auto opened = OpenTestImage(fake_);
  EXPECT_TRUE(FailsSaying(
      opened, "the COW bitmap is that of a disk of " + std::to_string(most) + " at most"));
  EXPECT_TRUE(
      FailsSaying(opened, "truncate -s " +
                              std::to_string(Layout(most + 1, geometry).bitmap().padded_end()) +
                              " /vm/x.add-cow"));
}

}  // namespace
}  // namespace addcow
