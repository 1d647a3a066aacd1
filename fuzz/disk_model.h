// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a disk must read after writes and zeroes: what the rules made of its
// files at the beginning (DiskByTheRules), and the clusters changed since. So
// it can be of any size.

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
  const std::map<uint64_t, std::vector<std::byte>>& changed() const { return changed_; }

  std::vector<std::byte> Bytes(uint64_t offset, uint64_t length) const {
    std::vector<std::byte> bytes(length);
    for (std::span<std::byte> rest = bytes; !rest.empty();) {
      const uint64_t cluster = offset / kCluster;
      const auto part =
          rest.first(std::min<size_t>(rest.size(), start_.EndOf(cluster) - offset));
      if (const auto found = changed_.find(cluster); found != changed_.end())
        std::memcpy(part.data(), found->second.data() + offset % kCluster, part.size());
      else
        start_.Read(part, offset);
      offset += part.size();
      rest = rest.subspan(part.size());
    }
    return bytes;
  }

  void Write(uint64_t offset, std::span<const std::byte> data) {
    while (!data.empty()) {
      const uint64_t cluster = offset / kCluster;
      const size_t part = std::min<size_t>(data.size(), start_.EndOf(cluster) - offset);
      auto& bytes = Changed(cluster);
      std::memcpy(bytes.data() + offset % kCluster, data.data(), part);
      offset += part;
      data = data.subspan(part);
    }
  }

  // The cluster reads again what it did at the beginning.
  void Forget(uint64_t cluster) { changed_.erase(cluster); }

 private:
  std::vector<std::byte>& Changed(uint64_t cluster) {
    auto& bytes = changed_[cluster];
    if (bytes.empty())
      bytes = start_.Bytes(cluster * kCluster, start_.EndOf(cluster) - cluster * kCluster);
    return bytes;
  }

  const DiskByTheRules start_;
  std::map<uint64_t, std::vector<std::byte>> changed_;
};

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_DISK_MODEL_H
