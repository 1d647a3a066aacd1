// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow ls: what is found, what stands on what, and what faults do to it.

#include "common/ops/list.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/forwarding_file.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

class ListTest : public testing::Test {
 protected:
  ListTest() {
    fake_.MakeDirectory(kDirectory);
    EXPECT_OK(MakeTestImage(fake_, kDirectory, {.allocated = {1}, .on_image = true}));
  }
  static std::string Text(const Listing& listing) {
    std::string text;
    for (const ListedDisk& disk : listing.disks) {
      text += disk.path + (disk.below ? "" : " (base)") + (disk.error ? " !" : "");
      for (const size_t overlay : disk.overlays) text += " <- " + listing.disks[overlay].path;
      for (const size_t on : disk.image_overlays) text += " i<- " + listing.disks[on].path;
      for (const size_t other : disk.image_shared) text += " = " + listing.disks[other].path;
      for (const size_t of : disk.image_of) text += " of " + listing.disks[of].path;
      text += disk.IsFree() ? " free" : "";
      text += "\n";
    }
    return text;
  }

  FakeFileSystem fake_;
};

TEST_F(ListTest, FindsImagesAndWhatTheyStandOn) {
  fake_.PutSymbolicLink("/vm/link", kAddCowPath);
  ASSERT_OK_AND_ASSIGN(const Listing listing, ListImages(fake_, kDirectory));
  EXPECT_EQ(Text(listing),
            "/vm/base.add-cow <- /vm/x.add-cow\n"
            "/vm/x.add-cow free\n"
            "/vm/base.img (base) <- /vm/base.add-cow\n");
  EXPECT_TRUE(listing.unread.empty());
  EXPECT_EQ(fake_.open_files(), 0);
}

TEST_F(ListTest, KnowsAllNamesOfAFile) {
  fake_.PutName("/vm/a.add-cow", fake_.Find(kAddCowPath));
  fake_.PutName("/vm/z.add-cow", fake_.Find(kAddCowPath));
  ASSERT_OK_AND_ASSIGN(const Listing listing, ListImages(fake_, kDirectory));
  EXPECT_EQ(Text(listing),
            "/vm/a.add-cow free\n"
            "/vm/base.add-cow <- /vm/a.add-cow\n"
            "/vm/base.img (base) <- /vm/base.add-cow\n");
  EXPECT_EQ(listing.disks[0].other_names,
            (std::vector<std::string>{"/vm/x.add-cow", "/vm/z.add-cow"}));
  EXPECT_TRUE(listing.disks[1].other_names.empty());
  // Names in it start from another directory there.
  fake_.MakeDirectory("/vm/elsewhere");
  fake_.PutName("/vm/elsewhere/x.add-cow", fake_.Find(kAddCowPath));
  ASSERT_OK_AND_ASSIGN(const Listing with_another, ListImages(fake_, kDirectory));
  EXPECT_EQ(with_another.disks[0].other_names, listing.disks[0].other_names);
  const auto other =
      std::ranges::find(with_another.disks, "/vm/elsewhere/x.add-cow", &ListedDisk::path);
  ASSERT_NE(other, with_another.disks.end()) << Text(with_another);
  EXPECT_TRUE(other->error.has_value());
}

TEST_F(ListTest, KnowsAUriInEverySpelling) {
  for (const char* uri : {"nbd://localhost/x", "nbd://LOCALHOST:10809/%78"}) {
    Header header = TestHeader(fake_);
    header.backing = NamedFile{uri, "raw"};
    header.backing_identity.reset();
    WriteTestHeader(fake_, header);
    const FakeInode& add_cow = *fake_.Find(kAddCowPath);
    if (fake_.Find("/vm/other.add-cow") == nullptr)
      fake_.Put("/vm/other.add-cow", add_cow.Bytes(0, add_cow.size()));
  }
  ASSERT_OK_AND_ASSIGN(const Listing listing, ListImages(fake_, kDirectory));
  const auto base = std::ranges::find(listing.disks, "nbd://localhost/x", &ListedDisk::path);
  ASSERT_NE(base, listing.disks.end()) << Text(listing);
  EXPECT_EQ(base->overlays.size(), 2u) << Text(listing);
}

