// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See disk_rules.h.

#include "fuzz/disk_rules.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "common/base/xxh3.h"
#include "fuzz/scene.h"

namespace addcow::fuzz {

namespace {

constexpr uint64_t kSmallDisk = 2 << 20;  // bytes

// So many clusters, and a multiple of it, are in a sample.
uint64_t SmallDisk(uint64_t cluster) {
  return std::clamp<uint64_t>(kSmallDisk / cluster, 2, 64);
}

// Names start from the add-cow file's own folder, which is /vm for all.
std::shared_ptr<FakeInode> FindNamed(const FakeFileSystem& files, const std::string& name) {
  return files.Find(name.starts_with('/') ? name : "/vm/" + name);
}

// Of whichever revision.
bool IsAddCow(const FakeInode& inode) {
  return std::ranges::any_of(
      std::to_array<std::string>({"ADD_COW\xff", "ACOW"}), [&](const std::string& magic) {
        const auto bytes = inode.Bytes(0, magic.size());
        return inode.size() >= magic.size() &&
               std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
      });
}

// A base is what was noted of it, as far as that is not a line in the log.
bool IsAsNoted(const FakeInode& backing, const HeaderFields& header) {
  const uint64_t noted = header.noted_size.value_or(0);
  if (header.noted_edge == 0) return backing.size() >= noted;
  return backing.size() == noted &&
         SampleByTheRules(backing, header.noted_edge) == header.noted_hash;
}

}  // namespace

std::string SampleByTheRules(const FakeInode& backing, uint64_t edge) {
  const uint64_t size = backing.size();
  std::vector<std::byte> sample;
  const auto add = [&](uint64_t offset, uint64_t length) {
    const auto bytes = backing.Bytes(offset, length);
    sample.insert(sample.end(), bytes.begin(), bytes.end());
  };
  if (size <= 2 * edge + 69632) {
    add(0, size);
  } else {
    add(0, edge);
    for (uint64_t at = 1 << 20; at <= 1 << 30; at += at)
      if (at >= edge && at <= size - edge - 4096) add(at, 4096);
    for (uint64_t n = 1; n < 17; n++) {
      const uint64_t at = edge + n * ((size - 2 * edge) / 17);
      add(at - at % 4096, 4096);
    }
    add(size - edge, edge);
  }
  const Hash128 hash = Xxh3(sample);
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}

std::optional<HeaderFields> ReadHeaderByTheRules(const FakeInode& add_cow) {
  const auto beginning = [&](uint64_t bytes) {
    return add_cow.Bytes(0, std::min(add_cow.size(), bytes));
  };
  return ReadByTheRules(beginning(HeaderLengthByTheRules(beginning(kLeastHeaderBytes))));
}

bool DiskByTheRules::SubclusterPlaceIsTaken() const {
  constexpr uint64_t kPiece = 4096;
  const uint64_t place = SubclusterPlace();
  const uint64_t end = add_cow_->size();
  if (end > header_.SubclusterEnd(size_)) return true;
  for (uint64_t position = place; position < end;) {
    const auto data = add_cow_->SeekData(position);
    if (!data || *data >= end) return false;
    const uint64_t length = std::min(kPiece - *data % kPiece, end - *data);
    const auto found = add_cow_->Bytes(*data, length);
    if (std::ranges::any_of(found, [](std::byte byte) { return byte != std::byte{0}; }))
      return true;
    position = *data + length;
  }
  return false;
}

std::optional<DiskByTheRules> DiskByTheRules::Read(const FakeFileSystem& files,
                                                   const std::string& add_cow_path,
                                                   Backing wanted) {
  const auto add_cow = files.Find(add_cow_path);
  if (add_cow == nullptr) return std::nullopt;
  const auto header = ReadHeaderByTheRules(*add_cow);
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
    if (backing->size() == 0 || !IsAsNoted(*backing, *header)) return std::nullopt;
    if (IsAddCow(*backing)) return std::nullopt;
    disk.backing_ = backing->Clone();
  }
  if (add_cow->size() < header->header_bytes + PartsOf(disk.clusters(), 8)) return std::nullopt;
  if (header->subclusters && !header->all_allocated)
    if (add_cow->size() < disk.SubclusterPlace() + PartsOf(disk.subclusters(), 8) ||
        add_cow->size() > header->SubclusterEnd(disk.size()))
      return std::nullopt;
  // A guest may write there what it likes.
  if (!disk.IsInImage(0) && IsAddCow(*image)) return std::nullopt;
  return disk;
}

bool DiskByTheRules::Bit(uint64_t place, uint64_t number) const {
  std::byte byte{0};
  (void)add_cow_->Read(std::span(&byte, 1), place + number / 8);
  return (static_cast<unsigned>(byte) >> (number % 8) & 1) != 0;
}

