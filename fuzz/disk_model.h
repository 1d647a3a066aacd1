// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a disk must read after writes and zeroes: what the rules made of its
// files at the beginning (DiskByTheRules), and the subclusters changed since. So
// it can be of any size, and what a crash may take back it forgets by itself.

#ifndef ADDCOW_FUZZ_DISK_MODEL_H
#define ADDCOW_FUZZ_DISK_MODEL_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <vector>

#include "fuzz/disk_rules.h"

namespace addcow::fuzz {

class DiskModel {
 public:
  explicit DiskModel(DiskByTheRules start) : start_(std::move(start)) {}

  const DiskByTheRules& start() const { return start_; }
  // By the number of the subcluster.
  const std::map<uint64_t, std::vector<std::byte>>& changed() const { return changed_; }

  std::vector<std::byte> Bytes(uint64_t offset, uint64_t length) const {
    std::vector<std::byte> bytes(length);
    start_.Read(bytes, offset);
    for (auto found = changed_.lower_bound(offset / kSubcluster);
         found != changed_.end() && found->first * kSubcluster < offset + length; ++found) {
      const uint64_t start = found->first * kSubcluster;
      const uint64_t from = std::max(start, offset);
      const uint64_t to = std::min(start + found->second.size(), offset + length);
      if (from < to)
        std::memcpy(bytes.data() + (from - offset), found->second.data() + (from - start),
                    to - from);
    }
    return bytes;
  }

  void Write(uint64_t offset, std::span<const std::byte> data) {
    while (!data.empty()) {
      const size_t part = std::min<size_t>(data.size(), kSubcluster - offset % kSubcluster);
      auto& bytes = Changed(offset / kSubcluster);
      std::memcpy(bytes.data() + offset % kSubcluster, data.data(), part);
      offset += part;
      data = data.subspan(part);
    }
  }

  // The subcluster reads again what it did at the beginning.
  void Forget(uint64_t subcluster) { changed_.erase(subcluster); }

 private:
  std::vector<std::byte>& Changed(uint64_t subcluster) {
    auto& bytes = changed_[subcluster];
    const uint64_t start = subcluster * kSubcluster;
    if (bytes.empty())
      bytes = start_.Bytes(start, std::min(kSubcluster, start_.size() - start));
    return bytes;
  }

  const DiskByTheRules start_;
  std::map<uint64_t, std::vector<std::byte>> changed_;
};

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_DISK_MODEL_H