// x.add-cow stands on the image file of base.add-cow, under whatever name; its own add-cow file
// has a copy.
TEST_F(ListTest, KnowsWhatNeedsAnImageFile) {
  fake_.PutSymbolicLink("/vm/link.raw", "/vm/base.raw");
  Header header = TestHeader(fake_);
  header.backing = NamedFile{"link.raw", "raw"};
  header.backing_identity.reset();
  WriteTestHeader(fake_, header);
  ASSERT_OK_AND_ASSIGN(const Listing on_image, ListImages(fake_, kDirectory));
  EXPECT_EQ(Text(on_image),
            "/vm/base.add-cow i<- /vm/x.add-cow\n"
            "/vm/x.add-cow free\n"
            "/vm/base.img (base) <- /vm/base.add-cow\n"
            "/vm/link.raw (base) <- /vm/x.add-cow of /vm/base.add-cow\n");
  const FakeInode& add_cow = *fake_.Find(kAddCowPath);
  fake_.Put("/vm/z.add-cow", add_cow.Bytes(0, add_cow.size()));
  ASSERT_OK_AND_ASSIGN(const Listing copied, ListImages(fake_, kDirectory));
  EXPECT_EQ(Text(copied),
            "/vm/base.add-cow i<- /vm/x.add-cow i<- /vm/z.add-cow\n"
            "/vm/x.add-cow = /vm/z.add-cow\n"
            "/vm/z.add-cow = /vm/x.add-cow\n"
            "/vm/base.img (base) <- /vm/base.add-cow\n"
            "/vm/link.raw (base) <- /vm/x.add-cow <- /vm/z.add-cow of /vm/base.add-cow\n");
}

TEST_F(ListTest, FailsWithoutAName) {
  EXPECT_TRUE(FailsSaying(ListImages(fake_, ""), "is not the name of a directory"));
}

TEST_F(ListTest, SaysWhatIsBrokenAndGoesOn) {
  fake_.Put(kAddCowPath, fake_.Find(kAddCowPath)->Bytes(0, 100));
  ASSERT_OK(fake_.Remove(kBackingPath));
  ASSERT_OK_AND_ASSIGN(const Listing listing, ListImages(fake_, kDirectory));
  EXPECT_EQ(Text(listing),
            "/vm/base.add-cow free\n"
            "/vm/x.add-cow !\n"
            "/vm/base.img (base) ! <- /vm/base.add-cow\n");
}

TEST_F(ListTest, FailsWhereTheFolderIsNotThere) {
  EXPECT_TRUE(FailsWith(ListImages(fake_, "/nothing"), ENOENT));
}

// An overlay that could not be looked at may stand on anything: never is one left out
// without a word.
TEST_F(ListTest, NoFaultHidesAnImage) {
  const FakeInode& add_cow = *fake_.Find(kAddCowPath);
  fake_.Put("/vm/z.add-cow", add_cow.Bytes(0, add_cow.size()));
  ASSERT_OK_AND_ASSIGN(const Listing all, ListImages(fake_, "/"));
  for (uint64_t at = 1;; at++) {
    FaultPlan plan({.at = at,
                    .error = EIO,
                    .effect = FaultPlan::Effect::kError,
                    .lasting = FaultPlan::Lasting::kTransient,
                    .where = nullptr});
    ForwardingFileSystem faulty(fake_, plan);
    const auto listing = ListImages(faulty, "/");
    SCOPED_TRACE("after a fault of " + plan.hit());
    EXPECT_EQ(fake_.open_files(), 0);
    if (listing && Text(*listing) != Text(all)) {
      bool told = !listing->unread.empty();
      for (const ListedDisk& disk : listing->disks) told = told || disk.error.has_value();
      EXPECT_TRUE(told) << Text(*listing);
    }
    if (!plan.fired()) {
      ASSERT_OK(listing);
      EXPECT_EQ(Text(*listing), Text(all));
      break;
    }
    ASSERT_LT(at, 10000u);
  }
}

}  // namespace
}  // namespace addcow
