// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow export, without QEMU: what is written where, what becomes of the file that was there,
// how the backing file is named, and what is refused. The same with a real qcow2 is in
// tests/shell/test-tool-export.sh; what failures and crashes leave, in tests/fault and
// tests/crash.

#include "common/ops/export.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/export_fixture.h"
#include "tests/support/forms.h"
#include "tests/support/operation_log.h"

namespace addcow {
namespace {

class ExportTest : public testing::Test {
 protected:
  // In place of an image that was made before.
  void Make(const ImageSpec& spec, const std::vector<uint64_t>& subclusters = {}) {
    for (const std::string& name : fake_.List()) (void)fake_.Remove(name);
    image_.PutInto(fake_, spec, subclusters);
    before_ = fake_.Clone();
  }

  Result<ExportResult> Export(const ExportOptions& options = ExportedImage::Options()) {
    auto result = image_.Export(logged_, options, [&] { log_.Clear(); });
    EXPECT_EQ(fake_.open_files(), 0);
    return result;
  }

  // Exports it, and expects what is written: "write", "punch hole", "zero range", and where.
  void ExpectWritten(const std::vector<std::string>& expected) {
    ASSERT_OK_AND_ASSIGN(result_, Export());
    image_.ExpectExported(fake_);
    std::vector<std::string> written;
    for (const auto& record : log_.Records([](const Operation& operation) {
           return operation.path.starts_with(kExportPath) && operation.length > 0 &&
                  IsChange(operation.kind);
         }))
      written.push_back(fmt::format("{} {}+{}", Name(record.operation.kind),
                                    record.operation.offset, record.operation.length));
    EXPECT_EQ(written, expected);
    ExportedImage::ExpectOnlyOutput(*before_, fake_);
  }

  // Refused so, and nothing is changed.
  void ExpectRefused(const ExportOptions& options, const std::string& text) {
    const auto before = fake_.Clone();
    EXPECT_TRUE(FailsSaying(Export(options), text));
    EXPECT_EQ(fake_.DifferenceFrom(*before), "");
  }

  FakeFileSystem fake_;
  OperationLog log_;
  ForwardingFileSystem logged_{fake_, log_};
  ExportedImage image_;
  std::unique_ptr<FakeFileSystem> before_;
  ExportResult result_;  // of ExpectWritten
};

TEST_F(ExportTest, ReadsAsTheDiskInEveryForm) {
  for (const Form& form : {kVersion1Form, k4kForm, k8kForm, k64kForm, k2MForm})
    for (const uint64_t size :
         {9 * kC, 9 * kC - kS, 9 * kC - 1024, 9 * kC - 100, 8 * kC + kS + 1}) {
      SCOPED_TRACE(fmt::format("{}, {} bytes", form.name, size));
      Make(InForm({.size = size, .backing_size = 9 * kC, .allocated = {0}}, form),
           form.cluster_size == 4 * kKiB
               ? std::vector<uint64_t>()
               : std::vector<uint64_t>{17, 70, 71, DivideUp(size, kS) - 1});
      ASSERT_OK_AND_ASSIGN(const ExportResult result, Export());
      EXPECT_EQ(result.virtual_size, RoundUp(size, kSectorSize));
      EXPECT_EQ(std::ranges::count_if(result.notes,
                                      [](const std::string& note) {
                                        return note.find("at its end, which are zero") !=
                                               std::string::npos;
                                      }),
                size % kSectorSize == 0 ? 0 : 1);
      image_.ExpectExported(fake_);
      ExportedImage::ExpectOnlyOutput(*before_, fake_);
    }
}

TEST_F(ExportTest, WritesWhatTheImageFileHasAndNothingElse) {
  Make({.size = 6 * kC, .backing_size = 6 * kC, .allocated = {1, 4}},
       {2 * 16, 2 * 16 + 1, 5 * 16 + 3});
  ExpectWritten({fmt::format("write {}+{}", kC, kC + 2 * kS),
                 fmt::format("write {}+{}", 4 * kC, kC),
                 fmt::format("write {}+{}", 5 * kC + 3 * kS, kS)});
}

TEST_F(ExportTest, AnImageThatHasNothingWritesNothing) {
  Make({.size = 4 * kC, .backing_size = 4 * kC});
  ExpectWritten({});
}

TEST_F(ExportTest, ZeroesWhatTheImageFileHasAsAHole) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .garbage = false, .allocated = {1, 2}}, {48});
  ExpectWritten({fmt::format("punch hole {}+{}", kC, 2 * kC + kS)});
  EXPECT_EQ(result_.data, 0u);
  EXPECT_EQ(result_.zeroes, 2 * kC + kS);
}

