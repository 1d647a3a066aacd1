// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow upgrade and downgrade: what of the header goes along, what cannot, and what is
// refused; then the image is as it was. The disk's bits are in ops_convert_test.cc.

#include <gtest/gtest.h>

#include "common/ops/rebase.h"
#include "tests/support/convert_fixture.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"

namespace addcow {
namespace {

constexpr Form kForms[] = {kVersion1Form, k4kForm, k64kForm, k2MForm};

class ConvertRefusals : public ConvertFixture {
 protected:
  void SetHeader(const std::function<void(Header&)>& change) {
    Header header = TestHeader(fake_);
    change(header);
    WriteTestHeader(fake_, header);
    before_ = fake_.Clone();
  }
};

TEST_F(ConvertRefusals, NothingToDoChangesNothing) {
  for (const Form& form : kForms) {
    MakePartial(form);
    OperationLog log;
    ForwardingFileSystem logged(fake_, log);
    ASSERT_OK_AND_ASSIGN(const ConvertResult result, Convert(logged, To(form)));
    EXPECT_EQ(result.before, result.after);
    EXPECT_EQ(log.Changes(), std::vector<std::string>());
  }
}

// The flag alone, where nothing has to be copied; then there is nothing more to do.
TEST_F(ConvertRefusals, NoSubclustersCanBeHadWithoutAnotherForm) {
  for (const Form& form : kForms) {
    MakePartial(form);
    ASSERT_OK(Convert(fake_, To(form, false)));
    EXPECT_TRUE(TestHeader(fake_).no_subclusters);
    EXPECT_FALSE(TestHeader(fake_).subclusters);
    ExpectDisk();
    const auto inode = fake_.Find(kAddCowPath);
    ASSERT_OK(Convert(fake_, To(form, false)));
    ASSERT_OK(Convert(fake_, To(form)));
    EXPECT_EQ(fake_.Find(kAddCowPath), inode);
  }
}

// Both bits, which nothing of ours makes: who made it so wants the second one gone.
TEST_F(ConvertRefusals, SubclustersWhereThereMayBeNoneAreCopiedUp) {
  MakePartial();
  SetHeader([](Header& header) { header.no_subclusters = true; });
  ASSERT_OK(Convert(fake_, To(kVersion1Form)));
  EXPECT_FALSE(TestHeader(fake_).subclusters);
  ExpectDisk();
}

TEST_F(ConvertRefusals, TheRestOfTheHeaderAndTheRightsAreKept) {
  constexpr uint64_t kUnknown = uint64_t{1} << 40 | 2;
  for (const Form& from : kForms) {
    for (const Form& to : kForms) {
      MakePartial(from);
      SetHeader([](Header& header) {
        header.optional_features = kUnknown;
        header.backing_identity = {.size = 3 * kC, .modified = FileTime{77, 5}};
      });
      AddCow().SetRights(0640, 11, 12);
      AddCow().SetAttributes({{"user.note", "5"}});
      Header wanted = TestHeader(fake_);
      wanted.revision = to.revision;
      wanted.cluster_size = to.cluster_size;
      ASSERT_OK(Convert(fake_, To(to)));
      wanted.subclusters = to.cluster_size != k4kForm.cluster_size;
      // They are those of one revision.
      if (to.revision != from.revision) wanted.optional_features = 0;
      EXPECT_EQ(TestHeader(fake_), wanted);
      EXPECT_EQ(AddCow().Info()->permissions, 0640u);
      EXPECT_EQ(AddCow().Info()->owner, 11u);
      EXPECT_EQ(AddCow().Info()->group, 12u);
      EXPECT_EQ(AddCow().GetAttributes(), (Attributes{{"user.note", "5"}}));
      ExpectDisk();
    }
  }
}

// What is an unknown feature in the one is ALL_ALLOCATED in the other.
TEST_F(ConvertRefusals, AnUnknownFeatureDoesNotBecomeAllAllocated) {
  MakePartial();
  SetHeader([](Header& header) { header.optional_features = 0x81; });
  ASSERT_OK_AND_ASSIGN(const ConvertResult result, Convert(fake_, To(k64kForm)));
  EXPECT_FALSE(TestHeader(fake_).all_allocated);
  EXPECT_EQ(TestHeader(fake_).optional_features, 0u);
  EXPECT_EQ(result.after, TestHeader(fake_));
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_NE(result.notes[0].find("(0x81) were left out"), std::string::npos);
  ExpectDisk();
}

TEST_F(ConvertRefusals, AnIdentityThatDoesNotFitAnyMoreIsLeftOutAndSaid) {
  MakePartial(k4kForm);
  // 76 bytes come before the names, and 80 then.
  const std::string name = "/vm/" + std::string(4096 - 256 - 78 - 8 - 12, '/') + "base.img";
  SetHeader([&](Header& header) {
    header.backing = {name, "raw"};
    header.backing_identity = {.size = 4 * kC, .modified = {}};
  });
  ASSERT_TRUE(TestHeader(fake_).backing_identity);
  ASSERT_OK_AND_ASSIGN(const ConvertResult wide, Convert(fake_, To(k2MForm)));
  EXPECT_EQ(wide.notes.size(), 0u);
  EXPECT_TRUE(TestHeader(fake_).backing_identity);
  ASSERT_OK_AND_ASSIGN(const ConvertResult narrow, Convert(fake_, To(kVersion1Form)));
  EXPECT_EQ(narrow.notes.size(), 1u);
  EXPECT_EQ(narrow.after, TestHeader(fake_));
  EXPECT_FALSE(TestHeader(fake_).backing_identity);
  EXPECT_EQ(TestHeader(fake_).backing->name, name);
  ExpectDisk();
}

TEST_F(ConvertRefusals, NamesThatDoNotFitAreRefused) {
  MakePartial(k64kForm);
  SetHeader([](Header& header) {
    header.backing = {"/vm/" + std::string(5000, '/') + "base.img", "raw"};
  });
  for (const bool subclusters : {true, false}) {
    ExpectRefused(Convert(fake_, To(kVersion1Form, subclusters)),
                  "names have 5020 bytes together, the header has room for 4015");
    ExpectRefused(Convert(fake_, To(k4kForm, subclusters)), "the header has room for 4019");
  }
  ASSERT_OK(Convert(fake_, To(k2MForm)));
  ExpectDisk();
}

// Version 1 has room for 16 characters, the later revision for 15 and a NUL.
TEST_F(ConvertRefusals, AFormatNameThatDoesNotFitIsRefused) {
  MakePartial();
  SetHeader([](Header& header) { header.backing->format = "sixteen-letters."; });
  for (const bool subclusters : {true, false})
    ExpectRefused(Convert(fake_, To(k4kForm, subclusters)),
                  "backing file format 'sixteen-letters.' must have 1 to 15 characters");
  SetHeader([](Header& header) { header.backing->format = "fifteen-letters"; });
  ASSERT_OK(Convert(fake_, To(k4kForm)));
  EXPECT_EQ(TestHeader(fake_).backing->format, "fifteen-letters");
}

TEST_F(ConvertRefusals, TheBackingFileIsNeededOnlyToCopyFrom) {
  MakePartial();
  ASSERT_OK(fake_.Remove(kBackingPath));
  before_ = fake_.Clone();
  ExpectRefused(Convert(fake_, To(k64kForm, false)), "base.img: not found");
  const auto convert = [&](const Form& form, bool subclusters) {
    OperationLog log;
    ForwardingFileSystem logged(fake_, log);
    ASSERT_OK(Convert(logged, To(form, subclusters)));
    for (const std::string& line :
         log.Lines([](const Operation& operation) { return operation.path == kBackingPath; }))
      ADD_FAILURE() << line;
  };
  convert(k64kForm, true);
  convert(k2MForm, true);
  convert(k4kForm, false);  // in which no cluster is there in part
  ASSERT_TRUE(TestHeader(fake_).no_subclusters);
  before_ = fake_.Clone();
  ExpectRefused(Convert(fake_, To(kVersion1Form)), "base.img: not found");
}

TEST_F(ConvertRefusals, ABackingFileThatIsGivenIsCopiedFrom) {
  MakePartial();
  fake_.PutName("/bases/b.img", fake_.Find(kBackingPath));
  ASSERT_OK(fake_.Remove(kBackingPath));
  ConvertOptions options = To(k64kForm, false);
  options.source.backing_path = "/bases/b.img";
  ASSERT_OK(Convert(fake_, options));
  EXPECT_EQ(TestHeader(fake_).backing->name, "base.img");
  fake_.PutName(kBackingPath, fake_.Find("/bases/b.img"));
  ExpectDisk();
}

TEST_F(ConvertRefusals, ADeviceIsRefused) {
  for (const Form& form : kForms) {
    Make(InForm({.size = 5 * kC}, form));
    AddCow().SetAbilities({.is_block_device = true});
    const Form& other = form.cluster_size == k4kForm.cluster_size ? k2MForm : k4kForm;
    ExpectRefused(Convert(fake_, To(other)),
                  "is a block device, and cannot be written anew in one step");
    ExpectRefused(RebaseUnsafely(fake_, {.add_cow_path = kAddCowPath,
                                         .backing = NamedFile{"base.img", "raw"},
                                         .image_name = {}}),
                  "is a block device, and cannot be written anew in one step");
  }
}

// The other name would keep the old file, and with it the bits of before.
TEST_F(ConvertRefusals, AFileWithTwoNamesIsRefused) {
  MakePartial();
  fake_.PutName("/vm/second.add-cow", fake_.Find(kAddCowPath));
  before_ = fake_.Clone();
  for (const bool subclusters : {true, false})
    ExpectRefused(Convert(fake_, To(k4kForm, subclusters)), "has 2 names (hard links)");
  ASSERT_OK(Convert(fake_, To(kVersion1Form)));  // nothing to do
  EXPECT_EQ(fake_.DifferenceFrom(*before_), "");
  ASSERT_OK(fake_.Remove("/vm/second.add-cow"));
  ASSERT_OK(Convert(fake_, To(k4kForm)));
  ExpectDisk();
}

TEST_F(ConvertRefusals, AnImageInUseIsRefused) {
  MakePartial();
  for (const OpenMode mode : {OpenMode::kReadOnly, OpenMode::kReadWrite}) {
    for (const bool subclusters : {true, false}) {
      ASSERT_OK_AND_ASSIGN(auto image, OpenTestImage(fake_, kDirectory, mode));
      EXPECT_TRUE(FailsWith(Convert(fake_, To(k4kForm, subclusters)), EBUSY));
      image.reset();
      EXPECT_EQ(fake_.DifferenceFrom(*before_), "");
    }
  }
  ASSERT_OK_AND_ASSIGN(const auto reader,
                       OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly));
  ConvertOptions unlocked = To(k64kForm, false);
  unlocked.source.access.lock = false;
  EXPECT_OK(Convert(fake_, unlocked));
  // Whoever had it open reads on from the old file.
  EXPECT_EQ(Difference(ReadAll(*reader), disk_), "");
  ExpectDisk();
}

TEST_F(ConvertRefusals, FilesThatMayNotBeWrittenAreRefused) {
  for (const char* path : {kAddCowPath, kImagePath}) {
    FakeFileSystem files;
    files.MakeDirectory(kDirectory);
    ASSERT_OK(MakeTestImage(files, kDirectory, {.subclusters = {3}}));
    const auto before = files.Clone();
    files.ForbidWriting(path, EACCES);
    for (const bool subclusters : {true, false})
      EXPECT_TRUE(FailsWith(Convert(files, To(k4kForm, subclusters)), EACCES));
    EXPECT_EQ(files.DifferenceFrom(*before), "");
  }
}

// With copying up, before that.
TEST_F(ConvertRefusals, WhatCannotBeReplacedIsRefused) {
  for (const bool subclusters : {true, false}) {
    MakePartial();
    fake_.MakeMountPoint(kAddCowPath);
    ExpectRefused(Convert(fake_, To(k64kForm, subclusters)), "is a mount point itself");
  }
  for (const bool told : {true, false}) {
    FakeFileSystem files;
    files.MakeDirectory(kDirectory);
    ASSERT_OK(MakeTestImage(files, kDirectory, {.subclusters = {3}}));
    files.Find(kAddCowPath)->SetRights(0666, 1, 1);
    files.ForbidGivingAway(told);
    const auto before = files.Clone();
    EXPECT_TRUE(
        FailsSaying(Convert(files, To(k64kForm, false)),
                    told ? "belongs to another user" : "cannot be given to another user"));
    EXPECT_EQ(files.DifferenceFrom(*before), "");
  }
}

TEST_F(ConvertRefusals, ALateFailureSaysWhatWasCopied) {
  MakePartial();
  FaultPlan plan({.at = 1, .error = ENOSPC, .where = [](const Operation& operation) {
                    return operation.kind == OpKind::kRename;
                  }});
  ForwardingFileSystem faulty(fake_, plan);
  EXPECT_TRUE(FailsSaying(Convert(faulty, To(k64kForm, false)),
                          "the image is as before, but for clusters that were copied up; run "
                          "it again to go on"));
  ExpectDisk();
  ASSERT_OK(Convert(fake_, To(k64kForm, false)));
  ExpectDisk();
}

TEST_F(ConvertRefusals, WhatIsNotSoundIsRefused) {
  MakePartial();
  ASSERT_TRUE(AddCow().Truncate(kHeaderSize + kBitmapPadding));
  before_ = fake_.Clone();
  ExpectRefused(Convert(fake_, To(k4kForm)), "subcluster bitmap");
  ASSERT_TRUE(AddCow().Write(Repeat(9, 4), 8));
  before_ = fake_.Clone();
  ExpectRefused(Convert(fake_, To(k4kForm)), "version is");
}

// Bits past the end of the disk would become those of clusters that are in it.
TEST_F(ConvertRefusals, StrayBitsDoNotGoAlong) {
  for (const Form& from : kForms) {
    for (const Form& to : kForms) {
      if (from.name == to.name) continue;
      MakePartial(from);
      const Layout layout = TestLayout(fake_);
      for (uint64_t i = 0; i < 20; i++)
        SetRawBit(fake_, layout.bitmap(), layout.clusters() + i);
      if (TestHeader(fake_).subclusters) {
        for (uint64_t i = 0; i < 20; i++)
          SetRawBit(fake_, layout.subcluster_bitmap(), layout.subcluster_bitmap().bits + i);
      }
      ASSERT_OK(Convert(fake_, To(to)));
      ExpectDisk();
    }
  }
}

TEST_F(ConvertRefusals, ThroughALinkTheFileItselfIsWrittenAnew) {
  MakePartial();
  fake_.PutSymbolicLink("/links/x", kAddCowPath);
  ConvertOptions options = To(k4kForm);
  options.source.add_cow_path = "/links/x";
  ASSERT_OK(Convert(fake_, options));
  EXPECT_EQ(TestHeader(fake_).cluster_size, 4 * kKiB);
  EXPECT_EQ(fake_.List().size(), 3u) << "the link stays one";
  ExpectDisk();
}

}  // namespace
}  // namespace addcow
