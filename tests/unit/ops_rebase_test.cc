// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow rebase -u: names and the backing file's identity change, and nothing
// else does; what cannot be right is refused. What failures and crashes leave
// is in tests/fault and tests/crash.

#include "common/ops/rebase.h"

#include <gtest/gtest.h>

#include "common/format/sample.h"
#include "common/ops/check.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

class RebaseTest : public testing::Test {
 protected:
  RebaseTest() {
    fake_.MakeDirectory(kDirectory);
    auto disk =
        MakeTestImage(fake_, kDirectory, {.size = 5 * kClusterSize, .allocated = {1, 4}});
    EXPECT_OK(disk);
    disk_ = *disk;
    before_ = fake_.Find(kAddCowPath)->Bytes(0, kHeaderSize + kBitmapPadding);
  }
  Result<RebaseResult> Rebase(std::optional<std::string> backing,
                              std::optional<std::string> image = {}) {
    RebaseOptions options{.add_cow_path = kAddCowPath, .backing = {}, .image_name = image};
    if (backing) options.backing = NamedFile{*backing, "raw"};
    return RebaseUnsafely(fake_, options);
  }
  // Must fail so, and change nothing.
  void ExpectRefused(const Result<RebaseResult>& result, const std::string& text) {
    EXPECT_TRUE(FailsSaying(result, text));
    EXPECT_EQ(fake_.Find(kAddCowPath)->Bytes(0, kHeaderSize + kBitmapPadding), before_);
  }
  Header HeaderOnDisk() {
    auto header = ParseHeader(fake_.Find(kAddCowPath)->Bytes(0, kHeaderSize), kAddCowPath);
    EXPECT_OK(header);
    return header ? *header : Header();
  }
  void ExpectDisk() {
    auto image = OpenTestImage(fake_);
    ASSERT_OK(image);
    EXPECT_EQ(Difference(ReadAll(**image), disk_), "");
  }

  FakeFileSystem fake_;
  std::vector<std::byte> disk_;
  std::vector<std::byte> before_;
};

TEST_F(RebaseTest, GivesTheBackingFileAnotherNameAndNotesWhatItIs) {
  fake_.PutName("/bases/moved.img", fake_.Find(kBackingPath));
  ASSERT_OK(fake_.Remove(kBackingPath));
  fake_.Find("/bases/moved.img")->SetModified({77, 5});
  ASSERT_OK_AND_ASSIGN(const RebaseResult result, Rebase("../bases/moved.img"));
  EXPECT_EQ(HeaderOnDisk(), result.header);
  EXPECT_EQ(HeaderOnDisk().backing, (NamedFile{"../bases/moved.img", "raw"}));
  EXPECT_EQ(
      HeaderOnDisk().backing_identity,
      (BackingIdentity{
          .size = 4 * kClusterSize,
          .modified = FileTime{77, 5},
          .sample = BackingSample{
              .edge = kMostSampleEdge,
              .hash = Xxh3(fake_.Find("/bases/moved.img")->Bytes(0, 4 * kClusterSize))}}));
  ExpectDisk();
}

TEST_F(RebaseTest, GivesTheImageFileAnotherNameAndKeepsWhatIsNotedOfTheBase) {
  ASSERT_OK(Rebase("base.img"));
  fake_.PutName("/vm/moved.raw", fake_.Find(kImagePath));
  ASSERT_OK(fake_.Remove(kImagePath));
  fake_.Find(kBackingPath)->SetModified({1, 1});  // not noted by this
  const auto identity = HeaderOnDisk().backing_identity;
  ASSERT_OK(Rebase({}, "moved.raw"));
  EXPECT_EQ(HeaderOnDisk().image.name, "moved.raw");
  EXPECT_EQ(HeaderOnDisk().backing_identity, identity);
  ExpectDisk();
}

TEST_F(RebaseTest, TheNewImageFileNeedsNoBackingFile) {
  fake_.PutName("/vm/moved.raw", fake_.Find(kImagePath));
  ASSERT_OK(fake_.Remove(kImagePath));
  ASSERT_OK(fake_.Remove(kBackingPath));
  EXPECT_OK(Rebase({}, "moved.raw"));
}

