// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See export.h. The file that becomes the qcow2 is ours from the beginning, beside its name;
// qemu-img and a qemu-nbd of ours write into it, and it is synced by us.

#include "common/ops/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "common/base/units.h"
#include "common/image/base.h"
#include "common/io/durable_create.h"
#include "common/io/holes.h"
#include "common/ops/layer_runs.h"
#include "common/ops/named_files.h"
#include "common/source/nbd_uri.h"
#include "common/source/qemu_layer.h"

namespace addcow {

namespace {

constexpr uint64_t kExportPiece = kMiB;  // bytes that are read and written at once

struct ExportTarget {
  std::string path;                // absolute, without symbolic links
  std::unique_ptr<File> existing;  // locked; null: there is none
};

// What is to be replaced must be a qcow2, or empty, and nothing that the image needs.
// One that has all clusters needs none: its name may lead nowhere, or anywhere.
bool HasBacking(const ImageFiles& files) {
  return files.header.backing && !files.header.all_allocated;
}

Status CheckTargetReplaceable(FileSystem& file_system, const ImageFiles& files, File& existing,
                              const AccessOptions& access) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, existing.Info());
  for (const ChainFile& file : files.chain)
    if (file.info.SameFile(info))
      return Fail(Error::Because(EINVAL, existing.name(),
                                 "is a part of the image that is to be exported"));
  constexpr std::array kMagic = {std::byte{'Q'}, std::byte{'F'}, std::byte{'I'},
                                 std::byte{0xfb}};
  std::array<std::byte, kMagic.size()> begin = {};
  ADDCOW_TRY_ASSIGN(const size_t count, existing.Read(begin, 0));
  if (info.is_block_device || (count > 0 && begin != kMagic))
    return Fail(Error::Because(EEXIST, existing.name(),
                               "is not a qcow2, so it is not overwritten (if it may go, remove "
                               "it first)"));
  if (!access.lock) return {};
  return WithLockRemedy(LockInPlace(file_system, existing.name(), existing, LockKind::kWrite),
                        access.option_prefix);
}

Result<ExportTarget> FindExportTarget(FileSystem& file_system, const ExportOptions& options,
                                      const ImageFiles& files) {
  const std::string& path = options.qcow2_path;
  const std::string name = path.substr(path.rfind('/') + 1);
  if (name.empty())
    return Fail(Error::Because(EINVAL, fmt::format("'{}'", path), "is not the name of a file"));
  ADDCOW_TRY_ASSIGN(const bool exists, file_system.Exists(path));
  if (!exists) {
    ADDCOW_TRY_ASSIGN(const std::string directory, file_system.RealPath(DirectoryOf(path)));
    return ExportTarget{ResolveName(directory, name), nullptr};
  }
  if (!options.force)
    return Fail(Error::Because(EEXIST, path, "already exists (--force replaces a qcow2)"));
  ExportTarget target;
  auto real = file_system.RealPath(path);
  if (!real && IsNotThere(real.error())) return Fail(DanglingLink(path));
  ADDCOW_TRY_ASSIGN(target.path, std::move(real));
  ADDCOW_TRY_ASSIGN(target.existing, file_system.Open(target.path, OpenMode::kReadWrite));
  ADDCOW_TRY(
      CheckTargetReplaceable(file_system, files, *target.existing, options.source.access));
  return target;
}

// The backing file as the qcow2 in `directory` is to name it.
Result<std::optional<NamedFile>> BackingForQemu(FileSystem& file_system,
                                                const ExportOptions& options,
                                                const ImageFiles& files,
                                                const std::string& directory) {
  if (!HasBacking(files)) return std::optional<NamedFile>();
  NamedFile backing = *files.header.backing;
  if (backing.format == kAddCowFormat)
    return Fail(Error::Because(
        EINVAL, files.add_cow_path,
        fmt::format("stands on {}, which is an add-cow image, and QEMU reads none (commit it "
                    "first, rebase it onto what that stands on, or flatten it)",
                    files.backing_path)));
  if (IsNbdUri(files.backing_path)) {
    if (files.backing_path.starts_with("nbds"))
      return Fail(Error::Because(EINVAL, files.add_cow_path,
                                 "stands on a server by TLS, whose URI QEMU does not know"));
    backing.name = files.backing_path;
    return std::optional(std::move(backing));
  }
  if (options.source.backing_path) {
    ADDCOW_TRY_ASSIGN(backing.name, file_system.RealPath(*options.source.backing_path));
    return std::optional(std::move(backing));
  }
  ADDCOW_TRY_ASSIGN(backing.name, NameFrom(file_system, backing.name,
                                           DirectoryOf(files.add_cow_path), directory));
  return std::optional(std::move(backing));
}

}  // namespace

