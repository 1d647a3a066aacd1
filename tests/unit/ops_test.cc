// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/ops: what the tool's verbs do, but for check (ops_check_test.cc).
// That whatever fails leaves nothing behind is in tests/fault.

#include <gtest/gtest.h>

#include <cstring>

#include "common/base/parse_size.h"
#include "common/ops/create.h"
#include "common/ops/flatten.h"
#include "common/ops/info.h"
#include "common/ops/map.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/forwarding_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

void DropLog(LogLevel, const std::string&) {}
void NoProgress(uint64_t, uint64_t) {}

TEST(ParseSize, TakesBytesSuffixesAndFractions) {
  const std::pair<const char*, uint64_t> kCases[] = {
      {"1", 1},
      {"007", 7},
      {"512b", 512},
      {"64k", 65536},
      {"64K", 65536},
      {"1.5M", 1572864},
      {"0.5k", 512},
      {"3G", 3 * kGiB},
      {"1T", kTiB},
      {"2p", 2048 * kTiB},
      {"7E", 7 * 1024 * 1024 * kTiB},
      {"1.0009765625k", 1025},
      {"0.33333333333333333333333333k", 341},
      {"7.9999999999999999999E", kMaxOffset},
      {"9223372036854775807", kMaxOffset},
  };
  for (const auto& [text, bytes] : kCases) {
    const auto size = ParseSize(text);
    ASSERT_OK(size) << text;
    EXPECT_EQ(*size, bytes) << text;
  }
}

TEST(ParseSize, RefusesAllElse) {
  for (const char* text : {"",
                           "0",
                           "0k",
                           "0.0G",
                           "0.0001k",
                           "k",
                           "-1",
                           "+1",
                           " 1",
                           "1 ",
                           "1kB",
                           "1kk",
                           "1e3",
                           "0x10",
                           "1.",
                           ".5G",
                           "1.5",
                           "1.5b",
                           "1..5k",
                           "1,5G",
                           "inf",
                           "9223372036854775808",
                           "8E",
                           "9E",
                           "99999999999999999999999999999999999999999999",
                           "17179869184G"})
    EXPECT_TRUE(FailsSaying(ParseSize(text), std::string("size '") + text + "'"));
}

TEST(ParseRate, TakesASizeAndNoLimit) {
  EXPECT_EQ(ParseRate("0"), 0u);
  EXPECT_EQ(ParseRate("50M"), 50 * kMiB);
  for (const char* text : {"", "fast", "0M", "00", "-1", "1.5"})
    EXPECT_EQ(ParseRate(text), std::nullopt) << text;
}

class OpsTest : public testing::Test {
 protected:
  OpsTest() { fake_.MakeDirectory(kDirectory); }

  // x.add-cow over base.img, which has 100000 bytes unless it was put there.
  CreateOptions Overlay() {
    if (fake_.Find(kBackingPath) == nullptr) fake_.Put(kBackingPath, Repeat(7, 100000));
    CreateOptions options;
    options.add_cow_path = kAddCowPath;
    options.image_name = "disk.raw";
    options.backing = NamedFile{"base.img", "raw"};
    return options;
  }
  CreateOptions Alone(std::optional<uint64_t> size) {
    CreateOptions options;
    options.add_cow_path = kAddCowPath;
    options.image_name = "disk.raw";
    options.size = size;
    return options;
  }
  Result<CreateResult> Create(const CreateOptions& options) {
    return CreateImage(seam_, options);
  }
  // A create that must fail, with `text` in its message, and change nothing.
  void ExpectRefused(const CreateOptions& options, const std::string& text) {
    const auto before = fake_.List();
    EXPECT_TRUE(FailsSaying(Create(options), text));
    EXPECT_EQ(fake_.List(), before);
  }
  Header HeaderOnDisk(const std::string& path = kAddCowPath) {
    auto header = ParseHeader(fake_.Find(path)->Bytes(0, kHeaderSize), path);
    EXPECT_OK(header);
    return header ? *header : Header();
  }

  FakeFileSystem fake_;
  OperationLog log_;
  ForwardingFileSystem seam_{fake_, log_};
};