TEST_F(RebaseTest, KeepsEverythingElse) {
  Header header = HeaderOnDisk();
  header.optional_features = 0x80;
  header.all_allocated = true;
  auto bytes = SerializeHeader(header, "x");
  ASSERT_OK(bytes);
  FakeInode& add_cow = *fake_.Find(kAddCowPath);
  ASSERT_TRUE(add_cow.Write(*bytes, 0));
  ASSERT_TRUE(add_cow.Truncate(kHeaderSize + 5 * kBitmapPadding + 3));
  ASSERT_TRUE(add_cow.Write(Repeat(0xab, 3), kHeaderSize + 5 * kBitmapPadding));
  add_cow.SetRights(0640, 11, 12);
  add_cow.SetAttributes({{"user.note", "5"}});
  const uint64_t storage = add_cow.Info()->allocated_bytes;
  const auto bitmap = add_cow.Bytes(kBitmapOffset, 5 * kBitmapPadding + 3);
  ASSERT_OK(Rebase("base.img"));
  EXPECT_EQ(HeaderOnDisk().optional_features, 0x80u);
  EXPECT_TRUE(HeaderOnDisk().all_allocated);
  const FakeInode& now = *fake_.Find(kAddCowPath);
  EXPECT_EQ(now.size(), kHeaderSize + 5 * kBitmapPadding + 3);
  EXPECT_EQ(now.Bytes(kBitmapOffset, bitmap.size()), bitmap);
  EXPECT_EQ(now.Info()->permissions, 0640u);
  EXPECT_EQ(now.Info()->owner, 11u);
  EXPECT_EQ(now.Info()->group, 12u);
  EXPECT_EQ(now.GetAttributes(), (Attributes{{"user.note", "5"}}));
  EXPECT_EQ(now.Info()->allocated_bytes, storage) << "holes stay holes";
}

// The record is not copied, so nothing must say that there is one.
TEST_F(RebaseTest, ARecordThatIsNotUnderstoodGoesWithItsBit) {
  for (const bool names_backing : {false, true}) {
    FakeInode& add_cow = *fake_.Find(kAddCowPath);
    Header header = HeaderOnDisk();
    header.backing_identity.reset();
    header.optional_features = kOptionalBackingIdentity | 0x80;
    ASSERT_OK_AND_ASSIGN(HeaderBytes bytes, SerializeHeader(header, "x"));
    bytes[kHeaderSize - kIdentityBytes] = std::byte{2};  // the record's version
    ASSERT_TRUE(add_cow.Write(bytes, 0));
    ASSERT_EQ(HeaderOnDisk().optional_features, kOptionalBackingIdentity | 0x80);
    ASSERT_OK_AND_ASSIGN(const RebaseResult result, names_backing
                                                        ? Rebase("base.img")
                                                        : Rebase(std::nullopt, "/vm/disk.raw"));
    EXPECT_EQ(HeaderOnDisk(), result.header);
    EXPECT_EQ(HeaderOnDisk().optional_features, 0x80u);
    EXPECT_EQ(HeaderOnDisk().backing_identity.has_value(), names_backing);
  }
}

// How a base that has become shorter is accepted.
TEST_F(RebaseTest, TheSameNameAcceptsTheBaseAsItIs) {
  ASSERT_OK(Rebase("base.img"));
  ASSERT_TRUE(fake_.Find(kBackingPath)->Truncate(100));
  EXPECT_FALSE(OpenTestImage(fake_));
  ASSERT_OK_AND_ASSIGN(const RebaseResult result, Rebase("base.img"));
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_NE(result.notes[0].find("has 100 bytes, and the backing file so far had 262144"),
            std::string::npos);
  EXPECT_OK(OpenTestImage(fake_));
}

TEST_F(RebaseTest, RefusesAFileWithTwoNames) {
  fake_.PutName("/vm/second.add-cow", fake_.Find(kAddCowPath));
  ExpectRefused(Rebase("base.img"), "has 2 names (hard links)");
  ASSERT_OK(fake_.Remove("/vm/second.add-cow"));
  ASSERT_OK(Rebase("base.img"));
  ExpectDisk();
}

TEST_F(RebaseTest, RefusesWhatCannotBeABackingFile) {
  fake_.Put("/vm/empty");
  fake_.Put("/vm/other.add-cow", before_);
  ExpectRefused(Rebase("none.img"), "/vm/none.img: not found (names start");
  ExpectRefused(Rebase("empty"), "the backing file is empty");
  ExpectRefused(Rebase("other.add-cow"), "is an add-cow file");
  ExpectRefused(Rebase("disk.raw"), "both the backing file and the image file");
  ExpectRefused(Rebase("x.add-cow"), "both the backing file and the add-cow file");
  ExpectRefused(Rebase(""), "");
  ExpectRefused(RebaseUnsafely(fake_, {.add_cow_path = kAddCowPath,
                                       .backing = NamedFile{"base.img", "luks"},
                                       .image_name = {}}),
                "backing format 'luks' cannot be served");
}