void DiskByTheRules::Read(std::span<std::byte> buffer, uint64_t offset) const {
  while (!buffer.empty()) {
    const bool partly = header_.subclusters && !IsAllocated(offset / cluster());
    const uint64_t unit = partly ? kSubcluster : cluster();
    const auto part = buffer.first(std::min<size_t>(buffer.size(), unit - offset % unit));
    const bool in_image = IsInImage(offset / kSubcluster);
    const FakeInode* file = in_image ? image_.get() : backing_.get();
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
  const uint64_t few = SmallDisk(cluster());
  for (uint64_t i = 0; i < std::min(end, few); i++) sample.insert(i);
  if (end <= few) return {sample.begin(), sample.end()};
  for (uint64_t i = 1; i <= std::min<uint64_t>(4, few); i++) sample.insert(end - i);
  const auto add = [&](uint64_t number) {
    if (number < end) sample.insert(number);
    return sample.size() < 3 * few;
  };
  ForEachData(*image_, [&](uint64_t start, uint64_t stop) {
    return add(start / cluster()) && add((stop - 1) / cluster());
  });
  if (backing_ != nullptr)
    ForEachData(*backing_, [&](uint64_t start, uint64_t stop) {
      return add(start / cluster()) && add((stop - 1) / cluster());
    });
  size_t bits = 0;
  const auto add_of_bits = [&](uint64_t place, uint64_t stop, uint64_t in_cluster) {
    ForEachBit(place, stop, [&](uint64_t number) {
      if (number / in_cluster >= end || bits >= few) return false;
      if (sample.insert(number / in_cluster).second) bits++;
      return true;
    });
    bits = 0;
  };
  add_of_bits(header_.header_bytes, BitmapEnd(), 1);
  if (header_.subclusters) add_of_bits(SubclusterPlace(), UINT64_MAX, per_cluster());
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

void DiskByTheRules::ForEachBit(uint64_t place, uint64_t end,
                                const std::function<bool(uint64_t)>& use) const {
  ForEachData(*add_cow_, [&](uint64_t start, uint64_t stop) {
    start = std::max(start, place);
    stop = std::min(stop, end);
    const auto bytes = add_cow_->Bytes(start, stop > start ? stop - start : 0);
    for (uint64_t i = 0; i < bytes.size(); i++)
      for (uint64_t bit = 0; bytes[i] != std::byte{0} && bit < 8; bit++)
        if ((static_cast<unsigned>(bytes[i]) >> bit & 1) != 0 &&
            !use((start - place + i) * 8 + bit))
          return false;
    return true;
  });
}

uint64_t DiskByTheRules::CountBits(uint64_t first, uint64_t end) const {
  uint64_t count = 0;
  ForEachBit(header_.header_bytes, BitmapEnd(), [&](uint64_t number) {
    if (number >= first && number < end) count++;
    return true;
  });
  return count;
}

uint64_t DiskByTheRules::CountSubclusterBits(uint64_t first, uint64_t end) const {
  uint64_t count = 0;
  if (!header_.subclusters) return 0;
  ForEachBit(SubclusterPlace(), UINT64_MAX, [&](uint64_t number) {
    if (number >= first && number < end) count++;
    return true;
  });
  return count;
}

// With ALL_ALLOCATED the second bitmap does not exist.
uint64_t DiskByTheRules::StrayBits() const {
  const uint64_t stray = CountBits(clusters(), UINT64_MAX);
  return header_.all_allocated ? stray : stray + CountSubclusterBits(subclusters(), UINT64_MAX);
}

DiskByTheRules::Parts DiskByTheRules::CountPartial() const {
  Parts partial;
  if (!header_.subclusters) return partial;
  uint64_t next = 0;  // cluster that is not counted
  ForEachBit(SubclusterPlace(), UINT64_MAX, [&](uint64_t number) {
    const uint64_t cluster = number / per_cluster();
    if (number >= subclusters()) return false;
    if (IsAllocated(cluster)) return true;
    partial.subclusters++;
    if (cluster >= next) partial.clusters++;
    next = cluster + 1;
    return true;
  });
  return partial;
}

bool DiskByTheRules::AnySubclusterBit() const {
  bool any = false;
  ForEachBit(SubclusterPlace(), UINT64_MAX, [&](uint64_t) { return !(any = true); });
  return any;
}

DiskByTheRules::Parts DiskByTheRules::CountLeaks() const {
  std::set<uint64_t> leaked;
  ForEachData(*image_, [&](uint64_t start, uint64_t stop) {
    while (start < stop) {
      const uint64_t subcluster = start / kSubcluster;
      const uint64_t end = std::min({stop, size_, (subcluster + 1) * kSubcluster});
      const auto bytes = image_->Bytes(start, end - start);
      const bool zero =
          std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
      if (!zero && !IsInImage(subcluster)) leaked.insert(subcluster);
      start = end;
    }
    return true;
  });
  std::set<uint64_t> clusters;
  for (const uint64_t subcluster : leaked) clusters.insert(subcluster / per_cluster());
  return {leaked.size(), clusters.size()};
}

}  // namespace addcow::fuzz
