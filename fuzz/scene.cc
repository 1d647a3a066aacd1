// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See scene.h.

#include "fuzz/scene.h"

#include <array>
#include <cstring>
#include <vector>

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

// A sound header that names disk.raw and perhaps base.img.
std::vector<std::byte> SoundHeader(unsigned flags) {
  const std::string image = "disk.raw";
  const std::string backing = "base.img";
  std::vector<std::byte> bytes(kHeaderBytes);
  PutText(bytes, 0, "ADD_COW\xff");
  PutNumber(bytes, 8, 1, 4);
  PutNumber(bytes, 20, 80, 4);
  PutNumber(bytes, 24, image.size(), 4);
  PutText(bytes, 80, image);
  PutText(bytes, 64, "raw");
  PutNumber(bytes, 44, 1, 4);
  uint64_t features = 2;
  if ((flags & kMadeWithBacking) != 0) {
    features |= 1;
    PutNumber(bytes, 12, 200, 4);
    PutNumber(bytes, 16, backing.size(), 4);
    PutText(bytes, 200, backing);
    PutText(bytes, 48, (flags & kMadeQcow2) != 0 ? "qcow2" : "raw");
  }
  if ((flags & kMadeAllAllocated) != 0) features |= 4;
  if ((flags & kMadeSubclusters) != 0) features |= 1 << 16;
  PutNumber(bytes, 28, features, 8);
  if ((flags & kMadeNoSubclusters) != 0) PutNumber(bytes, 36, 1 << 17, 8);
  return bytes;
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

  std::vector<std::byte> bytes = SoundHeader(made_flags);
  if (header_bytes > 0) {
    const auto given = input.Take(std::min(header_bytes, kHeaderBytes));
    bytes.assign(given.begin(), given.end());
    bytes.resize(kHeaderBytes);
  }
  const auto bitmap = input.Take(bitmap_bytes);
  bytes.insert(bytes.end(), bitmap.begin(), bitmap.end());
  auto add_cow = files.Put(kAddCow, bytes);
  const auto subclusters = input.Take(subcluster_bytes);
  const uint64_t place = SubclusterPlace(image_size);
  const uint64_t end =
      place + RoundUp(DivideUp(DivideUp(image_size, kSubcluster), 8), kBitmapUnit);
  if ((made_flags & kMadeSubclusters) != 0 && add_cow->size() < end)
    (void)add_cow->Truncate(end);
  if (!subclusters.empty()) (void)add_cow->Write(subclusters, place);
  if (add_cow_size > 0) (void)add_cow->Truncate(add_cow_size);

  const auto image = PutDisk(files, kImage, image_size, 2 * seed);
  const auto backing = PutDisk(files, kBacking, backing_size, 2 * seed + 1);
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
  files.PutSymbolicLink("/vm/b.img", "base.img");  // the golden images' name for it
  files.Put("/vm/empty.raw");
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