TEST_F(RebaseTest, RefusesWhatCannotBeTheImageFile) {
  fake_.Put("/vm/short.raw", 4 * kClusterSize);
  ExpectRefused(Rebase({}, "none.raw"), "/vm/none.raw: not found (names start");
  ExpectRefused(Rebase({}, "base.img"), "both the image file and the backing file");
  ExpectRefused(Rebase({}, "x.add-cow"), "both the image file and the add-cow file");
  ExpectRefused(Rebase({}, "short.raw"), "has 262144 bytes, but the image file so far");
  // Without the old one, what is allocated must fit.
  ASSERT_OK(fake_.Remove(kImagePath));
  ExpectRefused(Rebase({}, "short.raw"),
                "has 262144 bytes, so data in 1 cluster would be cut off");
}

// It may be another disk's file, which the next write would destroy.
TEST_F(RebaseTest, RefusesAnImageFileWithDataWhereNothingIsAllocated) {
  fake_.Put("/vm/other.raw", 5 * kClusterSize);
  FakeInode& other = *fake_.Find("/vm/other.raw");
  ASSERT_TRUE(other.Write(Repeat(7, 100), 4 * kClusterSize));
  ASSERT_TRUE(other.Write(Repeat(7, 100), 3 * kClusterSize + 4000));
  ExpectRefused(Rebase({}, "other.raw"),
                "/vm/other.raw: holds data in 1 cluster where nothing is allocated: perhaps "
                "another disk's, which would be overwritten (in a copy of this disk's they are "
                "leaks: run addcow check -r leaks /vm/x.add-cow, and copy again)");
  // Where the old one is gone it may be that, and is taken where it can be.
  ASSERT_OK(fake_.Remove(kImagePath));
  ASSERT_OK_AND_ASSIGN(const RebaseResult result, Rebase({}, "other.raw"));
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_EQ(result.notes[0],
            "/vm/other.raw: holds data in 1 cluster where nothing is allocated, which is "
            "overwritten in time: be sure that it is this disk's");
}

TEST_F(RebaseTest, RefusesAnImageFileThatLacksDataOfTheOldOne) {
  FakeInode& old = *fake_.Find(kImagePath);
  ASSERT_TRUE(old.Write(Repeat(0, 5 * kClusterSize), 0));
  fake_.Put("/vm/copy.raw", 5 * kClusterSize);
  // Holes of a copy that was made sparse.
  EXPECT_OK(Rebase({}, "copy.raw"));
  before_ = fake_.Find(kAddCowPath)->Bytes(0, kHeaderSize + kBitmapPadding);
  ASSERT_TRUE(fake_.Find("/vm/copy.raw")->Write(Repeat(7, 1), kClusterSize + 5000));
  fake_.Put("/vm/other.raw", 5 * kClusterSize);
  ExpectRefused(Rebase({}, "other.raw"),
                "/vm/other.raw: lacks data of this disk at 69632, which the image file so far, "
                "/vm/copy.raw, has: is it a copy? (to make one: cp --sparse=always "
                "/vm/copy.raw /vm/other.raw)");
}

TEST_F(RebaseTest, RefusesDataWhereNoClusterIsAllocated) {
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(Repeat(0, 1), kBitmapOffset));
  before_ = fake_.Find(kAddCowPath)->Bytes(0, kHeaderSize + kBitmapPadding);
  fake_.PutName("/vm/other.raw", fake_.Find(kImagePath));
  ASSERT_OK(fake_.Remove(kImagePath));
  ExpectRefused(Rebase({}, "other.raw"), "an empty file of its size will do");
}

// What it has left over is its own.
TEST_F(RebaseTest, TakesTheSameFileUnderAnotherNameWithItsLeaks) {
  ASSERT_TRUE(fake_.Find(kImagePath)->Write(Repeat(7, 100), 3 * kClusterSize));
  fake_.PutName("/vm/link.raw", fake_.Find(kImagePath));
  EXPECT_OK(Rebase({}, "link.raw"));
  ExpectDisk();
}

