// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See new_add_cow.h.

#include "common/ops/new_add_cow.h"

#include <algorithm>
#include <vector>

#include "common/base/zero_bytes.h"
#include "common/image/bitmap_storage.h"
#include "common/io/durable_create.h"
#include "common/io/holes.h"

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

WriteBits SameBits(const ImageFiles& files) {
  return [&files](File& file) -> Status {
    ADDCOW_TRY(CopyBits(*files.add_cow, file, files.header.geometry()));
    return files.header.all_allocated ? Status() : TakeStorageForBits(file, files.layout());
  };
}

Status ReplaceAddCow(FileSystem& file_system, const ImageFiles& files, const Header& header,
                     const WriteBits& bits) {
  ADDCOW_TRY_ASSIGN(const HeaderBytes bytes, SerializeHeader(header, files.add_cow_path));
  ADDCOW_TRY_ASSIGN(const FileInfo old, files.add_cow->Info());
  const auto fill = [&](File& file) -> Status {
    ADDCOW_TRY(WriteNewHeader(file, bytes));
    return bits(file);
  };
  return DurableCreate(file_system, files.add_cow_path, RenameMode::kReplace, fill, nullptr,
                       {.kind = NewRights::Kind::kSame, .model = old});
}

Status RefuseDevice(File& add_cow) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, add_cow.Info());
  if (!info.is_block_device) return {};
  return Fail(Error::Because(EINVAL, add_cow.name(),
                             "is a block device, and cannot be written anew in one step (copy "
                             "it to a file)"));
}

}  // namespace addcow