TEST_F(ExportTest, TellsDataFromZeroesWithinACluster) {
  Make({.size = 2 * kC, .backing_size = 2 * kC, .garbage = false, .allocated = {1}});
  ASSERT_TRUE(fake_.Find(kImagePath)->Write(Repeat(9, 2 * kS), kC + 3 * kS));
  ASSERT_OK_AND_ASSIGN(const ExportResult result, Export());
  EXPECT_EQ(result.data, 2 * kS);
  EXPECT_EQ(result.zeroes, kC - 2 * kS);
  auto disk = image_.disk();
  std::fill_n(disk.begin() + kC + 3 * kS, 2 * kS, std::byte{9});
  EXPECT_EQ(Difference(fake_.Find(kExportPath)->Bytes(0, 2 * kC), disk), "");
}

TEST_F(ExportTest, WithoutABackingFileZeroesAreLeftOut) {
  Make({.size = 4 * kC,
        .backing_size = std::nullopt,
        .garbage = false,
        .allocated = {0, 1, 2, 3},
        .all_allocated = true});
  ExpectWritten({});
  EXPECT_FALSE(result_.backing);
}

// Its name may lead nowhere.
TEST_F(ExportTest, WhatHasAllClustersStandsOnNothing) {
  Make({.size = 3 * kC + 700, .backing_size = 3 * kC + 700, .all_allocated = true});
  ASSERT_OK(fake_.Remove(kBackingPath));
  ASSERT_OK_AND_ASSIGN(const ExportResult result, Export());
  EXPECT_FALSE(result.backing);
  image_.ExpectExported(fake_);
}

TEST_F(ExportTest, TheRestOfTheLastSectorIsZeroWhereTheBackingFileGoesOn) {
  Make({.size = 3 * kC + 1000, .backing_size = 4 * kC});
  ExpectWritten({fmt::format("punch hole {}+24", 3 * kC + 1000)});
}

TEST_F(ExportTest, PastAShortBackingFileItIsZero) {
  Make({.size = 5 * kC, .backing_size = 2 * kC + 512, .allocated = {4}});
  ExpectWritten({fmt::format("write {}+{}", 4 * kC, kC)});
}

TEST_F(ExportTest, CopiesInPiecesThatEndWhereMebibytesDo) {
  Make({.size = 40 * kC, .backing_size = 40 * kC, .all_allocated = true});
  ExpectWritten({"write 0+1048576", "write 1048576+1048576",
                 fmt::format("write {}+{}", 2 * kMiB, 40 * kC - 2 * kMiB)});
}

TEST_F(ExportTest, ProgressEndsAtAll) {
  Make({.size = 40 * kC, .backing_size = 40 * kC, .allocated = {1, 30}});
  ExportOptions options = ExportedImage::Options();
  uint64_t last = 0;
  options.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, last);
    EXPECT_EQ(total, 2 * kC);
    last = done;
  };
  ASSERT_OK(Export(options));
  EXPECT_EQ(last, 2 * kC);
}

TEST_F(ExportTest, InterruptedItLeavesNothing) {
  for (const bool zeroes : {false, true}) {
    Make({.size = 4 * kC, .backing_size = 4 * kC, .garbage = !zeroes, .allocated = {1, 3}});
    ExportOptions options = ExportedImage::Options();
    int asked = 0;
    options.source.access.interrupted = [&] { return ++asked > 1; };
    EXPECT_TRUE(FailsWith(Export(options), kErrInterrupted));
    EXPECT_EQ(fake_.DifferenceFrom(*before_), "");
  }
}

