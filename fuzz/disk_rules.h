// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What docs/format.md makes of the files on a FakeFileSystem: whether they
// must be refused, which cluster is allocated, and what the disk reads. It
// looks at the files' bytes only and shares no code with the engine, whose
// judge it is.

#ifndef ADDCOW_FUZZ_DISK_RULES_H
#define ADDCOW_FUZZ_DISK_RULES_H

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fuzz/format_rules.h"
#include "tests/support/fake_file_system.h"

namespace addcow::fuzz {

inline constexpr uint64_t kCluster = 65536;

// The files are as they were when it was made: it has clones of them.
class DiskByTheRules {
 public:
  // Whether a backing file that is needed has to be there and raw. kOptional: one
  // that is both must be sound all the same.
  enum class Backing { kNotWanted, kOptional, kWanted };

  // Nothing: they must be refused.
  static std::optional<DiskByTheRules> Read(const FakeFileSystem& files,
                                            const std::string& add_cow_path,
                                            Backing wanted = Backing::kWanted);

  const HeaderFields& header() const { return header_; }
  uint64_t size() const { return size_; }
  uint64_t clusters() const { return size_ / kCluster + (size_ % kCluster != 0 ? 1 : 0); }
  uint64_t backing_size() const { return backing_ ? backing_->size() : 0; }

  bool BitIsSet(uint64_t cluster) const;
  bool IsAllocated(uint64_t cluster) const {
    return header_.all_allocated || BitIsSet(cluster);
  }
  // What the disk reads.
  void Read(std::span<std::byte> buffer, uint64_t offset) const;
  std::vector<std::byte> Bytes(uint64_t offset, uint64_t length) const {
    std::vector<std::byte> bytes(length);
    Read(bytes, offset);
    return bytes;
  }
  uint64_t EndOf(uint64_t cluster) const { return std::min(size_, (cluster + 1) * kCluster); }

  // Clusters worth a look: all of a small disk; else those at both ends,
  // some with storage, and some whose bits are set.
  std::vector<uint64_t> Sample() const;

  // Whether `now` differs from `before` in the add-cow and image files at most.
  bool OthersAreSame(const FakeFileSystem& before, const FakeFileSystem& now) const;

  // Bits by counting them one by one. For disks and files of moderate size.
  uint64_t CountBits(uint64_t first, uint64_t end) const;
  uint64_t StrayBits() const;
  // Clusters with data in the image file under a 0 bit.
  uint64_t LeakedClusters() const;

  const FakeInode& add_cow() const { return *add_cow_; }
  const FakeInode& image() const { return *image_; }

 private:
  HeaderFields header_;
  uint64_t size_ = 0;
  std::shared_ptr<FakeInode> add_cow_;
  std::shared_ptr<FakeInode> image_;
  std::shared_ptr<FakeInode> backing_;  // null: none, or not needed
};

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_DISK_RULES_H