// Where the old file shows that they are.
TEST_F(RebaseTest, StrayBitsAreNotTakenForClustersThatWouldBeCutOff) {
  ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(Repeat(0xff, 1), kBitmapOffset + 10));
  fake_.PutName("/vm/copy.raw", fake_.Find(kImagePath)->Clone());
  ASSERT_OK_AND_ASSIGN(const RebaseResult result, Rebase({}, "copy.raw"));
  EXPECT_EQ(result.virtual_size, 5 * kClusterSize);
  ASSERT_OK(fake_.Remove("/vm/copy.raw"));
  fake_.Put("/vm/short.raw", 4 * kClusterSize);
  EXPECT_TRUE(FailsSaying(Rebase({}, "short.raw"),
                          "addcow check -r all --image=/vm/short.raw /vm/x.add-cow"));
}

// A copy that was just made may be in the cache only.
TEST_F(RebaseTest, TheNewImageFileIsDurableBeforeItIsNamed) {
  fake_.PutName("/vm/copy.raw", fake_.Find(kImagePath)->Clone());
  OperationLog log;
  ForwardingFileSystem seam(fake_, log);
  ASSERT_OK(RebaseUnsafely(
      seam, {.add_cow_path = kAddCowPath, .backing = {}, .image_name = "copy.raw"}));
  const auto lines = log.Lines([](const Operation& operation) {
    return (IsSync(operation.kind) && operation.path == "/vm/copy.raw") ||
           operation.kind == OpKind::kRename || operation.kind == OpKind::kSyncDirectory;
  });
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0], "sync /vm/copy.raw");
  EXPECT_EQ(lines[1], "sync directory /vm");
  EXPECT_NE(lines[2].find("rename"), std::string::npos);
  EXPECT_EQ(lines[3], "sync directory /vm");
}

TEST_F(RebaseTest, SaysWhereMoreMayReadTheImageFileThanTheNewBase) {
  fake_.Find(kImagePath)->SetRights(0644, 1, 1);
  fake_.Find(kBackingPath)->SetRights(0640, 1, 1);
  ASSERT_OK_AND_ASSIGN(RebaseResult result, Rebase("base.img"));
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_NE(result.notes[0].find("may be read by more users"), std::string::npos);
  fake_.Find(kImagePath)->SetRights(0640, 1, 1);
  ASSERT_OK_AND_ASSIGN(result, Rebase("base.img"));
  EXPECT_EQ(result.notes.size(), 0u);
  // Within the group's bits, which are its mask, a list can name others: no user, the group
  // rw-, and all within r--.
  const std::string list("\2\0\0\0\4\0\6\0\377\377\377\377\20\0\4\0\377\377\377\377", 20);
  fake_.Find(kImagePath)->SetAttributes({{kAclAttribute, list}});
  ASSERT_OK_AND_ASSIGN(result, Rebase("base.img"));
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_NE(result.notes[0].find("may be read by more users"), std::string::npos);
}

TEST_F(RebaseTest, RefusesAnImageThatIsInUse) {
  for (const OpenMode mode : {OpenMode::kReadWrite, OpenMode::kReadOnly}) {
    ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(fake_, kDirectory, mode));
    EXPECT_TRUE(FailsWith(Rebase("base.img"), EBUSY));
  }
  // And a base that somebody writes to.
  FakeFile writer("w", fake_.Find(kBackingPath));
  ASSERT_OK(writer.Lock(LockKind::kWrite));
  EXPECT_TRUE(FailsWith(Rebase("base.img"), EBUSY));
}

TEST_F(RebaseTest, RefusesAnAddCowFileThatMayNotBeWritten) {
  fake_.ForbidWriting(kAddCowPath, EACCES);
  EXPECT_TRUE(FailsWith(Rebase("base.img"), EACCES));
}

TEST_F(RebaseTest, ANameThatStaysIsConfined) {
  fake_.PutName("/secret", fake_.Find(kImagePath));
  ASSERT_OK(fake_.Remove(kImagePath));
  fake_.PutSymbolicLink(kImagePath, "/secret");
  RebaseOptions options{
      .add_cow_path = kAddCowPath, .backing = NamedFile{"base.img", "raw"}, .image_name = {}};
  EXPECT_OK(RebaseUnsafely(fake_, options));
  options.access.confine = "/vm";
  EXPECT_TRUE(FailsWith(RebaseUnsafely(fake_, options), EXDEV));
}

TEST_F(RebaseTest, SaysWhereTheNamesLeaveNoRoomForTheIdentity) {
  const std::string dots = [] {
    std::string text;
    while (text.size() < 3790) text += "./";
    return text;
  }();
  ASSERT_OK_AND_ASSIGN(const RebaseResult result, Rebase(dots + "base.img"));
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_EQ(HeaderOnDisk().backing_identity, std::nullopt);
  ExpectDisk();
}

}  // namespace
}  // namespace addcow