TEST_F(ExportTest, TheDataIsSyncedBeforeTheFileGetsItsName) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1}});
  ASSERT_OK(Export());
  const auto steps = log_.Lines([](const Operation& operation) {
    return operation.path.starts_with(kExportDirectory) &&
           (operation.kind == OpKind::kWrite || operation.kind == OpKind::kRename ||
            IsSync(operation.kind));
  });
  ASSERT_EQ(steps.size(), 5u) << testing::PrintToString(steps);
  EXPECT_TRUE(steps[0].starts_with("write")) << steps[0];
  EXPECT_TRUE(steps[1].starts_with("sync /out")) << steps[1];
  EXPECT_TRUE(steps[2].starts_with("sync /out")) << steps[2];
  EXPECT_TRUE(steps[3].starts_with("rename")) << steps[3];
  EXPECT_EQ(steps[4], "sync directory /out");
}

TEST_F(ExportTest, TheBackingFileIsNamedFromWhereTheQcow2Is) {
  Make({.size = 4 * kC, .backing_size = 4 * kC});
  ExportOptions options = ExportedImage::Options();
  ASSERT_OK_AND_ASSIGN(const ExportResult other, Export(options));
  ASSERT_TRUE(other.backing);
  EXPECT_EQ(*other.backing, (NamedFile{"../vm/base.img", "raw"}));
  options.qcow2_path = "/vm/beside.qcow2";
  ASSERT_OK_AND_ASSIGN(const ExportResult beside, Export(options));
  EXPECT_EQ(*beside.backing, (NamedFile{"base.img", "raw"}));
  options.source.backing_path = "/vm/../vm/base.img";
  options.qcow2_path = "/out/given.qcow2";
  ASSERT_OK_AND_ASSIGN(const ExportResult given, Export(options));
  EXPECT_EQ(*given.backing, (NamedFile{"/vm/base.img", "raw"}));
}

TEST_F(ExportTest, ReplacesAQcow2OnlyIfToldTo) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1}});
  ExportedImage::PutOld(fake_);
  ExpectRefused(ExportedImage::Options(), "already exists (--force replaces a qcow2)");
  ASSERT_OK(Export(ExportedImage::Options(true)));
  image_.ExpectExported(fake_);
  fake_.Put(kExportPath);  // empty
  ASSERT_OK(Export(ExportedImage::Options(true)));
  image_.ExpectExported(fake_);
}

TEST_F(ExportTest, RefusesToReplaceWhatItMustNot) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1}});
  fake_.Put("/out/other", Repeat(9, 1000));
  ExportOptions options = ExportedImage::Options(true);
  for (const char* const path : {kAddCowPath, kImagePath, kBackingPath}) {
    options.qcow2_path = path;
    ExpectRefused(options, "is a part of the image that is to be exported");
  }
  options.qcow2_path = "/out/other";
  ExpectRefused(options, "/out/other: is not a qcow2, so it is not overwritten");
  fake_.Find("/out/other")->SetAbilities({.is_block_device = true});
  ExpectRefused(options, "/out/other: is a block device, and a new file is made here");
  options.force = false;
  ExpectRefused(options, "/out/other: is a block device, and a new file is made here");
  options.force = true;
  options.qcow2_path = "/out/";
  ExpectRefused(options, "is not the name of a file");
  options.qcow2_path = "/nowhere/x.qcow2";
  ExpectRefused(options, "/nowhere");
}

TEST_F(ExportTest, RefusesToReplaceAQcow2ThatSomebodyReads) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1}});
  ExportedImage::PutOld(fake_);
  ASSERT_OK_AND_ASSIGN(const auto reader, fake_.Open(kExportPath, OpenMode::kReadOnly));
  ASSERT_OK(reader->Lock(LockKind::kRead));
  const auto before = fake_.Clone();
  EXPECT_TRUE(FailsSaying(image_.Export(fake_, ExportedImage::Options(true)), "in use"));
  EXPECT_EQ(fake_.DifferenceFrom(*before), "");
}

TEST_F(ExportTest, RefusesAnImageOnAnAddCowImage) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1}, .on_image = true});
  ExpectRefused(ExportedImage::Options(), "which is an add-cow image, and QEMU reads none");
}

TEST_F(ExportTest, RefusesAnImageThatIsWrittenTo) {
  Make({.size = 4 * kC, .backing_size = 4 * kC, .allocated = {1}});
  ASSERT_OK_AND_ASSIGN(const auto server, OpenTestImage(fake_));
  EXPECT_TRUE(FailsSaying(image_.Export(fake_, ExportedImage::Options()), "in use"));
  EXPECT_EQ(fake_.Find(kExportPath), nullptr);
}

}  // namespace
}  // namespace addcow
