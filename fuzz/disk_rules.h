// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What docs/format.md makes of the files on a FakeFileSystem: whether they
// must be refused, what is allocated, and what the disk reads. It
// looks at the files' bytes only and shares no code with the engine, whose
// judge it is.

#ifndef ADDCOW_FUZZ_DISK_RULES_H
#define ADDCOW_FUZZ_DISK_RULES_H

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fuzz/format_rules.h"
#include "tests/support/fake_file_system.h"

namespace addcow::fuzz {

// The hash of a backing file's sample, as it is in a record.
std::string SampleByTheRules(const FakeInode& backing, uint64_t edge);

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
  uint64_t cluster() const { return header_.cluster; }  // bytes
  uint64_t per_cluster() const { return cluster() / kSubcluster; }
  uint64_t size() const { return size_; }
  uint64_t clusters() const { return header_.Clusters(size_); }
  uint64_t subclusters() const { return PartsOf(size_, kSubcluster); }
  // The bitmaps of a larger one may be more than the address space takes.
  bool IsSurelyOpened() const {
    return clusters() <= 1ull << 34 && subclusters() <= 1ull << 38;
  }
  uint64_t backing_size() const { return backing_ ? backing_->size() : 0; }

  // Without SUBCLUSTERS: whether the place of their bitmap holds anything but zeroes, or
  // the file goes on behind it. It may be a larger disk's.
  bool SubclusterPlaceIsTaken() const;

  // The add-cow file ends inside of the padding, where it may not.
  bool IsUnpadded() const {
    return header_.must_be_rounded &&
           (add_cow_->size() - header_.header_bytes) % header_.bitmap_unit != 0;
  }

  bool BitIsSet(uint64_t cluster) const { return Bit(header_.header_bytes, cluster); }
  bool SubclusterBitIsSet(uint64_t subcluster) const {
    return header_.subclusters && Bit(SubclusterPlace(), subcluster);
  }
  bool IsAllocated(uint64_t cluster) const {
    return header_.all_allocated || BitIsSet(cluster);
  }
  bool IsInImage(uint64_t subcluster) const {
    return IsAllocated(subcluster / per_cluster()) || SubclusterBitIsSet(subcluster);
  }
  // What the disk reads.
  void Read(std::span<std::byte> buffer, uint64_t offset) const;
  std::vector<std::byte> Bytes(uint64_t offset, uint64_t length) const {
    std::vector<std::byte> bytes(length);
    Read(bytes, offset);
    return bytes;
  }
  uint64_t Start(uint64_t cluster) const { return cluster * header_.cluster; }
  uint64_t EndOf(uint64_t cluster) const { return std::min(size_, Start(cluster + 1)); }

  // Clusters worth a look: all of a small disk; else those at both ends,
  // some with storage, and some with bits of either kind that are set. Of large clusters
  // less.
  std::vector<uint64_t> Sample() const;

  // Whether `now` differs from `before` in the add-cow and image files at most.
  bool OthersAreSame(const FakeFileSystem& before, const FakeFileSystem& now) const;

  // By looking at each bit, of clusters and of subclusters. For files of moderate size.
  uint64_t CountBits(uint64_t first, uint64_t end) const;
  uint64_t CountSubclusterBits(uint64_t first, uint64_t end) const;
  uint64_t StrayBits() const;  // of both
  // Whether a bit is 1 where the subcluster bitmap lies or would lie.
  bool AnySubclusterBit() const;
  // So many subclusters, and in how many clusters they lie.
  struct Parts {
    uint64_t subclusters = 0;
    uint64_t clusters = 0;
  };
  // That are allocated, but their clusters are not.
  Parts CountPartial() const;
  bool AnyPartial() const { return CountPartial().clusters > 0; }
  // Of which the image file has data that is not the disk's.
  Parts CountLeaks() const;

  const FakeInode& add_cow() const { return *add_cow_; }
  const FakeInode& image() const { return *image_; }

 private:
  bool Bit(uint64_t place, uint64_t number) const;
  // Calls `use(number)` for each bit that is set of those in the bytes from `place` to
  // `end`, until it returns false.
  void ForEachBit(uint64_t place, uint64_t end, const std::function<bool(uint64_t)>& use) const;
  uint64_t SubclusterPlace() const { return header_.SubclusterPlace(size_); }
  uint64_t BitmapEnd() const { return header_.subclusters ? SubclusterPlace() : UINT64_MAX; }

  HeaderFields header_;
  uint64_t size_ = 0;
  std::shared_ptr<FakeInode> add_cow_;
  std::shared_ptr<FakeInode> image_;
  std::shared_ptr<FakeInode> backing_;  // null: none, or not needed
};

// The header of an add-cow file; nothing where it must be refused.
std::optional<HeaderFields> ReadHeaderByTheRules(const FakeInode& add_cow);

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_DISK_RULES_H
