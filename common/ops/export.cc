// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See export.h. The file that becomes the qcow2 is ours from the beginning, beside its name;
// qemu-img and a qemu-nbd of ours write into it, and it is synced by us.

#include "common/ops/export.h"

#include <fmt/format.h>

#include <array>
#include <memory>
#include <utility>

#include "common/base/units.h"
#include "common/image/base.h"
#include "common/io/durable_create.h"
#include "common/ops/copy_layer.h"
#include "common/ops/layer_runs.h"
#include "common/ops/named_files.h"
#include "common/ops/output_file.h"
#include "common/source/nbd_uri.h"

namespace addcow {

namespace {

// One that has all clusters needs none: its name may lead nowhere, or anywhere.
bool HasBacking(const ImageFiles& files) {
  return files.header.backing && !files.header.all_allocated;
}

// What is to be replaced must be a qcow2, or empty, and nothing that the image needs.
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

// What is there is locked.
Result<OutputFile> FindExportTarget(FileSystem& file_system, const ExportOptions& options,
                                    const ImageFiles& files) {
  ADDCOW_TRY_ASSIGN(OutputFile target, FindOutputFile(file_system, options.qcow2_path,
                                                      {.force = options.force,
                                                       .replaces = "a qcow2",
                                                       .mode = OpenMode::kReadWrite}));
  if (target.existing != nullptr)
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
    // By the name that was given: from there QEMU starts what the file names.
    ADDCOW_TRY_ASSIGN(backing.name, PathOfName(file_system, *options.source.backing_path));
    return std::optional(std::move(backing));
  }
  // What is opened by a link too would have two directories from which a name starts.
  ADDCOW_TRY_ASSIGN(const std::string given, PathOfName(file_system, options.qcow2_path));
  const std::string from = DirectoryOf(files.add_cow_path);
  if (DirectoryOf(given) != directory) {
    ADDCOW_TRY_ASSIGN(backing.name, PathOfName(file_system, ResolveName(from, backing.name)));
    return std::optional(std::move(backing));
  }
  ADDCOW_TRY_ASSIGN(backing.name, NameFrom(file_system, backing.name, from, directory));
  return std::optional(std::move(backing));
}

}  // namespace

Status ExportLayer(const ImageFiles& files, const ExportOptions& options, CommitTarget& target,
                   ExportResult& result) {
  ADDCOW_TRY_ASSIGN(const LayerRuns runs, FindLayerRuns(files, *files.image));
  result.data = runs.data;
  result.zeroes = runs.zeroes;
  const bool has_backing = HasBacking(files);
  PieceCopier copier({.total = runs.data,
                      .interrupted = options.source.access.interrupted,
                      .progress = options.progress});
  ADDCOW_TRY(CopyLayer(copier, {.file = options.qcow2_path,
                                .image = *files.image,
                                .runs = runs,
                                .target = target,
                                // Without a backing file what is not written is zero already.
                                .zeroes_end = has_backing ? UINT64_MAX : 0}));
  // The backing file may go on there.
  const uint64_t end = RoundUp(files.virtual_size, kSectorSize);
  if (has_backing && end > files.virtual_size)
    ADDCOW_TRY(target.Zero(files.virtual_size, end - files.virtual_size));
  return target.Close();
}

Result<ExportResult> ExportImage(FileSystem& file_system, const ExportOptions& options,
                                 const MakeExportTarget& make) {
  ImageSource source = options.source;
  source.mode = OpenMode::kReadOnly;
  ADDCOW_TRY_ASSIGN(const ImageFiles files, OpenImageFiles(file_system, source));
  ADDCOW_TRY_ASSIGN(const OutputFile target, FindExportTarget(file_system, options, files));
  ExportResult result;
  result.notes = files.notes;
  const std::vector<std::string> left = NotesOfLeftFiles(file_system, target.path);
  result.notes.insert(result.notes.end(), left.begin(), left.end());
  ADDCOW_TRY_ASSIGN(result.backing,
                    BackingForQemu(file_system, options, files, DirectoryOf(target.path)));
  if (files.header.backing && !result.backing)
    result.notes.push_back(fmt::format("{}: has no backing file: all of the disk is in {}",
                                       options.qcow2_path, files.image_path));
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
    auto writer = make(image);
    if (!writer) return Fail(SizeLimitReached(file).value_or(writer.error()));
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

Result<ExportResult> ExportQcow2(FileSystem& file_system, const ExportOptions& options) {
  const AccessOptions& access = options.source.access;
  return ExportImage(file_system, options,
                     [&](const NewQcow2& image) -> Result<std::unique_ptr<CommitTarget>> {
                       ADDCOW_TRY(MakeQcow2(image, access.program_limits()));
                       return OpenCommitTarget(
                           file_system,
                           {.path = image.path, .format = std::string(kQcow2Format)}, access);
                     });
}

}  // namespace addcow