TEST_F(OpsTest, CreateMakesASparseImageAndASparseBitmap) {
  ASSERT_OK_AND_ASSIGN(const CreateResult result, Create(Overlay()));
  EXPECT_EQ(result.virtual_size, 100000u);
  EXPECT_EQ(result.image_path, kImagePath);
  EXPECT_FALSE(result.image_was_there);
  EXPECT_EQ(fake_.Find(kImagePath)->size(), 100000u);
  EXPECT_EQ(fake_.Find(kImagePath)->Info()->allocated_bytes, 0u);
  EXPECT_EQ(fake_.Find(kAddCowPath)->size(), kHeaderSize + kBitmapPadding);
  // The bits have storage, but are no data yet.
  EXPECT_EQ(fake_.Find(kAddCowPath)->Info()->allocated_bytes, kHeaderSize + 4096);
  EXPECT_FALSE(fake_.Find(kAddCowPath)->SeekData(kBitmapOffset));
  const Header header = HeaderOnDisk();
  EXPECT_EQ(header.image, (NamedFile{"disk.raw", "raw"}));
  EXPECT_EQ(header.backing, (NamedFile{"base.img", "raw"}));
  EXPECT_FALSE(header.all_allocated);
}

TEST_F(OpsTest, CreateSyncsTheImageBeforeTheAddCowFileAppears) {
  ASSERT_OK(Create(Overlay()));
  const auto changes = log_.Changes();
  ASSERT_GE(changes.size(), 6u);
  EXPECT_EQ(std::vector(changes.begin(), changes.begin() + 4),
            (std::vector<std::string>{"create /vm/disk.raw", "truncate /vm/disk.raw 100000",
                                      "sync /vm/disk.raw", "sync directory /vm"}));
  EXPECT_TRUE(changes[4].starts_with("create /vm/x.add-cow.")) << changes[4];
  EXPECT_EQ(changes.back(), "sync directory /vm");
}

TEST_F(OpsTest, CreateWithoutBackingAllocatesEveryClusterAndKeepsTheBytes) {
  fake_.Put(kImagePath, Repeat(5, 9 * kClusterSize + 1));
  ASSERT_OK_AND_ASSIGN(const CreateResult result, Create(Alone({})));
  EXPECT_TRUE(result.image_was_there);
  EXPECT_FALSE(result.old_data_ignored);
  EXPECT_TRUE(HeaderOnDisk().all_allocated);
  // Ten bits, and none past the last cluster.
  EXPECT_EQ(fake_.Find(kAddCowPath)->Bytes(kBitmapOffset, 3),
            (std::vector{std::byte{0xff}, std::byte{0x03}, std::byte{0}}));
  auto image = OpenTestImage(fake_);
  ASSERT_OK(image);
  EXPECT_EQ(ReadAll(**image), Repeat(5, 9 * kClusterSize + 1));
}

TEST_F(OpsTest, CreateSaysThatOldBytesAreIgnored) {
  fake_.Put(kImagePath, 200000);
  ASSERT_OK_AND_ASSIGN(const CreateResult sparse, Create(Overlay()));
  EXPECT_FALSE(sparse.old_data_ignored);
  EXPECT_EQ(sparse.virtual_size, 200000u);
  fake_.Put(kImagePath, Repeat(5, 200000));
  CreateOptions again = Overlay();
  again.force = true;
  again.reuse_image = true;
  ASSERT_OK_AND_ASSIGN(const CreateResult full, Create(again));
  EXPECT_TRUE(full.old_data_ignored);
}

TEST_F(OpsTest, CreateChecksTheSize) {
  ExpectRefused(Alone({}), "size must be given");
  fake_.Put(kImagePath, 5000);
  ExpectRefused(Alone(5001), "has 5000 bytes, not 5001");
  EXPECT_OK(Create(Alone(5000)));
  fake_.Put("/vm/empty");
  CreateOptions options = Alone({});
  options.add_cow_path = "/vm/y.add-cow";
  options.image_name = "empty";
  ExpectRefused(options, "empty");
  CreateOptions overlay = Overlay();
  overlay.add_cow_path = "/vm/z.add-cow";
  overlay.image_name = "new.raw";
  overlay.backing = NamedFile{"empty", "raw"};
  ExpectRefused(overlay, "the backing file is empty");
}

