// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow ls: what is found, what stands on what, and what faults do to it.

#include "common/ops/list.h"

#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/forwarding_file.h"
#include "tests/support/test_image.h"

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
            "/vm/x.add-cow\n"
            "/vm/base.img (base) <- /vm/base.add-cow\n");
  EXPECT_TRUE(listing.unread.empty());
  EXPECT_EQ(fake_.open_files(), 0);
}

TEST_F(ListTest, SaysWhatIsBrokenAndGoesOn) {
  fake_.Put(kAddCowPath, fake_.Find(kAddCowPath)->Bytes(0, 100));
  ASSERT_OK(fake_.Remove(kBackingPath));
  ASSERT_OK_AND_ASSIGN(const Listing listing, ListImages(fake_, kDirectory));
  EXPECT_EQ(Text(listing),
            "/vm/base.add-cow\n"
            "/vm/x.add-cow !\n"
            "/vm/base.img (base) ! <- /vm/base.add-cow\n");
}

TEST_F(ListTest, FailsWhereTheFolderIsNotThere) {
  EXPECT_TRUE(FailsWith(ListImages(fake_, "/nothing"), ENOENT));
}

// An overlay that could not be looked at may stand on anything: never is one left out
// without a word.
TEST_F(ListTest, NoFaultHidesAnImage) {
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
