// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/image/base: images that stand on other images. What they read, what of them
// is a hole, what is refused, and what the tool makes of them.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "common/image/base.h"
#include "common/ops/check.h"
#include "common/ops/flatten.h"
#include "common/ops/info.h"
#include "common/ops/map.h"
#include "common/ops/rebase.h"
#include "tests/support/chain_fixture.h"
#include "tests/support/fault_file.h"

namespace addcow {
namespace {

using ChainTest = ChainFixture;

TEST_F(ChainTest, EachLayerHidesWhatIsBelow) {
  MakeThree();
  auto wanted = base_;
  for (const char* const name : {"a", "b", "c"}) {
    for (int i = 0; i < 6; i++) {
      const uint64_t offset = random_.Below(kSize - 1);
      const auto data =
          random_.Bytes(random_.Between(1, std::min<uint64_t>(kSize - offset, 9000)));
      // Each is written to before anything stands on it.
      std::ranges::copy(data, wanted.begin() + static_cast<std::ptrdiff_t>(offset));
      Write(name, offset, data);
    }
    EXPECT_EQ(Difference(Read(name), wanted), "") << name;
  }
  EXPECT_EQ(Difference(Read("c"), wanted), "");
}

TEST_F(ChainTest, ALongerLayerReadsZeroesPastAShorterOne) {
  ASSERT_OK(Create("a", "base.img", "raw"));
  ASSERT_OK(Create("b", "a.add-cow", "add-cow", kC, 6 * kC));
  auto wanted = base_;
  wanted.resize(6 * kC);
  EXPECT_EQ(Difference(Read("b"), wanted), "");
  ASSERT_OK(Create("c", "b.add-cow", "add-cow", kC, 2 * kC));
  wanted.resize(2 * kC);
  EXPECT_EQ(Difference(Read("c"), wanted), "");
}

TEST_F(ChainTest, AFlattenedOneStandsAlone) {
  MakeThree();
  Write("a", 100, Repeat(1, 5000));
  Write("b", 3000, Repeat(2, 5000));
  const auto wanted = Read("c");
  ASSERT_OK(FlattenImage(
      fake_, Path("c"), [](LogLevel, const std::string&) {}, [](uint64_t, uint64_t) {}));
  for (const char* const name : {"a.add-cow", "a.raw", "b.add-cow", "b.raw", "base.img"})
    ASSERT_OK(fake_.Remove(std::string("/vm/") + name));
  EXPECT_EQ(Difference(Read("c"), wanted), "");
}

TEST_F(ChainTest, HolesOfEveryLayerAreHoles) {
  ASSERT_TRUE(fake_.Find("/vm/base.img")->PunchHole(kC, kC));
  std::fill_n(base_.begin() + kC, kC, std::byte{0});
  MakeThree();
  {
    ASSERT_OK_AND_ASSIGN(auto image, Open("b", OpenMode::kReadWrite));
    ASSERT_OK(image->Zero(3 * kC, kC, {}));
    ASSERT_OK(image->Close());
  }
  NoteAnew();
  std::vector<std::string> lines;
  ASSERT_OK(MapImage(fake_, Path("c"), {}, [&](const MapEntry& entry) {
    lines.push_back(fmt::format("{}+{} depth {}{} {}", entry.start, entry.length, entry.depth,
                                entry.data ? " data" : "",
                                entry.file != nullptr ? *entry.file : "nowhere"));
    return true;
  }));
  EXPECT_EQ(lines, (std::vector<std::string>{
                       fmt::format("0+{} depth 3 data /vm/base.img", kC),
                       fmt::format("{}+{} depth 3 /vm/base.img", kC, kC),
                       fmt::format("{}+{} depth 3 data /vm/base.img", 2 * kC, kC),
                       fmt::format("{}+{} depth 1 /vm/b.raw", 3 * kC, kC),
                       fmt::format("{}+{} depth 3 data /vm/base.img", 4 * kC, 5000)}));
}

TEST_F(ChainTest, WhatStandsOnItselfIsRefusedWithTheChain) {
  MakeThree();
  const RebaseOptions options{.add_cow_path = Path("a"),
                              .backing = NamedFile{"c.add-cow", "add-cow"},
                              .image_name = {}};
  EXPECT_TRUE(FailsSaying(RebaseUnsafely(fake_, options), "stands on itself"));
  // As another program could make it.
  SetBacking("a", {"c.add-cow", "add-cow"});
  for (const bool lock : {true, false})
    EXPECT_TRUE(
        FailsSaying(Open("c", OpenMode::kReadOnly, {.lock = lock}),
                    "/vm/c.add-cow: stands on itself: /vm/c.add-cow -> /vm/b.add-cow -> "
                    "/vm/a.add-cow -> /vm/c.add-cow"));
  EXPECT_EQ(fake_.open_files(), 0);
}

TEST_F(ChainTest, AnImageFileThatItStandsOnIsRefused) {
  MakeThree();
  fake_.PutName("/vm/link.raw", fake_.Find("/vm/c.raw"));
  const RebaseOptions options{
      .add_cow_path = Path("a"), .backing = NamedFile{"link.raw", "raw"}, .image_name = {}};
  ASSERT_OK(RebaseUnsafely(fake_, options));
  for (const bool lock : {true, false})
    EXPECT_TRUE(FailsWith(Open("c", OpenMode::kReadWrite, {.lock = lock}), kErrCorrupt));
  CreateOptions create{.add_cow_path = Path("d"),
                       .image_name = "b.raw",
                       .backing = NamedFile{"c.add-cow", "add-cow"},
                       .size = {}};
  EXPECT_FALSE(CreateImage(fake_, create));
}

TEST_F(ChainTest, AnAddCowFileAsRawIsRefusedWithWhatItIs) {
  MakeThree();
  EXPECT_TRUE(
      FailsSaying(Create("d", "c.add-cow", "raw"),
                  "so it cannot be used as a raw backing file; as one of format add-cow "
                  "it can (-F add-cow)"));
  EXPECT_TRUE(FailsSaying(Create("d", "base.img", "add-cow"), "not an add-cow file"));
}

TEST_F(ChainTest, CreateRefusesAnImageFileOfItsBase) {
  MakeThree();
  const CreateOptions options{.add_cow_path = Path("d"),
                              .image_name = "a.raw",
                              .backing = NamedFile{"c.add-cow", "add-cow"},
                              .size = {}};
  EXPECT_TRUE(FailsSaying(CreateImage(fake_, options),
                          "would be both the image file and a part of the backing file"));
}

TEST_F(ChainTest, RebaseRefusesAnImageFileOfTheBaseThatStays) {
  MakeThree();
  const auto rebase = [&](const char* image) {
    return RebaseUnsafely(
        fake_, {.add_cow_path = Path("c"), .backing = {}, .image_name = std::string(image)});
  };
  EXPECT_TRUE(FailsSaying(rebase("a.raw"),
                          "would be both the image file and a part of the backing file"));
  // Where that cannot be told, it is told when the image is opened.
  ASSERT_OK(fake_.Remove("/vm/b.raw"));
  fake_.Put("/vm/new.raw", kSize);
  EXPECT_OK(rebase("new.raw"));
}

TEST_F(ChainTest, ABaseIsLockedWithAllThatItStandsOn) {
  MakeThree();
  ASSERT_OK_AND_ASSIGN(const auto image, Open("c", OpenMode::kReadWrite));
  for (const char* const name : {"a", "b", "c"})
    EXPECT_TRUE(FailsWith(Open(name, OpenMode::kReadWrite), EBUSY)) << name;
  EXPECT_OK(Open("a"));
}

TEST_F(ChainTest, WhereABaseCannotBeLockedTheMessageSaysHowToDoWithout) {
  MakeThree();
  FakeInode::Abilities abilities;
  abilities.lock = false;
  for (const char* const path : {"/vm/a.add-cow", "/vm/a.raw", "/vm/base.img"}) {
    fake_.Find(path)->SetAbilities(abilities);
    EXPECT_TRUE(FailsSaying(Open("c"), std::string(path) + ": cannot be locked: "));
    EXPECT_TRUE(FailsSaying(Open("c"), "(lock=off does without"));
    EXPECT_OK(Open("c", OpenMode::kReadWrite, {.lock = false}));
    fake_.Find(path)->SetAbilities({});
  }
}

TEST_F(ChainTest, TwoImagesStandOnOneAtTheSameTime) {
  MakeThree();
  ASSERT_OK(Create("d", "b.add-cow", "add-cow"));
  ASSERT_OK_AND_ASSIGN(const auto c, Open("c", OpenMode::kReadWrite));
  ASSERT_OK_AND_ASSIGN(const auto d, Open("d", OpenMode::kReadWrite));
  ASSERT_OK(c->Write(Repeat(1, kSize), 0));
  EXPECT_EQ(Difference(ReadAll(*d), base_), "");
}

TEST_F(ChainTest, ABaseThatIsWrittenToIsRefused) {
  MakeThree();
  ASSERT_OK_AND_ASSIGN(const auto image, Open("b", OpenMode::kReadWrite));
  EXPECT_TRUE(FailsWith(Open("c"), EBUSY));
}

TEST_F(ChainTest, AChangeOfTheBaseIsNoted) {
  ASSERT_OK(Create("a", "base.img", "raw"));
  ASSERT_OK(Create("b", "a.add-cow", "add-cow"));
  ASSERT_OK(Open("b"));
  EXPECT_TRUE(messages_.empty());
  fake_.Find("/vm/a.raw")->SetModified({4000000000, 5});
  ASSERT_OK(Open("b"));
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_NE(messages_[0].find("/vm/a.add-cow: the backing file was modified at"),
            std::string::npos);
}

TEST_F(ChainTest, ABaseThatHasShrunkIsRefused) {
  ASSERT_OK(Create("a", "base.img", "raw"));
  ASSERT_OK(Create("b", "a.add-cow", "add-cow"));
  ASSERT_TRUE(fake_.Find("/vm/a.raw")->Truncate(3 * kC));
  EXPECT_TRUE(FailsSaying(Open("b"), "what is missing would read as zeroes"));
}

TEST_F(ChainTest, WhatIsWrongFurtherDownIsSaidOfThatFile) {
  MakeThree();
  ASSERT_TRUE(fake_.Find(Path("a"))->Write(Repeat(0xff, 4), 8));
  EXPECT_TRUE(FailsSaying(Open("c"), "/vm/a.add-cow: version is"));
  ASSERT_OK(fake_.Remove("/vm/a.raw"));
}

TEST_F(ChainTest, CheckNeedsNoBaseButRefusesAWrongOne) {
  MakeThree();
  const auto base = fake_.Find(kBackingPath);
  for (const uint64_t size : {uint64_t{0}, kC}) {
    ASSERT_TRUE(base->Truncate(size));
    for (const char* const name : {"a", "c"})
      EXPECT_TRUE(FailsWith(CheckImage(fake_, Path(name), Repair::kNone), EINVAL)) << name;
  }
  ASSERT_TRUE(base->Truncate(0));
  ASSERT_TRUE(base->Write(base_, 0));
  EXPECT_OK(CheckImage(fake_, Path("c"), Repair::kNone));
  for (const char* const name : {"a.raw", "b.add-cow"}) {
    ASSERT_OK(fake_.Remove(std::string("/vm/") + name));
    EXPECT_OK(CheckImage(fake_, Path("c"), Repair::kNone)) << name;
  }
  EXPECT_EQ(fake_.open_files(), 0);
}

// The options image= and backing= are about the topmost image only: the image file of
// another one would be written to.
TEST_F(ChainTest, WhatIsMissingFurtherDownIsMendedThere) {
  MakeThree();
  const auto image = fake_.Find("/vm/a.raw");
  ASSERT_OK(fake_.Remove("/vm/a.raw"));
  EXPECT_TRUE(FailsSaying(
      Open("c"),
      "/vm/a.raw: not found, but it is the image file of /vm/a.add-cow (if it was moved, say "
      "addcow rebase -u -i FILE /vm/a.add-cow)"));
  EXPECT_TRUE(FailsSaying(Create("d", "a.add-cow", "add-cow"), "addcow rebase -u -i FILE"));
  fake_.PutName("/vm/a.raw", image);
  ASSERT_OK(fake_.Remove(kBackingPath));
  EXPECT_TRUE(FailsSaying(Open("c"), "say addcow rebase -u -b FILE -F raw /vm/a.add-cow)"));
  ASSERT_OK(fake_.Remove("/vm/b.raw"));
  EXPECT_TRUE(FailsSaying(Open("b"), "say image=FILE"));
}

TEST_F(ChainTest, EveryFileMustBeBeneathTheFolder) {
  fake_.MakeDirectory("/vm/sub");
  MakeThree();
  CreateOptions options{.add_cow_path = "/vm/sub/d.add-cow",
                        .image_name = "d.raw",
                        .backing = NamedFile{"../c.add-cow", "add-cow"},
                        .size = {}};
  ASSERT_OK(CreateImage(fake_, options));
  const auto open = [&](const char* folder) {
    return Image::Open(fake_,
                       {.add_cow_path = "/vm/sub/d.add-cow",
                        .mode = OpenMode::kReadOnly,
                        .access = {.confine = folder}},
                       {});
  };
  EXPECT_OK(open("/vm"));
  EXPECT_TRUE(FailsSaying(open("/vm/sub"), "not beneath /vm/sub"));
  // The base is beneath it, and what that stands on is not.
  fake_.Put("/outside.img", base_);
  const RebaseOptions rebase{.add_cow_path = Path("a"),
                             .backing = NamedFile{"../outside.img", "raw"},
                             .image_name = {}};
  ASSERT_OK(RebaseUnsafely(fake_, rebase));
  EXPECT_TRUE(FailsSaying(open("/vm"), "not beneath /vm"));
}

TEST_F(ChainTest, NamesStartFromTheDirectoryOfTheFileItself) {
  fake_.MakeDirectory("/other");
  ASSERT_OK(Create("a", "base.img", "raw"));
  fake_.PutSymbolicLink("/other/link.add-cow", "/vm/a.add-cow");
  CreateOptions options{.add_cow_path = "/other/b.add-cow",
                        .image_name = "b.raw",
                        .backing = NamedFile{"link.add-cow", "add-cow"},
                        .size = {}};
  ASSERT_OK(CreateImage(fake_, options));
  ASSERT_OK_AND_ASSIGN(
      const auto image,
      Image::Open(fake_, {.add_cow_path = "/other/b.add-cow", .mode = OpenMode::kReadOnly},
                  {}));
  EXPECT_EQ(Difference(ReadAll(*image), base_), "");
}

TEST_F(ChainTest, ANewImageFileIsReadByNoMoreThanAllOfItsBase) {
  ASSERT_OK(Create("a", "base.img", "raw"));
  const auto rights_above = [&](uint32_t permissions, uint32_t group) {
    fake_.Find(kBackingPath)->SetRights(permissions, 0, group);
    fake_.Find("/vm/a.raw")->SetRights(0666, 0, 0);
    fake_.Find(Path("a"))->SetRights(0666, 0, 0);
    EXPECT_OK(Create("b", "a.add-cow", "add-cow"));
    const auto info = fake_.Find("/vm/b.raw")->Info();
    EXPECT_OK(fake_.Remove("/vm/b.raw"));
    EXPECT_OK(fake_.Remove(Path("b")));
    return info->permissions & 077;
  };
  EXPECT_EQ(rights_above(0666, 0), 044u);
  EXPECT_EQ(rights_above(0640, 0), 040u);
  EXPECT_EQ(rights_above(0600, 0), 0u);
  // A group's right is that of another group's members only where all have it.
  EXPECT_EQ(rights_above(0640, 7), 0u);
  EXPECT_EQ(rights_above(0644, 7), 044u);
}

TEST_F(ChainTest, AsManyAsFiveHundredAndNoMore) {
  // Made one after the other each would have to open all others.
  ASSERT_OK(Create("1", "base.img", "raw"));
  for (size_t i = 2; i <= kMostImages; i++) {
    ASSERT_OK(Create(std::to_string(i), "base.img", "raw"));
    SetBacking(std::to_string(i), {fmt::format("{}.add-cow", i - 1), "add-cow"});
  }
  const std::string top = std::to_string(kMostImages);
  {
    ASSERT_OK_AND_ASSIGN(const auto image, Open(top, OpenMode::kReadWrite));
    EXPECT_EQ(Difference(ReadAll(*image), base_), "");
    ASSERT_OK(image->Write(Repeat(7, 100), 2 * kC));
    ASSERT_OK(image->Map(0, kSize, [](const Extent&) { return true; }));
    ASSERT_OK(image->Prefetch(0, kSize));
  }
  // What could not be opened is not made.
  EXPECT_TRUE(FailsSaying(Create("more", top + ".add-cow", "add-cow"),
                          "more than 500 images stand on each other"));
  EXPECT_EQ(fake_.open_files(), 0);
  ASSERT_OK(Create("more", "base.img", "raw"));
  SetBacking("more", {top + ".add-cow", "add-cow"});
  EXPECT_TRUE(FailsSaying(Open("more"), "/vm/1.add-cow: more than 500 images stand"));
  EXPECT_TRUE(
      FailsSaying(RebaseUnsafely(fake_, {.add_cow_path = Path("more"),
                                         .backing = NamedFile{top + ".add-cow", "add-cow"},
                                         .image_name = {}}),
                  "more than 500 images stand on each other"));
  EXPECT_EQ(fake_.open_files(), 0);
}

TEST_F(ChainTest, TooManyOpenFilesAreTheImages) {
  MakeThree();
  FaultPlan plan({.at = 1, .error = EMFILE, .where = [](const Operation& operation) {
                    return operation.kind == OpKind::kOpen && operation.path == Path("a");
                  }});
  ForwardingFileSystem faulty(fake_, plan);
  EXPECT_TRUE(FailsSaying(
      Image::Open(faulty, {.add_cow_path = Path("c"), .mode = OpenMode::kReadOnly}, {}),
      "open: /vm/a.add-cow: Too many open files; each of the images that stand on each other "
      "has two files open (raise the limit: ulimit -n; or flatten some)"));
}

// "PATH FORMAT SIZE" for each link.
std::vector<std::string> Links(FakeFileSystem& fake, const std::string& path,
                               const std::optional<std::string>& confine = {}) {
  const auto chain = GetChain(fake, {.add_cow_path = path, .access = {.confine = confine}});
  EXPECT_OK(chain);
  std::vector<std::string> lines;
  for (size_t i = 0; chain && i < chain->size(); i++) {
    const ChainLink& link = (*chain)[i];
    lines.push_back(
        fmt::format("{} {} {}", link.path, link.format, link.virtual_size.value_or(0)));
  }
  return lines;
}

TEST_F(ChainTest, InfoTellsOfEveryLink) {
  MakeThree();
  const std::vector<std::string> all{fmt::format("/vm/c.add-cow add-cow {}", kSize),
                                     fmt::format("/vm/b.add-cow add-cow {}", kSize),
                                     fmt::format("/vm/a.add-cow add-cow {}", kSize),
                                     fmt::format("/vm/base.img raw {}", kSize)};
  EXPECT_EQ(Links(fake_, Path("c")), all);
  EXPECT_EQ(Links(fake_, Path("c"), "/vm"), all);
  EXPECT_EQ(fake_.open_files(), 0);
}

TEST_F(ChainTest, InfoTellsOfAFormatThatCannotBeServed) {
  MakeThree();
  SetBacking("a", {"base.img", "luks"});
  EXPECT_EQ(Links(fake_, Path("a"), "/vm").back(), "/vm/base.img luks 0");
}

TEST_F(ChainTest, InfoOfAChainEndsWhereNothingIsReadFurtherDown) {
  MakeThree();
  ASSERT_OK(FlattenImage(
      fake_, Path("b"), [](LogLevel, const std::string&) {}, [](uint64_t, uint64_t) {}));
  for (const char* const name : {"a.add-cow", "a.raw", "base.img"})
    ASSERT_OK(fake_.Remove(std::string("/vm/") + name));
  EXPECT_EQ(Links(fake_, Path("c")).size(), 2u);
}

TEST_F(ChainTest, InfoOfAChainIsConfined) {
  MakeThree();
  const auto get = [&](const char* folder) {
    return GetChain(fake_, {.add_cow_path = Path("c"), .access = {.confine = folder}});
  };
  EXPECT_TRUE(FailsSaying(get("/none"), "the directory of confine="));
  fake_.Put("/outside.img", base_);
  SetBacking("a", {"/outside.img", "raw"});
  EXPECT_TRUE(FailsSaying(get("/vm"), "not beneath /vm"));
  EXPECT_EQ(Links(fake_, Path("c")).back(), fmt::format("/outside.img raw {}", kSize));
}

TEST_F(ChainTest, InfoOfAChainThatStandsOnItselfIsRefused) {
  MakeThree();
  SetBacking("a", {"b.add-cow", "add-cow"});
  EXPECT_TRUE(FailsSaying(GetChain(fake_, {.add_cow_path = Path("c")}),
                          "/vm/b.add-cow: stands on itself: /vm/b.add-cow -> /vm/a.add-cow -> "
                          "/vm/b.add-cow"));
  // Also by its image file.
  SetBacking("a", {"c.raw", "raw"});
  EXPECT_TRUE(FailsSaying(GetChain(fake_, {.add_cow_path = Path("c")}), "stands on itself"));
}

// What is to be said of one file is said once.
TEST_F(ChainTest, InfoHasTheNotesOfTheWholeChainOnce) {
  MakeThree();
  fake_.Find(kBackingPath)->SetModified({4000000000, 5});
  ASSERT_OK_AND_ASSIGN(const auto chain, GetChain(fake_, {.add_cow_path = Path("c")}));
  for (size_t i = 0; i < 3; i++) EXPECT_EQ(chain[i].image->notes.size(), i == 0 ? 1u : 0u);
}

TEST_F(ChainTest, InfoNeedsNothingThatItStandsOn) {
  MakeThree();
  for (const char* const name : {"a.add-cow", "a.raw", "b.add-cow", "b.raw", "base.img"})
    ASSERT_OK(fake_.Remove(std::string("/vm/") + name));
  ASSERT_OK_AND_ASSIGN(const ImageInfo info, GetInfo(fake_, Path("c")));
  EXPECT_EQ(info.header.backing->format, "add-cow");
  ASSERT_OK_AND_ASSIGN(const CheckReport report, CheckImage(fake_, Path("c"), Repair::kNone));
  EXPECT_EQ(report.corruptions(), 0u);
}

}  // namespace
}  // namespace addcow