TEST_F(OpsTest, CreateResolvesNamesFromTheAddCowFilesDirectoryOnly) {
  fake_.Put("/cwd/base.img", Repeat(1, 10));
  fake_.Put("/cwd/old.raw", Repeat(1, 10));
  CreateOptions options;
  options.add_cow_path = "/cwd/sub/x.add-cow";
  fake_.MakeDirectory("/cwd/sub");
  options.image_name = "old.raw";
  options.backing = NamedFile{"base.img", "raw"};
  ExpectRefused(options, "/cwd/sub/base.img: not found");
  ExpectRefused(options, "for /cwd/base.img say -b ../base.img");
  options.backing.reset();
  ExpectRefused(options, "say -i ../old.raw");
  options.image_name = "../old.raw";
  EXPECT_OK(Create(options));
}

TEST_F(OpsTest, CreateNeedsABackingFormatThatIsRead) {
  CreateOptions options = Overlay();
  options.backing->format = "luks";
  ExpectRefused(options, "qemu-img convert -O raw");
  EXPECT_TRUE(FailsWith(Create(options), kErrUnsupported));
}

TEST_F(OpsTest, CreateWantsThreeDifferentFiles) {
  CreateOptions options = Overlay();
  options.image_name = "./base.img";
  ExpectRefused(options, "different files");
  fake_.PutName("/vm/hard.raw", fake_.Find(kBackingPath));
  options.image_name = "hard.raw";
  ExpectRefused(options, "different files");
  // A file that is not there yet has no identity, but a place.
  options = Alone(10);
  options.image_name = "../vm/x.add-cow";
  ExpectRefused(options, "different files");
  // With force, the add-cow file that is there.
  ASSERT_OK(Create(Overlay()));
  options = Overlay();
  options.force = true;
  options.image_name = "x.add-cow";
  ExpectRefused(options, "different files");
  options = Overlay();
  options.force = true;
  options.backing->name = "x.add-cow";
  ExpectRefused(options, "different files");
}

TEST_F(OpsTest, CreateReplacesOnlyAddCowFilesAndOnlyIfForced) {
  ASSERT_OK(Create(Overlay()));
  ExpectRefused(Overlay(), "--force");
  CreateOptions options = Overlay();
  options.force = true;
  EXPECT_OK(Create(options));
  options.add_cow_path = kBackingPath;
  options.backing.reset();
  ExpectRefused(options, "is not an add-cow file");
  // A corrupt one may go: that is what force is for.
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Truncate(8).has_value());
  options = Overlay();
  options.force = true;
  EXPECT_OK(Create(options));
}

TEST_F(OpsTest, CreateReplacesWhatASymbolicLinkLeadsTo) {
  ASSERT_OK(Create(Overlay()));
  fake_.PutSymbolicLink("/cwd/link", kAddCowPath);
  CreateOptions options = Overlay();
  options.add_cow_path = "link";
  options.image_name = "other.raw";
  options.force = true;
  ASSERT_OK(Create(options));
  EXPECT_EQ(HeaderOnDisk().image.name, "other.raw");
  EXPECT_NE(fake_.Find("/vm/other.raw"), nullptr);
}

TEST_F(OpsTest, InfoNeedsNoBackingFile) {
  ASSERT_OK(Create(Overlay()));
  ASSERT_OK(fake_.Remove(kBackingPath));
  ASSERT_OK_AND_ASSIGN(const ImageInfo info, GetInfo(fake_, kAddCowPath));
  EXPECT_EQ(info.header.revision, Revision::kVersion1);
  EXPECT_EQ(info.virtual_size, 100000u);
  EXPECT_EQ(info.actual_size, kHeaderSize + 4096);  // and storage for the bits
  EXPECT_EQ(info.image_path, kImagePath);
  EXPECT_EQ(info.backing_path, kBackingPath);
  ASSERT_OK(fake_.Remove(kImagePath));
  EXPECT_TRUE(FailsSaying(GetInfo(fake_, kAddCowPath), "disk.raw: not found"));
}

