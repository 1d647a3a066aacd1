// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See disk_rules.h.

#include "fuzz/disk_rules.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "fuzz/format_rules.h"
#include "fuzz/scene.h"

namespace addcow::fuzz {

namespace {

constexpr uint64_t kSmallDisk = 32;  // clusters
constexpr size_t kLargestSample = 96;

// Names start from the add-cow file's own folder, which is /vm for all.
std::shared_ptr<FakeInode> FindNamed(const FakeFileSystem& files, const std::string& name) {
  return files.Find(name.starts_with('/') ? name : "/vm/" + name);
}

bool IsAddCow(const FakeInode& inode) {
  const std::string magic = "ADD_COW\xff";
  const auto bytes = inode.Bytes(0, magic.size());
  return inode.size() >= magic.size() &&
         std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

std::optional<DiskByTheRules> DiskByTheRules::Read(const FakeFileSystem& files,
                                                   const std::string& add_cow_path,
                                                   Backing wanted) {
  const auto add_cow = files.Find(add_cow_path);
  if (add_cow == nullptr) return std::nullopt;
  const auto header =
      ReadByTheRules(add_cow->Bytes(0, std::min(add_cow->size(), kHeaderBytes)));
  if (!header) return std::nullopt;
  const auto image = FindNamed(files, header->image_name);
  if (image == nullptr || image == add_cow || image->size() == 0) return std::nullopt;

  DiskByTheRules disk;
  disk.header_ = *header;
  disk.size_ = image->size();
  disk.add_cow_ = add_cow->Clone();
  disk.image_ = image->Clone();
  const auto backing = FindNamed(files, header->backing_name);
  const bool usable = backing != nullptr && header->backing_format == "raw";
  const bool needed = header->has_backing && !header->all_allocated;
  if (needed && !usable && wanted == Backing::kWanted) return std::nullopt;
  if (needed && usable && wanted != Backing::kNotWanted) {
    if (backing == add_cow || backing == image) return std::nullopt;
    if (backing->size() == 0 || backing->size() < header->noted_size.value_or(0))
      return std::nullopt;
    if (IsAddCow(*backing)) return std::nullopt;
    disk.backing_ = backing->Clone();
  }
  if (add_cow->size() < kHeaderBytes + (disk.clusters() + 7) / 8) return std::nullopt;
  // A guest may write there what it likes.
  if (!disk.IsAllocated(0) && IsAddCow(*image)) return std::nullopt;
  return disk;
}

bool DiskByTheRules::BitIsSet(uint64_t cluster) const {
  std::byte byte{0};
  (void)add_cow_->Read(std::span(&byte, 1), kHeaderBytes + cluster / 8);
  return (static_cast<unsigned>(byte) >> (cluster % 8) & 1) != 0;
}

void DiskByTheRules::Read(std::span<std::byte> buffer, uint64_t offset) const {
  while (!buffer.empty()) {
    const uint64_t cluster = offset / kCluster;
    const auto part = buffer.first(std::min<size_t>(buffer.size(), EndOf(cluster) - offset));
    const FakeInode* file = IsAllocated(cluster) ? image_.get() : backing_.get();
    // Zeroes past the end of the backing file.
    const size_t there = file != nullptr ? file->Read(part, offset).value_or(0) : 0;
    std::memset(part.data() + there, 0, part.size() - there);
    offset += part.size();
    buffer = buffer.subspan(part.size());
  }
}

std::vector<uint64_t> DiskByTheRules::Sample() const {
  std::set<uint64_t> sample;
  const uint64_t end = clusters();
  for (uint64_t i = 0; i < std::min(end, kSmallDisk); i++) sample.insert(i);
  if (end <= kSmallDisk) return {sample.begin(), sample.end()};
  for (uint64_t i = 1; i <= 4; i++) sample.insert(end - i);
  const auto add = [&](uint64_t cluster) {
    if (cluster < end) sample.insert(cluster);
    return sample.size() < kLargestSample;
  };
  ForEachData(*image_, [&](uint64_t start, uint64_t stop) {
    return add(start / kCluster) && add((stop - 1) / kCluster);
  });
  if (backing_ != nullptr)
    ForEachData(*backing_, [&](uint64_t start, uint64_t stop) {
      return add(start / kCluster) && add((stop - 1) / kCluster);
    });
  size_t bits = 0;
  ForEachData(*add_cow_, [&](uint64_t start, uint64_t stop) {
    for (uint64_t i = std::max(start, kHeaderBytes); i < stop; i++)
      for (uint64_t bit = 0; bit < 8; bit++) {
        const uint64_t cluster = (i - kHeaderBytes) * 8 + bit;
        if (cluster >= end || bits >= 32) return false;
        if (!BitIsSet(cluster)) continue;
        sample.insert(cluster);
        bits++;
      }
    return true;
  });
  return {sample.begin(), sample.end()};
}

bool DiskByTheRules::OthersAreSame(const FakeFileSystem& before,
                                   const FakeFileSystem& now) const {
  const auto names = before.List();
  return names == now.List() && std::all_of(names.begin(), names.end(), [&](const auto& name) {
           const auto inode = before.Find(name);
           return inode->number() == add_cow_->number() ||
                  inode->number() == image_->number() || SameBytes(*inode, *now.Find(name));
         });
}

uint64_t DiskByTheRules::CountBits(uint64_t first, uint64_t end) const {
  uint64_t count = 0;
  ForEachData(*add_cow_, [&](uint64_t start, uint64_t stop) {
    start = std::max(start, kHeaderBytes);
    const auto bytes = add_cow_->Bytes(start, stop > start ? stop - start : 0);
    for (uint64_t i = 0; i < bytes.size(); i++)
      for (uint64_t bit = 0; bytes[i] != std::byte{0} && bit < 8; bit++) {
        const uint64_t cluster = (start - kHeaderBytes + i) * 8 + bit;
        const bool set = (static_cast<unsigned>(bytes[i]) >> bit & 1) != 0;
        if (set && cluster >= first && cluster < end) count++;
      }
    return true;
  });
  return count;
}

uint64_t DiskByTheRules::StrayBits() const { return CountBits(clusters(), UINT64_MAX); }

uint64_t DiskByTheRules::LeakedClusters() const {
  std::set<uint64_t> leaked;
  ForEachData(*image_, [&](uint64_t start, uint64_t stop) {
    for (uint64_t cluster = start / kCluster; cluster * kCluster < stop; cluster++) {
      const uint64_t first = std::max(start, cluster * kCluster);
      const auto bytes = image_->Bytes(first, std::min(stop, EndOf(cluster)) - first);
      const bool zero =
          std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
      if (!IsAllocated(cluster) && !zero) leaked.insert(cluster);
    }
    return true;
  });
  return leaked.size();
}

}  // namespace addcow::fuzz