Status ExportLayer(const ImageFiles& files, const ExportOptions& options, CommitTarget& target,
                   ExportResult& result) {
  Holes holes(*files.image);
  ADDCOW_TRY(holes.Settle(*files.image));
  ADDCOW_TRY_ASSIGN(const std::vector<ByteRange> allocated, AllocatedRanges(files));
  result.data = result.zeroes = 0;
  ADDCOW_TRY(VisitLayerRuns(holes, allocated, [&](bool data, ByteRange range) -> Status {
    (data ? result.data : result.zeroes) += range.length;
    return {};
  }));
  uint64_t done = 0;
  std::vector<std::byte> buffer(kExportPiece);
  const auto copy = [&](ByteRange range) -> Status {
    for (uint64_t at = range.offset; at < range.end();) {
      ADDCOW_TRY(CheckInterrupted(options.source.access.interrupted, options.qcow2_path));
      const uint64_t count =
          std::min(RoundDown(at, kExportPiece) + kExportPiece, range.end()) - at;
      const auto part = std::span(buffer).first(static_cast<size_t>(count));
      ADDCOW_TRY(files.image->ReadExactly(part, at));
      ADDCOW_TRY(target.Write(part, at));
      at += count;
      done += count;
      if (options.progress) options.progress(done, result.data);
    }
    return {};
  };
  // Without a backing file what is not written is zero already.
  const bool has_backing = HasBacking(files);
  ADDCOW_TRY(VisitLayerRuns(holes, allocated, [&](bool data, ByteRange range) -> Status {
    if (data) return copy(range);
    ADDCOW_TRY(CheckInterrupted(options.source.access.interrupted, options.qcow2_path));
    return has_backing ? target.Zero(range.offset, range.length) : Status();
  }));
  // The backing file may go on there.
  const uint64_t end = RoundUp(files.virtual_size, kSectorSize);
  if (has_backing && end > files.virtual_size)
    ADDCOW_TRY(target.Zero(files.virtual_size, end - files.virtual_size));
  return target.Close();
}

Result<ExportResult> ExportQcow2(FileSystem& file_system, const ExportOptions& options) {
  ImageSource source = options.source;
  source.mode = OpenMode::kReadOnly;
  ADDCOW_TRY_ASSIGN(const ImageFiles files, OpenImageFiles(file_system, source));
  ADDCOW_TRY_ASSIGN(const ExportTarget target, FindExportTarget(file_system, options, files));
  ExportResult result;
  result.notes = files.notes;
  const std::vector<std::string> left = NotesOfLeftFiles(file_system, target.path);
  result.notes.insert(result.notes.end(), left.begin(), left.end());
  ADDCOW_TRY_ASSIGN(result.backing,
                    BackingForQemu(file_system, options, files, DirectoryOf(target.path)));
  result.virtual_size = RoundUp(files.virtual_size, kSectorSize);
  if (result.virtual_size != files.virtual_size)
    result.notes.push_back(
        fmt::format("{}: the disk gets {} bytes at its end, which are zero: a qcow2 has whole "
                    "sectors of 512",
                    options.qcow2_path, result.virtual_size - files.virtual_size));
  const auto fill = [&](File& file) -> Status {
    NewQcow2 image{.path = file.name(),
                   .size = result.virtual_size,
                   .cluster_size = options.cluster_size,
                   .backing = {},
                   .backing_format = {}};
    if (result.backing) {
      image.backing = result.backing->name;
      image.backing_format = result.backing->format;
    }
    if (Status empty = MakeQcow2(image, source.access.timeout); !empty)
      return Fail(SizeLimitReached(file).value_or(empty.error()));
    auto writer = OpenCommitTarget(
        file_system, {.path = file.name(), .format = std::string(kQcow2Format)}, source.access);
    if (!writer) return Fail(std::move(writer).error());
    return ExportLayer(files, options, **writer, result);
  };
  ADDCOW_TRY_ASSIGN(FileInfo image_info, files.image->Info());
  // QEMU completes its clusters from what is below.
  for (const ChainFile& file : files.chain)
    image_info.permissions &= RightsWithin(file.info, file.info.group == image_info.group);
  const RenameMode mode =
      target.existing != nullptr ? RenameMode::kReplace : RenameMode::kKeepExisting;
  const Status made = DurableCreate(file_system, target.path, mode, fill, nullptr,
                                    {.kind = NewRights::Kind::kWithin, .model = image_info});
  if (!made) return Fail(WithNoteOfRoom(made.error(), left));
  return result;
}

}  // namespace addcow
