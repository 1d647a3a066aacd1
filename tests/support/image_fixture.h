// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The fixture of the engine's tests: an image on a FakeFileSystem behind an
// operation log, a fault plan and a gate, opened; and a ReferenceDisk that
// goes along with it.

#ifndef ADDCOW_TESTS_SUPPORT_IMAGE_FIXTURE_H
#define ADDCOW_TESTS_SUPPORT_IMAGE_FIXTURE_H

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/gated_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/racer.h"
#include "tests/support/random.h"
#include "tests/support/reference_disk.h"
#include "tests/support/test_image.h"

namespace addcow {

class ImageFixture : public testing::Test {
 protected:
  explicit ImageFixture(bool subclusters = true) : subclusters_(subclusters) {
    fake_.MakeDirectory(kDirectory);
  }

  // Makes the files, in place of those of an earlier Make, and opens the image.
  void Make(const ImageSpec& spec) {
    image_.reset();
    for (const char* path : {kAddCowPath, kImagePath, kBackingPath}) (void)fake_.Remove(path);
    auto disk = MakeTestImage(fake_, kDirectory, spec);
    ASSERT_OK(disk);
    reference_.emplace(std::move(*disk));
    Reopen();
  }

  // As a new process does. The old one's image is dropped, not closed.
  void Reopen(OpenMode mode = OpenMode::kReadWrite) {
    image_.reset();
    auto image = OpenTestImage(seam_, kDirectory, mode, &messages_, subclusters_);
    ASSERT_OK(image);
    image_ = std::move(*image);
    log_.Clear();
  }

  // On the image and on the reference.
  void Write(uint64_t offset, std::span<const std::byte> data, Fua fua = Fua::kNo) {
    ASSERT_OK(image_->Write(data, offset, fua));
    reference_->Write(data, offset);
  }
  void Write(uint64_t offset, uint64_t length) { Write(offset, random_.Bytes(length)); }
  void Zero(uint64_t offset, uint64_t length, ZeroOptions options = {}) {
    ASSERT_OK(image_->Zero(offset, length, options));
    reference_->Zero(offset, length);
  }

  std::vector<std::byte> Read(uint64_t offset, uint64_t length) {
    std::vector<std::byte> buffer(length);
    EXPECT_OK(image_->Read(buffer, offset));
    return buffer;
  }

  // Runs `first` until it stands at `stop`, then `second` as far as it gets, then
  // both to their ends, which must be good ones. Whether `second` had to wait.
  bool RaceAt(Gate::Stop stop, const std::function<Status()>& first,
              const std::function<Status()>& second) {
    Status first_done;
    Status second_done;
    Racer one([&] { first_done = first(); });
    stop.WaitUntilParked();
    Racer other([&] { second_done = second(); });
    other.WaitUntilBlockedOrDone();
    const bool waited = !other.done();
    stop.Release();
    one.Join();
    other.Join();
    EXPECT_OK(first_done);
    EXPECT_OK(second_done);
    return waited;
  }

  // The whole disk against the reference.
  void ExpectAsReference() { EXPECT_EQ(reference_->Check(ReadAll(*image_), 0), ""); }

  bool IsAllocated(uint64_t cluster) const { return image_->bitmap().Test(cluster); }

  FakeInode& Inode(const char* path) const { return *fake_.Find(path); }
  bool IsHole(const char* path, uint64_t offset, uint64_t length) const {
    const auto data = Inode(path).SeekData(offset);
    return !data || *data >= offset + length;
  }

  // What a reader of the add-cow file finds now: a cluster's bit; a feature; whether
  // the image file has a byte.
  bool ClusterBitOnDisk(uint64_t cluster) const { return BitAt(kBitmapOffset, cluster); }
  bool HasSubclustersOnDisk() const { return ReadFlags(Inode(kAddCowPath)).subclusters; }
  bool FlagOnDisk() const { return ReadFlags(Inode(kAddCowPath)).all_allocated; }
  bool OnDisk(uint64_t offset) const {
    const BitmapPlace place = Layout(reference_->size(), Geometry{}).subcluster_bitmap();
    return ClusterBitOnDisk(offset / kClusterSize) ||
           (HasSubclustersOnDisk() && BitAt(place.offset, offset / kSubclusterSize));
  }
  // The same of a cluster's first byte.
  bool BitOnDisk(uint64_t cluster) const { return OnDisk(cluster * kClusterSize); }

  bool BitAt(uint64_t offset, uint64_t bit) const {
    const auto byte = Inode(kAddCowPath).Bytes(offset + bit / 8, 1)[0];
    return (static_cast<unsigned>(byte) >> (bit % 8) & 1) != 0;
  }

  Random random_{TestSeed()};
  FakeFileSystem fake_;
  FaultPlan faults_;
  Gate gate_;
  OperationLog log_;
  ForwardingFileSystem fault_system_{fake_, faults_};
  ForwardingFileSystem gate_system_{fault_system_, gate_};
  ForwardingFileSystem seam_{gate_system_, log_};
  std::vector<std::string> messages_;
  bool subclusters_;  // whether images opened from then on may get them
  std::optional<ReferenceDisk> reference_;
  std::unique_ptr<Image> image_;
};

// For tests of which all must hold with subclusters and without.
class BothGrains : public ImageFixture, public testing::WithParamInterface<bool> {
 protected:
  BothGrains() : ImageFixture(GetParam()) {}
};

inline std::string GrainName(const testing::TestParamInfo<bool>& info) {
  return info.param ? "Subclusters" : "Clusters";
}

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_IMAGE_FIXTURE_H
