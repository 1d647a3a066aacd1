// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What becomes of an image whose base is not what it was: each kind of base, each way to
// name it, each change; with a record of each age.

#include "common/image/identity.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "common/ops/create.h"
#include "common/ops/flatten.h"
#include "common/ops/rebase.h"
#include "tests/support/chain_fixture.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

enum class Kind { kRaw, kDevice, kImage };
enum class Way { kByHeader, kGiven, kIgnore };

// A disk on a base of three MiB and a bit, whose sample is not all of it. An add-cow base
// has its first cluster itself, and stands on low.img.
class IdentityTest : public testing::TestWithParam<std::tuple<Kind, Way>> {
 protected:
  static constexpr uint64_t kSize = 3 * kMiB + 4096;
  // Of the disk: a longer base is not cut.
  static constexpr uint64_t kDiskSize = 4 * kMiB;

  void SetUp() override {
    fake_.MakeDirectory(kDirectory);
    if (kind() != Kind::kImage) {
      Name(fake_.Put(BasePath(), kSize));
      ASSERT_TRUE(fake_.Find(BasePath())->Write(Repeat(7, kSize), 0));
      if (kind() == Kind::kDevice) Base().SetAbilities({.is_block_device = true});
    } else {
      fake_.Put("/vm/low.img", kSize - 8192);
      ASSERT_OK(CreateImage(fake_, {.add_cow_path = BasePath(),
                                    .image_name = "base.raw",
                                    .backing = NamedFile{"low.img", "raw"},
                                    .size = kSize}));
      Name(fake_.Find(BasePath()));
      WriteBase(0, 1);
    }
    Base().SetModified({1000, 5});
    ASSERT_OK(CreateImage(fake_, {.add_cow_path = kAddCowPath,
                                  .image_name = "disk.raw",
                                  .backing = NamedFile{BaseName(), Format()},
                                  .size = kDiskSize}));
    if (way() != Way::kGiven) return;
    ASSERT_OK(fake_.Remove(BasePath()));
  }
  void Name(std::shared_ptr<FakeInode> base) { fake_.PutName(Named(), std::move(base)); }

  static Kind kind() { return std::get<0>(GetParam()); }
  static Way way() { return std::get<1>(GetParam()); }
  static const char* Format() { return kind() == Kind::kImage ? "add-cow" : "raw"; }
  static std::string BaseName() { return kind() == Kind::kImage ? "base.add-cow" : "base.img"; }
  static std::string BasePath() { return "/vm/" + BaseName(); }
  static std::string Named() { return way() == Way::kGiven ? "/vm/moved" : BasePath(); }
  // The file that has the base's size, its first bytes and, for this test, its time.
  FakeInode& Base() { return *fake_.Find(kind() == Kind::kImage ? "/vm/base.raw" : Named()); }
  std::string RawPath() { return kind() == Kind::kImage ? "/vm/base.raw" : Named(); }
  // The time that it had.
  void SetTime(int64_t seconds) { Base().SetModified({seconds, 5}); }

  void WriteBase(uint64_t offset, uint8_t value) {
    if (kind() != Kind::kImage) {
      ASSERT_TRUE(Base().Write(Repeat(value, 1), offset));
      return;
    }
    ASSERT_OK_AND_ASSIGN(auto image, Image::Open(fake_, {.add_cow_path = Named()}, nullptr));
    ASSERT_OK(image->Write(Repeat(value, 1), offset));
    ASSERT_OK(image->Close());
  }

  ImageSource Source() const {
    ImageSource source{.add_cow_path = kAddCowPath};
    if (way() == Way::kGiven) source.backing_path = Named();
    source.access.check_identity = way() != Way::kIgnore;
    return source;
  }
  Result<ImageFiles> Open() { return OpenImageFiles(fake_, Source()); }
  // As with a base that cannot be read, but for its first bytes.
  Result<ImageFiles> OpenUnreadable() {
    FaultPlan plan({.at = 1,
                    .lasting = FaultPlan::Lasting::kPersistent,
                    .where = [&](const Operation& operation) {
                      return operation.kind == OpKind::kRead && operation.path == RawPath() &&
                             operation.length > 64;
                    }});
    ForwardingFileSystem faulty(fake_, plan);
    auto files = OpenImageFiles(faulty, Source());
    EXPECT_EQ(plan.fired(), way() != Way::kIgnore);
    return files;
  }