TEST_F(OpsTest, InfoCountsAllocatedClusters) {
  ASSERT_OK(MakeTestImage(fake_, kDirectory,
                          {.size = 19 * kClusterSize, .allocated = {0, 3, 4, 18}}));
  // Bits past the last cluster do not count.
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(Repeat(0xfc, 1), kBitmapOffset + 2).has_value());
  ASSERT_OK_AND_ASSIGN(const ImageInfo info, GetInfo(fake_, kAddCowPath));
  EXPECT_EQ(info.total_clusters, 19u);
  EXPECT_EQ(info.allocated_clusters, 4u);
  ASSERT_OK(FlattenImage(fake_, kAddCowPath, DropLog, NoProgress));
  // The flag counts, whatever the bits say.
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(Repeat(0, 3), kBitmapOffset).has_value());
  ASSERT_OK_AND_ASSIGN(const ImageInfo flat, GetInfo(fake_, kAddCowPath));
  EXPECT_EQ(flat.allocated_clusters, 19u);
}

TEST_F(OpsTest, InfoTellsTheUseByOthersFromTheirLocks) {
  ASSERT_OK(MakeTestImage(fake_, kDirectory, {}));
  const auto use = [&] {
    const auto info = GetInfo(fake_, kAddCowPath);
    EXPECT_OK(info);
    return info ? info->use : std::nullopt;
  };
  EXPECT_EQ(use(), FileUse::kNone);
  {
    ASSERT_OK_AND_ASSIGN(const auto reader,
                         OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly));
    EXPECT_EQ(use(), FileUse::kRead);
  }
  {
    ASSERT_OK_AND_ASSIGN(const auto server, OpenTestImage(fake_));
    EXPECT_EQ(use(), FileUse::kWrite);
  }
  {
    // Only the image file, as QEMU would have it.
    ASSERT_OK_AND_ASSIGN(const auto image, fake_.Open(kImagePath, OpenMode::kReadWrite));
    ASSERT_OK(image->Lock(LockKind::kWrite));
    EXPECT_EQ(use(), FileUse::kWrite);
  }
  fake_.Find(kImagePath)->SetAbilities({.lock = false});
  EXPECT_EQ(use(), std::nullopt);
}

TEST_F(OpsTest, VerbsTakeOtherNamesThanTheHeaders) {
  ASSERT_OK(MakeTestImage(fake_, kDirectory, {}));
  fake_.MakeDirectory("/moved");
  ASSERT_OK(fake_.Rename(kImagePath, "/moved/i", RenameMode::kReplace));
  ASSERT_OK(fake_.Rename(kBackingPath, "/moved/b", RenameMode::kReplace));
  ImageSource source{.add_cow_path = kAddCowPath, .access = {.option_prefix = "--"}};
  const auto map = [&] {
    return MapImage(fake_, source, DropLog, [](const MapEntry&) { return true; });
  };
  EXPECT_TRUE(FailsSaying(map(),
                          "disk.raw: not found, but it is the image file of /vm/x.add-cow "
                          "(if it was moved, say --image=FILE)"));
  source.image_path = "/moved/i";
  EXPECT_TRUE(FailsSaying(map(), "(if it was moved, say --backing=FILE)"));
  ASSERT_OK_AND_ASSIGN(const ImageInfo info, GetInfo(fake_, source));
  EXPECT_EQ(info.image_path, "/moved/i");
  source.backing_path = "/moved/b";
  EXPECT_OK(map());
  EXPECT_OK(FlattenImage(fake_, source, DropLog, NoProgress, Interrupted()));
}

