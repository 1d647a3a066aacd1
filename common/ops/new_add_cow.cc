// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See new_add_cow.h.

#include "common/ops/new_add_cow.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "common/base/zero_bytes.h"
#include "common/image/bitmap_storage.h"
#include "common/io/durable_create.h"
#include "common/io/holes.h"
#include "common/ops/bit_writer.h"

namespace addcow {

Status WriteNewHeader(File& file, const HeaderBytes& header) {
  const std::span<const std::byte> bytes(header);
  for (size_t at = 0; at < bytes.size(); at += kHeaderPageSize) {
    const auto page = bytes.subspan(at, std::min<size_t>(kHeaderPageSize, bytes.size() - at));
    if (!IsZero(page)) ADDCOW_TRY(file.Write(page, at));
  }
  return {};
}

Status CopyBits(File& from, File& to, const Geometry& geometry) {
  ADDCOW_TRY_ASSIGN(const uint64_t size, from.Size());
  ADDCOW_TRY(to.Truncate(size));
  std::vector<std::byte> buffer(kMiB);
  Holes holes(from);
  ADDCOW_TRY(holes.Settle(from));
  return holes.VisitData(geometry.header_size, size, buffer.size(),
                         [&](uint64_t offset, uint64_t length) -> Result<bool> {
                           const auto part =
                               std::span(buffer).first(static_cast<size_t>(length));
                           ADDCOW_TRY(from.ReadExactly(part, offset));
                           ADDCOW_TRY(to.Write(part, offset));
                           return true;
                         });
}

Status TakeStorageForBits(File& file, const Layout& layout) {
  ADDCOW_TRY_ASSIGN(const auto storage, BitmapStorage::Create(file, layout.bitmap()));
  return storage->TakeAll();
}

Status CutByClusters(const Layout& layout, ByteRange range, const VisitClusterPart& visit) {
  const uint64_t size = layout.cluster_size();
  const uint64_t end = range.end();
  const auto part = [&](uint64_t from, uint64_t to, bool whole) {
    return from < to ? visit({{from, to - from}, whole}) : Status();
  };
  const uint64_t first = std::min(RoundUp(range.offset, size), end);
  const uint64_t last =
      std::max(first, end == layout.virtual_size() ? end : RoundDown(end, size));
  ADDCOW_TRY(part(range.offset, first, false));
  ADDCOW_TRY(part(first, last, true));
  return part(last, end, false);
}

Status WriteBitsOf(File& file, const Layout& layout,
                   const std::function<Status(const VisitClusterPart&)>& visit_all) {
  BitWriter clusters(file, layout.bitmap());
  BitWriter subclusters(file, layout.subcluster_bitmap());
  ADDCOW_TRY(visit_all([&](const ClusterPart& part) {
    if (part.whole) return clusters.Set(layout.Touched(part.bytes.offset, part.bytes.length));
    const uint64_t first = part.bytes.offset / kSubclusterSize;
    return subclusters.Set({first, DivideUp(part.bytes.end(), kSubclusterSize) - first});
  }));
  ADDCOW_TRY(clusters.Finish());
  return subclusters.Finish();
}

WriteBits SameBits(const ImageFiles& files) {
  return [&files](File& file) -> Status {
    ADDCOW_TRY(CopyBits(*files.add_cow, file, files.header.geometry()));
    return files.header.all_allocated ? Status() : TakeStorageForBits(file, files.layout());
  };
}

Result<NewRights> RightsOf(File& add_cow) {
  NewRights rights{.kind = NewRights::Kind::kSame, .model = {}, .attributes = {}};
  ADDCOW_TRY_ASSIGN(rights.model, add_cow.Info());
  ADDCOW_TRY_ASSIGN(rights.attributes, add_cow.ReadAttributes());
  return rights;
}

Status ReplaceAddCow(FileSystem& file_system, const ImageFiles& files, const Header& header,
                     const WriteBits& bits) {
  ADDCOW_TRY_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, files.add_cow_path));
  ADDCOW_TRY_ASSIGN(const NewRights rights, RightsOf(*files.add_cow));
  const auto fill = [&](File& file) -> Status {
    ADDCOW_TRY(WriteNewHeader(file, bytes));
    return bits(file);
  };
  return DurableCreate(file_system, files.add_cow_path, RenameMode::kReplace, fill, nullptr,
                       rights);
}

Status RefuseIrreplaceable(File& add_cow) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, add_cow.Info());
  if (info.is_block_device)
    return Fail(Error::Because(EINVAL, add_cow.name(),
                               "is a block device, and cannot be written anew in one step "
                               "(copy it to a file)"));
  if (info.names <= 1) return {};
  return Fail(Error::Because(
      EINVAL, add_cow.name(),
      fmt::format("has {} names (hard links), and is written anew under one of them: the "
                  "others would keep what is wrong by then, and spoil the image file (remove "
                  "them first)",
                  info.names)));
}

Status CheckMayReplaceAddCow(FileSystem& file_system, const ImageFiles& files) {
  ADDCOW_TRY(RefuseIrreplaceable(*files.add_cow));
  return file_system.CheckMayChange(files.add_cow_path, FileChange::kReplace);
}

Status TryReplacingAddCow(FileSystem& file_system, const ImageFiles& files) {
  ADDCOW_TRY(CheckMayReplaceAddCow(file_system, files));
  ADDCOW_TRY_ASSIGN(const NewRights rights, RightsOf(*files.add_cow));
  return TryCreateBeside(file_system, files.add_cow_path, rights);
}

}  // namespace addcow