  // A device too, if not at once.
  void Resize(uint64_t size) {
    Base().SetAbilities({});
    ASSERT_TRUE(Base().Truncate(size));
    if (kind() == Kind::kDevice) Base().SetAbilities({.is_block_device = true});
  }
  // What the record says from its byte `at` on.
  void PutRecord(uint64_t at, std::initializer_list<uint8_t> bytes) {
    const std::vector<uint8_t> copy(bytes);
    ASSERT_TRUE(fake_.Find(kAddCowPath)
                    ->Write(std::as_bytes(std::span(copy)), kHeaderSize - kIdentityBytes + at));
  }
  void RemoveHash() { PutRecord(28, {0, 0, 0, 0}); }
  void MakeHashUnknown() { PutRecord(28, {77, 0, 0, 0}); }
  void RemoveRecord() {
    ASSERT_TRUE(fake_.Find(kAddCowPath)->Write(Repeat(0, 8), 36));  // optional features
  }

  static bool ignores() { return way() == Way::kIgnore; }
  static bool has_time() { return kind() != Kind::kDevice; }
  void ExpectServedSilently(const Result<ImageFiles>& files) { ExpectServed(files, ""); }
  // Served with one line that has `note`; without any where that is empty. Who ignores
  // it all has a line that says so, and no other.
  void ExpectServed(const Result<ImageFiles>& files, const std::string& note) {
    ASSERT_OK(files);
    const std::string wanted =
        ignores() ? "/vm/x.add-cow: what it stands on is not compared with what was noted of "
                    "that (identity=ignore)"
                  : note;
    ASSERT_EQ(files->notes.size(), wanted.empty() ? 0u : 1u)
        << fmt::format("{}", fmt::join(files->notes, "\n"));
    if (!wanted.empty()) {
      EXPECT_NE(files->notes[0].find(wanted), std::string::npos) << files->notes[0];
    }
  }
  void ExpectRefused(const Result<ImageFiles>& files, const std::string& text) {
    if (ignores()) return ExpectServed(files, "");
    EXPECT_TRUE(FailsWith(files, EINVAL));
    EXPECT_TRUE(FailsSaying(files, Named() + ": the backing file "));
    EXPECT_TRUE(FailsSaying(files, text));
    EXPECT_TRUE(FailsSaying(
        files,
        fmt::format("(to do without this check once: identity=ignore; to accept it as it is: "
                    "addcow rebase -u -b {} -F {} /vm/x.add-cow)",
                    way() == Way::kGiven ? Named() : BaseName(), Format())));
    EXPECT_EQ(fake_.open_files(), 0);
  }

  FakeFileSystem fake_;
};

TEST_P(IdentityTest, TheSameIsServedWithoutAWord) { ExpectServedSilently(Open()); }

TEST_P(IdentityTest, AnotherTimeIsALineWhereTheSampleIsTheSame) {
  SetTime(2000);
  ExpectServed(Open(), has_time()
                           ? "modified at 1970-01-01 00:33:20.000000005 UTC, but at "
                             "1970-01-01 00:16:40.000000005 UTC when /vm/x.add-cow noted "
                             "it; a sample of it is the same (to note what it is now: "
                           : "");
}

TEST_P(IdentityTest, AShorterOneIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Resize(kSize - 4096));
  ExpectRefused(Open(),
                fmt::format("has {} bytes, but had {} when /vm/x.add-cow noted it: what "
                            "is missing would read as zeroes",
                            kSize - 4096, kSize));
}

TEST_P(IdentityTest, ALongerOneIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Resize(kSize + 1));
  ExpectRefused(Open(), fmt::format("has {} bytes, but had {} when /vm/x.add-cow noted it: it "
                                    "is another one, or was written to",
                                    kSize + 1, kSize));
}

TEST_P(IdentityTest, AnotherSampleIsRefusedAtTheSameTime) {
  for (const uint64_t at : {uint64_t{0}, kMiB, kSize - 1}) {
    WriteBase(at, 99);
    SetTime(1000);
    ExpectRefused(Open(),
                  "does not hold what it held when /vm/x.add-cow noted it: it is "
                  "another one, or was written to");
    WriteBase(at, kind() != Kind::kImage ? 7 : at == 0 ? 1 : 0);
    SetTime(1000);
    ExpectServedSilently(Open());
  }
}