TEST_F(OpsTest, MapTellsLayersAndHoles) {
  ASSERT_OK(MakeTestImage(fake_, kDirectory,
                          {.size = 4 * kClusterSize,
                           .backing_size = 2 * kClusterSize,
                           .backing_data = {{{0, kClusterSize}}},
                           .garbage = false,
                           .allocated = {3}}));
  ASSERT_TRUE(fake_.Find(kImagePath)->Write(Repeat(1, 4096), 3 * kClusterSize).has_value());
  ASSERT_TRUE(fake_.Find(kImagePath)
                  ->PunchHole(3 * kClusterSize + 4096, kClusterSize - 4096)
                  .has_value());
  std::vector<MapEntry> map;
  ASSERT_OK(MapImage(fake_, kAddCowPath, DropLog, [&](const MapEntry& entry) {
    map.push_back(entry);
    return true;
  }));
  const auto expect = [&](size_t index, uint64_t start, uint64_t length, int depth,
                          bool present, bool data) {
    ASSERT_LT(index, map.size());
    EXPECT_EQ(map[index].start, start) << index;
    EXPECT_EQ(map[index].length, length) << index;
    EXPECT_EQ(map[index].depth, depth) << index;
    EXPECT_EQ(map[index].present, present) << index;
    EXPECT_EQ(map[index].data, data) << index;
    EXPECT_EQ(map[index].zero, !data) << index;
    EXPECT_EQ(map[index].file != nullptr, present) << index;
  };
  expect(0, 0, kClusterSize, 1, true, true);
  expect(1, kClusterSize, kClusterSize, 1, true, false);
  expect(2, 2 * kClusterSize, kClusterSize, 0, false, false);
  expect(3, 3 * kClusterSize, 4096, 0, true, true);
  expect(4, 3 * kClusterSize + 4096, kClusterSize - 4096, 0, true, false);
  EXPECT_EQ(map.size(), 5u);
}

TEST_F(OpsTest, FlattenMakesTheImageFileTheDisk) {
  ASSERT_OK_AND_ASSIGN(const auto disk, MakeTestImage(fake_, kDirectory,
                                                      {.size = 300 * kClusterSize + 1,
                                                       .backing_size = 290 * kClusterSize + 5,
                                                       .allocated = {0, 17, 299}}));
  std::vector<std::pair<uint64_t, uint64_t>> progress;
  ASSERT_OK_AND_ASSIGN(
      const FlattenResult result,
      FlattenImage(seam_, kAddCowPath, DropLog,
                   [&](uint64_t done, uint64_t total) { progress.emplace_back(done, total); }));
  EXPECT_EQ(result.copied, 297 * kClusterSize + 1);
  EXPECT_EQ(result.image_path, kImagePath);
  EXPECT_EQ(Difference(fake_.Find(kImagePath)->Bytes(0, disk.size()), disk), "");
  EXPECT_TRUE(HeaderOnDisk().all_allocated);
  ASSERT_GE(progress.size(), 2u);
  EXPECT_EQ(progress.front(), std::pair(uint64_t{0}, result.copied));
  EXPECT_EQ(progress.back(), std::pair(result.copied, result.copied));
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
}

TEST_F(OpsTest, FlattenAgainHasNothingToDoAndNeedsNoBackingFile) {
  ASSERT_OK(MakeTestImage(fake_, kDirectory, {}));
  ASSERT_OK(FlattenImage(fake_, kAddCowPath, DropLog, NoProgress));
  ASSERT_OK(fake_.Remove(kBackingPath));
  ASSERT_OK_AND_ASSIGN(const FlattenResult result,
                       FlattenImage(seam_, kAddCowPath, DropLog, NoProgress));
  EXPECT_EQ(result.copied, 0u);
  EXPECT_EQ(log_.Count(OpKind::kWrite), 0u);
}

// A run that was killed between writing the last bits and the flag.
TEST_F(OpsTest, FlattenSetsTheFlagWhereAllBitsAreSetAlready) {
  ASSERT_OK(MakeTestImage(fake_, kDirectory, {.allocated = {0, 1, 2, 3}}));
  ASSERT_OK(FlattenImage(fake_, kAddCowPath, DropLog, NoProgress));
  EXPECT_TRUE(HeaderOnDisk().all_allocated);
}

TEST_F(OpsTest, FlattenSaysWhichFileIsNotWritable) {
  for (const char* path : {kAddCowPath, kImagePath}) {
    FakeFileSystem files;
    files.MakeDirectory(kDirectory);
    ASSERT_OK(MakeTestImage(files, kDirectory, {}));
    files.ForbidWriting(path, EACCES);
    const auto result = FlattenImage(files, kAddCowPath, DropLog, NoProgress);
    EXPECT_TRUE(FailsWith(result, EACCES));
    EXPECT_TRUE(FailsSaying(result, path));
  }
}

}  // namespace
}  // namespace addcow
