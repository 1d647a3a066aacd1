// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation of "create" fails, in every way. A create that failed leaves
// nothing behind and changes nothing that was there; where the add-cow file
// was replaced and the directory's sync failed, the new files stay. It can be
// run again.

#include <gtest/gtest.h>

#include "common/ops/create.h"
#include "tests/fault/sweep.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {
namespace {

struct Variant {
  const char* name;
  void (*prepare)(FakeFileSystem& files);
  CreateOptions options;
};

CreateOptions Options(const char* image, std::optional<NamedFile> backing, bool force) {
  CreateOptions options;
  options.add_cow_path = kAddCowPath;
  options.image_name = image;
  options.backing = std::move(backing);
  options.force = force;
  options.discard = force;
  options.reuse_image = force;
  return options;
}

CreateOptions Preallocated(Preallocation how) {
  CreateOptions options = Options("disk.raw", NamedFile{"base.img", "raw"}, false);
  options.preallocation = how;
  return options;
}

const NamedFile kBase{"base.img", "raw"};

void PutBacking(FakeFileSystem& files) { files.Put(kBackingPath, Repeat(7, 100000)); }

void PutAll(FakeFileSystem& files) {
  files.MakeDirectory(kDirectory);
  EXPECT_OK(MakeTestImage(files, kDirectory, {.allocated = {1}}));
}

const Variant kVariants[] = {
    {"NewImage", PutBacking, Options("disk.raw", kBase, false)},
    {"LastRung",
     [](FakeFileSystem& files) {
       PutBacking(files);
       files.ForbidKeepExisting();
     },
     Options("disk.raw", kBase, false)},
    {"Falloc", PutBacking, Preallocated(Preallocation::kFalloc)},
    {"Full", PutBacking, Preallocated(Preallocation::kFull)},
    {"ImageThatIsThere",
     [](FakeFileSystem& files) { files.Put(kImagePath, Repeat(9, 300000)); },
     Options("disk.raw", {}, false)},
    {"ReplaceWithANewImage", PutAll, Options("other.raw", kBase, true)},
    {"ReplaceKeepingTheImage", PutAll, Options("disk.raw", kBase, true)},
    {"ReplaceSubclusters",
     [](FakeFileSystem& files) {
       PutAll(files);
       AddSubclusters(files, {0, 33});
     },
     Options("disk.raw", kBase, true)},
};

using CreateCase = std::tuple<Variant, Sweep>;

class CreateFault : public testing::TestWithParam<CreateCase> {
 protected:
  using Snapshot = std::map<std::string, std::pair<uint64_t, std::vector<std::byte>>>;

  static Snapshot Take(const FakeFileSystem& files) {
    Snapshot snapshot;
    for (const std::string& name : files.List()) {
      const auto inode = files.Find(name);
      snapshot[name] = {inode->number(), inode->Bytes(0, inode->size())};
    }
    return snapshot;
  }
};

TEST_P(CreateFault, LeavesNothingBehind) {
  const auto& [variant, sweep] = GetParam();
  FakeFileSystem made;
  variant.prepare(made);
  const Snapshot before = Take(made);
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan::Fault fault = sweep.At(at);
    // Were removing to fail too, what was made could not be removed.
    fault.where = [](const Operation& operation) { return operation.kind != OpKind::kRemove; };
    FaultPlan plan(fault);
    ForwardingFileSystem faulty(*files, plan);
    const Result<CreateResult> created = CreateImage(faulty, variant.options);
    SCOPED_TRACE("after a fault of " + plan.hit());
    EXPECT_EQ(files->open_files(), 0);
    if (created) {
      EXPECT_OK(OpenTestImage(*files));
    } else {
      EXPECT_TRUE(plan.fired() && sweep.visible);
      EXPECT_TRUE(FailsWith(created, sweep.error));
      const Snapshot after = Take(*files);
      const auto was = before.find(kAddCowPath);
      const bool replaced = was != before.end() && after.contains(kAddCowPath) &&
                            after.at(kAddCowPath).first != was->second.first;
      if (replaced) {
        EXPECT_OK(OpenTestImage(*files));
      } else {
        EXPECT_EQ(after, before) << testing::PrintToString(files->List());
      }
      CreateOptions again = variant.options;
      again.force = replaced || again.force;
      EXPECT_OK(CreateImage(*files, again));
      EXPECT_OK(OpenTestImage(*files));
    }
    if (SweepEnds(at, plan.fired())) break;
  }
}

// Where nothing can be removed either, files are left; but never an add-cow
// file that cannot be opened.
TEST_P(CreateFault, NeverLeavesAnAddCowFileThatCannotBeOpened) {
  const auto& [variant, sweep] = GetParam();
  FakeFileSystem made;
  variant.prepare(made);
  for (uint64_t at = 1;; at++) {
    const auto files = made.Clone();
    FaultPlan plan(sweep.At(at));
    ForwardingFileSystem faulty(*files, plan);
    const Result<CreateResult> created = CreateImage(faulty, variant.options);
    SCOPED_TRACE("after a fault of " + plan.hit());
    EXPECT_EQ(files->open_files(), 0);
    // Empty: the name was taken, and could not be given back.
    const auto add_cow = files->Find(kAddCowPath);
    if (add_cow != nullptr && add_cow->size() > 0) {
      EXPECT_OK(OpenTestImage(*files));
    } else {
      EXPECT_FALSE(created);
    }
    if (SweepEnds(at, plan.fired())) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Sweeps, CreateFault,
                         testing::Combine(testing::ValuesIn(kVariants),
                                          testing::ValuesIn(kSweeps)),
                         kCaseAndSweepName);

}  // namespace
}  // namespace addcow