TEST_P(IdentityTest, AnotherSampleAtAnotherTimeIsRefusedWithBoth) {
  WriteBase(0, 99);
  SetTime(2000);
  ExpectRefused(Open(), has_time() ? "00:33:20.000000005 UTC, but at 1970-01-01 "
                                     "00:16:40.000000005 UTC when /vm/x.add-cow noted it, and "
                                     "does not hold what it held then: it is another one"
                                   : "does not hold what it held");
}

TEST_P(IdentityTest, OneThatCannotBeReadIsServedWithALine) {
  ExpectServed(OpenUnreadable(),
               "a sample of the backing file cannot be read, so it was not "
               "compared with what /vm/x.add-cow noted: pread: ");
}

TEST_P(IdentityTest, OneThatCannotBeReadAndHasAnotherTimeIsRefused) {
  SetTime(2000);
  const auto files = OpenUnreadable();
  if (has_time())
    ExpectRefused(files, ", and whether it is the same cannot be told: pread: ");
  else
    ExpectServed(files, "a sample of the backing file cannot be read");
}

TEST_P(IdentityTest, WithoutARecordAllIsServedAsBefore) {
  RemoveRecord();
  ExpectServedSilently(Open());
  WriteBase(0, 99);
  SetTime(2000);
  ExpectServedSilently(Open());
  ASSERT_NO_FATAL_FAILURE(Resize(kSize + 1));
  ExpectServedSilently(Open());
  ASSERT_NO_FATAL_FAILURE(Resize(kSize - 4096));
  ExpectServedSilently(Open());
}

// None, one of a newer program, and one whose sample would be larger than any.
TEST_P(IdentityTest, WithoutAHashAllIsServedAsBefore) {
  for (const int age : {0, 1, 2}) {
    if (age == 0) RemoveHash();
    if (age == 1) MakeHashUnknown();
    if (age == 2) {
      PutRecord(28, {1, 0, 0, 0});
      PutRecord(96, {1, 0, 16, 0});  // 1 MiB and a byte
    }
    SetTime(1000);
    ExpectServedSilently(Open());
    WriteBase(0, 99);
    SetTime(1000);
    ExpectServedSilently(Open());
    SetTime(2000);
    ExpectServed(Open(), has_time() ? "00:16:40.000000005 UTC when /vm/x.add-cow noted it (to "
                                      "note what it is now: "
                                    : "");
    ASSERT_NO_FATAL_FAILURE(Resize(kSize + 1));
    ExpectServed(Open(), "when /vm/x.add-cow noted it (to note what it is now: ");
    ASSERT_NO_FATAL_FAILURE(Resize(kSize - 4096));
    ExpectRefused(Open(), "what is missing would read as zeroes");
    ASSERT_NO_FATAL_FAILURE(Resize(kSize));
  }
}

TEST_P(IdentityTest, RebaseAcceptsItAndSaysWhatItIsNot) {
  WriteBase(0, 99);
  SetTime(2000);
  const std::string name = way() == Way::kGiven ? "moved" : BaseName();
  const RebaseOptions options{.add_cow_path = kAddCowPath,
                              .backing = NamedFile{name, Format()},
                              .image_name = {},
                              .access = {.check_identity = !ignores()}};
  ASSERT_OK_AND_ASSIGN(const RebaseResult result, RebaseUnsafely(fake_, options));
  // Who ignores what changed compares nothing, but is told that only of what the base
  // stands on.
  const std::string wanted =
      !ignores() ? Named() + ": does not hold what the backing file held that was noted so far"
      : kind() == Kind::kImage ? BasePath() + ": what it stands on is not compared"
                               : "";
  ASSERT_EQ(result.notes.size(), wanted.empty() ? 0u : 1u);
  if (!wanted.empty()) {
    EXPECT_NE(result.notes[0].find(wanted), std::string::npos) << result.notes[0];
  }
  ExpectServedSilently(Open());
}

std::string RowName(const testing::TestParamInfo<std::tuple<Kind, Way>>& row) {
  static constexpr std::array<const char*, 3> kKinds = {"Raw", "Device", "Image"};
  static constexpr std::array<const char*, 3> kWays = {"", "Given", "Ignored"};
  return std::string(kKinds.at(static_cast<size_t>(std::get<0>(row.param)))) +
         kWays.at(static_cast<size_t>(std::get<1>(row.param)));
}

INSTANTIATE_TEST_SUITE_P(
    Bases, IdentityTest,
    testing::Combine(testing::Values(Kind::kRaw, Kind::kDevice, Kind::kImage),
                     testing::Values(Way::kByHeader, Way::kGiven, Way::kIgnore)),
    RowName);

