// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A fixture that tells what the engine did to the files, line by line, and has a
// backing file that cannot be read in one place.

#ifndef ADDCOW_TESTS_SUPPORT_ENGINE_LINES_H
#define ADDCOW_TESTS_SUPPORT_ENGINE_LINES_H

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/image_fixture.h"

namespace addcow {

class EngineLines : public ImageFixture {
 protected:
  using Lines = std::vector<std::string>;
  static constexpr const char* kSyncImage = "sync data /vm/disk.raw";
  static constexpr const char* kSyncAddCow = "sync data /vm/x.add-cow";
  static constexpr const char* kWriteBits = "write /vm/x.add-cow 4096+1";

  Lines All() const {
    return log_.Lines([](const Operation&) { return true; });
  }
  // Changes and syncs since the log was cleared, but not that sharing storage
  // was tried.
  Lines Done() const {
    return log_.Lines([](const Operation& operation) {
      return ChangesOrSyncs(operation) && operation.kind != OpKind::kClone;
    });
  }
  Lines Flush() {
    log_.Clear();
    EXPECT_OK(image_->Flush());
    return Done();
  }
  size_t BackingReads() const {
    return log_
        .Records([](const Operation& operation) {
          return operation.kind == OpKind::kRead && operation.path == kBackingPath;
        })
        .size();
  }
  // Reads of the backing file that touch the cluster fail from now on.
  void BreakBacking(uint64_t cluster) {
    faults_.Set({.at = 1,
                 .error = EIO,
                 .lasting = FaultPlan::Lasting::kPersistent,
                 .where = [cluster](const Operation& operation) {
                   return operation.kind == OpKind::kRead && operation.path == kBackingPath &&
                          operation.offset < (cluster + 1) * kC &&
                          operation.offset + operation.length > cluster * kC;
                 }});
  }
  // Where a request's bytes are, from the maps of the image.
  bool InImage(uint64_t offset, uint64_t length) {
    bool all = true;
    EXPECT_OK(image_->Map(offset, length, [&](const Extent& extent) {
      all = all && extent.source == Extent::Source::kImage;
      return true;
    }));
    return all;
  }
  // The image file alone, in a cluster that was copied up.
  void ExpectImageFileAsReference(uint64_t cluster) {
    const uint64_t start = cluster * kC;
    const uint64_t length = std::min(kC, reference_->size() - start);
    EXPECT_EQ(reference_->Check(Inode(kImagePath).Bytes(start, length), start), "");
  }
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_ENGINE_LINES_H
