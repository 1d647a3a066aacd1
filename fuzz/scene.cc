// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See scene.h.

#include "fuzz/scene.h"

#include <array>
#include <cstring>
#include <string_view>
#include <vector>

#include "fuzz/disk_rules.h"
#include "fuzz/format_rules.h"
#include "fuzz/must.h"
#include "tests/support/random.h"
#include "tests/support/test_image.h"

namespace addcow::fuzz {

namespace {

constexpr uint64_t kBlock = FakeInode::kBlockSize;

// Of a larger file only the beginning and the end may have storage.
constexpr uint64_t kDenseBytes = 256 * kKiB;
constexpr uint64_t kTailBytes = 20 * kBlock;

// Each block's fate is drawn: a hole, storage without data, or data in which
// every sector is different, and different from those of the other file.
void FillBlock(FakeInode& inode, uint64_t offset, uint64_t length, Random& random) {
  const uint64_t fate = random.Below(4);
  if (fate == 0) return;
  if (fate == 1) {
    (void)inode.ZeroRange(offset, length);
    return;
  }
  std::array<std::byte, kBlock> bytes;
  for (size_t i = 0; i < kBlock; i += kSectorSize) {
    const uint64_t stamp = random.Next() | 1;
    std::memset(bytes.data() + i, static_cast<int>(stamp % 255 + 1), kSectorSize);
    std::memcpy(bytes.data() + i + kSectorSize / 2, &stamp, sizeof stamp);
  }
  (void)inode.Write(std::span(bytes).first(static_cast<size_t>(length)), offset);
}

std::shared_ptr<FakeInode> PutDisk(FakeFileSystem& files, const char* path, uint64_t size,
                                   uint64_t seed) {
  auto inode = files.Put(path, size);
  Random random(seed);
  for (uint64_t offset = 0; offset < size; offset += kBlock) {
    if (offset == kDenseBytes && size > kDenseBytes + kTailBytes)
      offset = RoundDown(size, kBlock) - kTailBytes;
    FillBlock(*inode, offset, std::min(kBlock, size - offset), random);
  }
  return inode;
}

void PutNumber(std::vector<std::byte>& bytes, size_t offset, uint64_t value, size_t count) {
  for (size_t i = 0; i < count; i++)
    bytes[offset + i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
}

void PutText(std::vector<std::byte>& bytes, size_t offset, const std::string& text) {
  std::memcpy(bytes.data() + offset, text.data(), text.size());
}

// Where a header has its fields.
struct MadeFields {
  size_t image_name = 0;
  size_t backing_name = 0;
  size_t features = 0;
  size_t optional_features = 0;
  size_t image_format = 0;
  size_t backing_format = 0;
};
constexpr MadeFields kMadeVersion1 = {20, 12, 28, 36, 64, 48};
constexpr MadeFields kMadeRevision20 = {12, 4, 24, 32, 60, 44};

std::span<const std::byte> Magic(bool first) {
  return std::as_bytes(std::span(std::string_view(first ? "ADD_COW\xff" : "ACOW")));
}

// Of the clusters in a header of revision 20. Large ones are rare, since they cost time.
unsigned ClusterBits(unsigned code) { return code <= 10 ? 11 + code : 12 + code % 5; }

void PutName(std::vector<std::byte>& bytes, size_t field, size_t offset,
             const std::string& name) {
  PutNumber(bytes, field, offset, 4);
  PutNumber(bytes, field + 4, name.size(), 4);
  PutText(bytes, offset, name);
}

void PutIdentity(std::vector<std::byte>& bytes, uint64_t backing_size) {
  const size_t record = bytes.size() - 256;
  PutNumber(bytes, record, 1, 4);      // its version
  PutNumber(bytes, record + 4, 1, 4);  // the size is there
  PutNumber(bytes, record + 8, backing_size, 8);
}

// The right one, in a header that has an identity.
void PutHash(FakeInode& add_cow, size_t header_bytes, const FakeInode& backing, uint64_t edge) {
  std::vector<std::byte> bytes(72);
  PutNumber(bytes, 0, 1, 4);  // the algorithm
  PutText(bytes, 4, SampleByTheRules(backing, edge));
  PutNumber(bytes, 68, edge, 4);
  (void)add_cow.Write(bytes, header_bytes - 256 + 28);
}

// A sound header that names disk.raw and perhaps base.img. `revision`: see scene.h.
std::vector<std::byte> SoundHeader(unsigned flags, unsigned revision, uint64_t backing_size) {
  const bool first = revision == 0;
  const MadeFields& at = first ? kMadeVersion1 : kMadeRevision20;
  const unsigned cluster_bits = first ? 16 : ClusterBits(revision);
  std::vector<std::byte> bytes(first ? 4096 : uint64_t{1} << cluster_bits);
  std::ranges::copy(Magic(first), bytes.begin());
  if (first) {
    PutNumber(bytes, 8, 1, 4);   // version
    PutNumber(bytes, 44, 1, 4);  // header pages size
  } else {
    PutNumber(bytes, 20, cluster_bits, 4);
    PutNumber(bytes, 40, bytes.size(), 4);
  }
  PutName(bytes, at.image_name, 80, "disk.raw");
  PutText(bytes, at.image_format, "raw");
  uint64_t features = first ? 2 : 0;
  uint64_t optional = 0;
  if ((flags & kMadeOtherBits) != 0) optional = uint64_t{1} << 40 | 1 << 16 | (first ? 1 : 0);
  if ((flags & kMadeWithBacking) != 0) {
    features |= first ? 1 : 0;
    PutName(bytes, at.backing_name, 200, "base.img");
    PutText(bytes, at.backing_format, (flags & kMadeQcow2) != 0 ? "qcow2" : "raw");
    if ((flags & kMadeIdentity) != 0) {
      optional |= 1 << 16;
      PutIdentity(bytes, backing_size);
    }
  }
  if ((flags & kMadeAllAllocated) != 0) (first ? features : optional) |= first ? 4 : 1;
  if ((flags & kMadeSubclusters) != 0 && cluster_bits > 12) features |= 1 << 16;
  if ((flags & kMadeNoSubclusters) != 0) optional |= 1 << 17;
  PutNumber(bytes, at.features, features, 8);
  PutNumber(bytes, at.optional_features, optional, 8);
  return bytes;
}

uint32_t GetNumber(std::span<const std::byte> bytes, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint32_t>(bytes[offset + i]);
  return value;
}

// The header that is given, to its end.
std::vector<std::byte> GivenHeader(std::span<const std::byte> given) {
  std::vector<std::byte> bytes(given.begin(), given.end());
  bytes.resize(HeaderLengthByTheRules(given));
  if (bytes.size() <= given.size()) return bytes;
  const MadeFields& at = bytes[1] == std::byte{'C'} ? kMadeRevision20 : kMadeVersion1;
  for (const auto& [field, name] :
       {std::pair(at.image_name, "disk.raw"), std::pair(at.backing_name, "base.img")}) {
    const uint64_t offset = GetNumber(bytes, field);
    const uint64_t size = std::min<uint64_t>(GetNumber(bytes, field + 4), std::strlen(name));
    if (offset >= given.size() && offset + size <= bytes.size())
      std::memcpy(bytes.data() + offset, name, size);
  }
  return bytes;
}

// Pages without a byte stay holes.
void PutSparsely(FakeInode& inode, std::span<const std::byte> bytes) {
  for (size_t at = 0; at < bytes.size(); at += kBlock) {
    const auto page = bytes.subspan(at, std::min<size_t>(kBlock, bytes.size() - at));
    if (std::ranges::any_of(page, [](std::byte byte) { return byte != std::byte{0}; }))
      (void)inode.Write(page, at);
  }
}

}  // namespace

std::unique_ptr<Scene> MakeScene(Input& input) {
  auto scene = std::make_unique<Scene>();
  FakeFileSystem& files = scene->files;
  scene->flags = input.Byte();
  const unsigned made_flags = input.Byte();
  scene->subclusters = (made_flags & kSubclustersOff) == 0;
  const uint64_t seed = input.Byte();
  const uint64_t image_size = input.Size();
  const uint64_t backing_size = input.Size();
  const uint64_t add_cow_size = input.Size();
  const uint64_t header_bytes = input.Number(2);
  const uint64_t bitmap_bytes = input.Number(2);
  const uint64_t subcluster_bytes = input.Number(2);

  const unsigned revision = input.Byte();

  std::vector<std::byte> bytes;
  if (header_bytes > 0) {
    bytes = GivenHeader(input.Take(header_bytes));
  } else {
    bytes = SoundHeader(made_flags, revision, backing_size);
  }
  const HeaderFields header = ReadByTheRules(bytes).value_or(HeaderFields());
  const auto bitmap = input.Take(bitmap_bytes);
  uint64_t end = bytes.size() + bitmap.size();
  if (header.must_be_rounded)
    end = bytes.size() + RoundUp(std::max<uint64_t>(bitmap.size(), 1), header.bitmap_unit);
  if ((made_flags & kMadeSubclusters) != 0 && header.cluster > kSubcluster)
    end = std::max(end, header.SubclusterEnd(image_size));
  const auto add_cow = files.Put(kAddCow, end);
  PutSparsely(*add_cow, bytes);
  if (!bitmap.empty()) (void)add_cow->Write(bitmap, bytes.size());
  const auto subclusters = input.Take(subcluster_bytes);
  if (!subclusters.empty())
    (void)add_cow->Write(subclusters, header.SubclusterPlace(image_size));
  if (add_cow_size > 0) (void)add_cow->Truncate(add_cow_size);

  const auto image = PutDisk(files, kImage, image_size, 2 * seed);
  const auto backing = PutDisk(files, kBacking, backing_size, 2 * seed + 1);
  if ((made_flags & kMadeIdentity) != 0 && header_bytes == 0 && seed % 2 != 0 &&
      backing_size > 0 && add_cow->size() >= bytes.size())
    PutHash(*add_cow, bytes.size(), *backing, seed % 4 == 1 ? 1 << 16 : 1 << 20);
  const auto has = [&](FileFlags flag) { return (scene->flags & flag) != 0; };
  FakeInode::Abilities abilities;
  abilities.punch_hole = !has(kNoPunch);
  abilities.zero_range = !has(kNoZeroRange);
  abilities.seek = !has(kNoSeek);
  abilities.zero_alignment = has(kCoarseZero) ? kBlock : 1;
  abilities.is_block_device = has(kBlockDevice);
  image->SetAbilities(abilities);
  abilities = {};
  abilities.seek = !has(kBackingNoSeek);
  backing->SetAbilities(abilities);
  if (has(kAddCowReadOnly)) files.ForbidWriting(kAddCow, EACCES);

  files.PutName("/vm/hard.raw", image);
  files.PutName("/vm/copy.add-cow", add_cow);
  files.PutSymbolicLink("/vm/link", "disk.raw");
  files.PutSymbolicLink("/vm/loop", "loop");
  // The golden images' names for them.
  files.PutSymbolicLink("/vm/b.img", "base.img");
  files.PutSymbolicLink("/vm/base.raw", "base.img");
  files.PutSymbolicLink("/vm/image.raw", "disk.raw");
  files.Put("/vm/empty.raw");
  (void)files.Put("/vm/v1.add-cow", 3 * kBlock)->Write(Magic(true), 0);
  (void)files.Put("/vm/v20.add-cow", 3 * kBlock)->Write(Magic(false), 0);
  files.MakeDirectory("/vm/dir");
  return scene;
}

bool SameBytes(const FakeInode& a, const FakeInode& b) {
  if (a.size() != b.size()) return false;
  bool same = true;
  const auto compare = [&](uint64_t start, uint64_t end) {
    same = same && Difference(a.Bytes(start, end - start), b.Bytes(start, end - start)).empty();
    return same;
  };
  ForEachData(a, compare);
  ForEachData(b, compare);
  return same;
}

bool SameFiles(const FakeFileSystem& a, const FakeFileSystem& b) {
  const auto names = a.List();
  return names == b.List() && std::all_of(names.begin(), names.end(), [&](const auto& name) {
           return SameBytes(*a.Find(name), *b.Find(name));
         });
}

}  // namespace addcow::fuzz
