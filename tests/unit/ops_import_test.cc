// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow import: an image out of a layer that somebody else has, in every form; what
// failures and crashes leave; and what is read in what qemu-img prints.

#include "common/ops/import.h"

#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/forms.h"
#include "tests/support/import_fixture.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class ImportTest : public testing::Test {
 protected:
  ImportTest() { layer_.PutInto(fake_); }

  Result<ImportResult> Import(const CreateOptions& options) {
    return layer_.Import(fake_, options);
  }
  void ExpectLayer(const CreateOptions& options) {
    ASSERT_OK_AND_ASSIGN(const ImportResult result, Import(options));
    EXPECT_EQ(result.data, layer_.data_bytes());
    EXPECT_EQ(result.zeroes, layer_.zero_bytes());
    layer_.ExpectRead(fake_);
    ASSERT_OK_AND_ASSIGN(const CheckReport report,
                         CheckImage(fake_, kAddCowPath, Repair::kNone));
    EXPECT_FALSE(report.error);
    EXPECT_EQ(report.corruptions() + report.leaked_clusters + report.stray_bits, 0u);
  }

  FakeFileSystem fake_;
  ImportLayerFixture layer_;
};

TEST_F(ImportTest, ReadsAsTheLayerOnItsBaseInEveryForm) {
  for (const Form& form : {kVersion1Form, k4kForm, k64kForm, k2MForm})
    for (const bool subclusters : {true, false}) {
      SCOPED_TRACE(form.name + std::string(subclusters ? "" : ", without subclusters"));
      CreateOptions options = layer_.Options();
      options.revision = form.revision;
      options.cluster_size = form.cluster_size;
      options.subclusters = subclusters;
      ExpectLayer(options);
      ASSERT_OK(fake_.Remove(kAddCowPath));
      ASSERT_OK(fake_.Remove(kImagePath));
    }
}

TEST_F(ImportTest, TakesNothingOfTheBaseWhereTheLayerHasWholeClusters) {
  layer_.runs = {{{kC, kC}, true}, {{3 * kC, kC}, false}};
  ExpectLayer(layer_.Options());
  ASSERT_OK_AND_ASSIGN(auto image, fake_.Open(kImagePath, OpenMode::kReadOnly));
  ASSERT_OK_AND_ASSIGN(const uint64_t data, image->FindData(0));
  ASSERT_OK_AND_ASSIGN(const uint64_t hole, image->FindHole(data));
  EXPECT_EQ(data, kC);
  EXPECT_EQ(hole, 2 * kC);
  ASSERT_OK_AND_ASSIGN(const uint64_t next, image->FindData(hole));
  EXPECT_EQ(next, layer_.kSize);
  const FlagsOnDisk flags = ReadFlags(*fake_.Find(kAddCowPath));
  EXPECT_FALSE(flags.subclusters);
  EXPECT_FALSE(flags.all_allocated);
}

TEST_F(ImportTest, WithoutABaseEverythingIsAllocated) {
  layer_.has_base = false;
  ExpectLayer(layer_.Options());
  EXPECT_TRUE(ReadFlags(*fake_.Find(kAddCowPath)).all_allocated);
}

TEST_F(ImportTest, AnEmptyLayerHasNothing) {
  layer_.runs.clear();
  ExpectLayer(layer_.Options());
}

TEST_F(ImportTest, AnImageFileThatIsThereIsLeftAlone) {
  fake_.Put(kImagePath, Repeat(9, 1000));
  const auto before = fake_.Clone();
  EXPECT_TRUE(FailsSaying(Import(layer_.Options()), "a new image file is made here"));
  EXPECT_EQ(fake_.DifferenceFrom(*before), "");
  EXPECT_EQ(fake_.open_files(), 0);
}

TEST_F(ImportTest, InterruptedLeavesNothing) {
  const auto before = fake_.Clone();
  CreateOptions options = layer_.Options();
  int asked = 0;
  options.interrupted = [&] { return ++asked == 3; };
  EXPECT_TRUE(FailsWith(Import(options), kErrInterrupted));
  EXPECT_EQ(fake_.DifferenceFrom(*before), "");
}

TEST(QemuLayerTest, ReadsInfo) {
  const auto info = ParseQemuLayerInfo(R"({"virtual-size": 1024, "backing-filename": "b",
      "full-backing-filename": "/d/b", "backing-filename-format": "raw",
      "snapshots": [{}, {}], "format-specific": {"type": "qcow2", "data": {
      "bitmaps": [{}], "data-file": "f", "corrupt": true}}})",
                                       {.path = "/d/q", .format = "qcow2"});
  ASSERT_OK(info);
  EXPECT_EQ(info->image.backing_as_named, "b");
  EXPECT_EQ(info->image.backing_format, "raw");
  EXPECT_FALSE(info->encrypted);
  ASSERT_EQ(info->extras.size(), 4u);
  EXPECT_EQ(info->extras[0], "2 internal snapshots");
  EXPECT_EQ(info->extras[1], "1 bitmap");
  EXPECT_TRUE(ParseQemuLayerInfo(R"({"encrypted": true})", {.path = "/d/q", .format = "qcow2"})
                  ->encrypted);
  EXPECT_TRUE(ParseQemuLayerInfo(R"({"format-specific": {"data": {"encrypt": {}}}})",
                                 {.path = "/d/q", .format = "qcow2"})
                  ->encrypted);
  EXPECT_TRUE(FailsWith(ParseQemuLayerInfo("[", {.path = "/d/q", .format = "qcow2"}), EIO));
}

TEST(QemuLayerTest, ReadsTheMap) {
  const auto map = ParseQemuLayerMap(R"([
      {"start": 0, "length": 10, "depth": 0, "present": true, "zero": false, "data": true, "offset": 5},
      {"start": 10, "length": 10, "depth": 0, "present": true, "zero": false, "data": true},
      {"start": 20, "length": 10, "depth": 0, "present": true, "zero": true, "data": false},
      {"start": 30, "length": 10, "depth": 0, "present": false, "zero": true, "data": false},
      {"start": 40, "length": 10, "depth": 1, "present": true, "zero": false, "data": true, "offset": 5},
      {"start": 50, "length": 10, "depth": 0, "present": true, "zero": true, "data": true, "offset": 9}])",
                                     "/d/q");
  ASSERT_OK(map);
  const std::vector<LayerRun> expected = {
      {{0, 20}, true}, {{20, 10}, false}, {{50, 10}, false}};
  EXPECT_EQ(map->runs, expected);
  EXPECT_EQ(map->compressed, 10u);
  EXPECT_TRUE(FailsWith(ParseQemuLayerMap("[{", "/d/q"), EIO));
  EXPECT_TRUE(FailsWith(
      ParseQemuLayerMap(R"([{"start": 0, "length": 10, "depth": 0, "zero": true}])", "/d/q"),
      kErrUnsupported));
}

TEST(QemuLayerTest, NamesItWithoutItsBase) {
  EXPECT_EQ(*NameOfQemuLayer({.path = "/a\"b,c", .format = "qcow2"}),
            R"(json:{"backing":null,"driver":"qcow2","file":{"driver":"file",)"
            R"("filename":"/a\"b,c"},"force-share":false,"read-only":true})");
  EXPECT_TRUE(FailsWith(NameOfQemuLayer({.path = "/a\xff", .format = "qcow2"}), EINVAL));
}

}  // namespace
}  // namespace addcow