using IdentityOfChain = ChainFixture;

TEST_F(IdentityOfChain, ASwapFurtherDownIsSaidOfTheImageThatNotedIt) {
  MakeThree();
  ASSERT_TRUE(fake_.Find(kBackingPath)->Write(random_.Bytes(100), 0));
  EXPECT_TRUE(FailsSaying(Open("c"),
                          "/vm/base.img: the backing file does not hold what it held "
                          "when /vm/a.add-cow noted it"));
  EXPECT_TRUE(FailsSaying(Open("c"), "addcow rebase -u -b base.img -F raw /vm/a.add-cow"));
  EXPECT_TRUE(FailsSaying(Create("d", "c.add-cow", "add-cow"), "when /vm/a.add-cow noted it"));
  messages_.clear();
  ASSERT_OK(Open("c", OpenMode::kReadOnly, {.check_identity = false}));
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_NE(messages_[0].find("/vm/c.add-cow: what it stands on is not compared"),
            std::string::npos);
  // Accepted there, it is still not what b stood on.
  const RebaseOptions accept{
      .add_cow_path = Path("a"), .backing = NamedFile{"base.img", "raw"}, .image_name = {}};
  ASSERT_OK(RebaseUnsafely(fake_, accept));
  EXPECT_TRUE(FailsSaying(Open("c"), "when /vm/b.add-cow noted it"));
  NoteAnew();
  EXPECT_OK(Open("c"));
}

TEST_F(IdentityOfChain, ALowerImageThatIsFlattenedIsTheSame) {
  MakeThree();
  for (const char* const name : {"a", "b"})
    ASSERT_OK(FlattenImage(
        fake_, Path(name), [](LogLevel, const std::string&) {}, [](uint64_t, uint64_t) {}));
  fake_.Find("/vm/b.raw")->SetModified({4000000000, 5});
  messages_.clear();
  EXPECT_EQ(Difference(Read("c"), base_), "");
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_NE(messages_[0].find("; a sample of it is the same"), std::string::npos);
}

TEST_F(IdentityOfChain, AnotherImageFileCanBeNamedWhateverTheBaseIs) {
  MakeThree();
  ASSERT_TRUE(fake_.Find(kBackingPath)->Write(random_.Bytes(100), 0));
  fake_.PutName("/vm/moved.raw", fake_.Find("/vm/c.raw"));
  EXPECT_OK(RebaseUnsafely(
      fake_,
      {.add_cow_path = Path("c"), .backing = {}, .image_name = std::string("moved.raw")}));
}

TEST_F(IdentityOfChain, WhatHasAllClustersAsksForNoBase) {
  ASSERT_OK(Create("a", "base.img", "raw"));
  ASSERT_OK(FlattenImage(
      fake_, Path("a"), [](LogLevel, const std::string&) {}, [](uint64_t, uint64_t) {}));
  ASSERT_TRUE(fake_.Find(kBackingPath)->Write(random_.Bytes(100), 0));
  ASSERT_OK(Open("a"));
  ASSERT_OK(Open("a", OpenMode::kReadOnly, {.check_identity = false}));
  EXPECT_TRUE(messages_.empty());
}

TEST_F(IdentityOfChain, OfABaseThatCannotBeReadSizeAndTimeAreNoted) {
  fake_.Find(kBackingPath)->SetModified({1000, 5});
  FaultPlan plan({.at = 1,
                  .lasting = FaultPlan::Lasting::kPersistent,
                  .where = [](const Operation& operation) {
                    return operation.kind == OpKind::kRead && operation.length > 64;
                  }});
  ForwardingFileSystem faulty(fake_, plan);
  ASSERT_OK_AND_ASSIGN(const CreateResult created,
                       CreateImage(faulty, {.add_cow_path = Path("a"),
                                            .image_name = "a.raw",
                                            .backing = NamedFile{"base.img", "raw"},
                                            .size = {}}));
  ASSERT_EQ(created.notes.size(), 1u);
  EXPECT_NE(created.notes[0].find("no sample of the backing file is noted"), std::string::npos);
  ASSERT_OK_AND_ASSIGN(const Header header,
                       ParseHeader(fake_.Find(Path("a"))->Bytes(0, kHeaderSize), Path("a")));
  EXPECT_EQ(header.backing_identity,
            (BackingIdentity{.size = kSize, .modified = FileTime{1000, 5}}));
}

}  // namespace
}  // namespace addcow
