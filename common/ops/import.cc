// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See import.h. The qcow2 is opened by a qemu-nbd of ours, without its backing file, and
// locked so as long as it is read; where its data is qemu-img says.

#include "common/ops/import.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "common/base/shell_word.h"
#include "common/base/units.h"
#include "common/image/base.h"
#include "common/ops/copy_layer.h"
#include "common/ops/named_files.h"
#include "common/source/nbd_source.h"
#include "common/source/nbd_uri.h"

namespace addcow {

namespace {

// The runs, made longer to whole units, and joined.
std::vector<ByteRange> WholeUnits(const std::vector<LayerRun>& runs, uint64_t unit,
                                  uint64_t size) {
  std::vector<ByteRange> whole;
  for (const LayerRun& run : runs) {
    const uint64_t start = RoundDown(run.range.offset, unit);
    const uint64_t end = std::min(RoundUp(run.range.end(), unit), size);
    if (!whole.empty() && start <= whole.back().end())
      whole.back().length = end - whole.back().offset;
    else
      whole.push_back({start, end - start});
  }
  return whole;
}

// Writes what the layer has into the image file, and the rest of the units of which it has a
// part.
class LayerWriter {
 public:
  LayerWriter(const CreateOptions& options, Source& layer, const std::vector<LayerRun>& runs,
              const std::vector<ByteRange>& allocated, uint64_t total)
      : file_(options.add_cow_path),
        layer_(layer),
        runs_(runs),
        allocated_(allocated),
        copier_({.total = total,
                 .interrupted = options.interrupted,
                 .progress = options.progress}) {}

  Status WriteTo(File& image, Source* backing) {
    auto run = runs_.begin();
    for (const ByteRange& stretch : allocated_) {
      uint64_t at = stretch.offset;
      for (; run != runs_.end() && run->range.offset < stretch.end(); ++run) {
        ADDCOW_TRY(CopyFromBacking(image, backing, at, run->range.offset));
        if (run->data) ADDCOW_TRY(Copy(image, layer_, run->range));
        at = run->range.end();
      }
      ADDCOW_TRY(CopyFromBacking(image, backing, at, stretch.end()));
    }
    return {};
  }

 private:
  // Past the backing file's end it is zero.
  Status CopyFromBacking(File& image, Source* backing, uint64_t offset, uint64_t end) {
    if (backing == nullptr) return {};
    const uint64_t stop = std::min(end, backing->size());
    return stop > offset ? Copy(image, *backing, {offset, stop - offset}) : Status();
  }

  Status Copy(File& image, Source& source, ByteRange range) {
    return copier_.CopyData(
        file_, range,
        [&](std::span<std::byte> buffer, uint64_t offset) {
          return source.Read(buffer, offset);
        },
        [&](std::span<const std::byte> data, uint64_t offset) {
          return image.Write(data, offset);
        });
  }

  const std::string& file_;
  Source& layer_;
  const std::vector<LayerRun>& runs_;
  const std::vector<ByteRange>& allocated_;
  PieceCopier copier_;
};

// Where the add-cow file will really be: one that is replaced can be a link, which stays one.
Result<std::string> DirectoryOfNew(FileSystem& file_system, const std::string& add_cow_path) {
  if (const auto there = file_system.RealPath(add_cow_path)) return DirectoryOf(*there);
  return file_system.RealPath(DirectoryOf(add_cow_path));
}

// The backing file as the new header, which will be in the directory `to`, names it.
Result<std::optional<NamedFile>> BackingOf(FileSystem& file_system,
                                           const ImportOptions& options,
                                           const std::string& qcow2_path,
                                           const QemuImageInfo& info, const std::string& to) {
  const auto refused = [&](const std::string& why) {
    return Fail(Error::Because(EINVAL, options.qcow2_path, why));
  };
  std::string name = info.backing_as_named;
  if (name.empty()) {
    if (options.backing_format)
      return refused("has no backing file, so there is no format to say (leave out -F)");
    return std::optional<NamedFile>();
  }
  if (info.backing_format.empty() && !options.backing_format)
    return refused(fmt::format(
        "names the backing file '{}' without saying its format, and a format is never guessed "
        "(say it: -F FORMAT; or for good: qemu-img rebase -u -F FORMAT -b {} {})",
        name, ShellWord(name), ShellWord(options.qcow2_path)));
  if (options.backing_format && !info.backing_format.empty() &&
      *options.backing_format != info.backing_format)
    return refused(
        fmt::format("says that its backing file '{}' is {}, not {} (leave out -F, or "
                    "change it: qemu-img rebase -u)",
                    name, info.backing_format, *options.backing_format));
  NamedFile backing{
      name, info.backing_format.empty() ? *options.backing_format : info.backing_format};
  // Of a server QEMU says what it is read by; here that is raw.
  if (IsNbdUri(name)) {
    if (backing.format == "nbd") backing.format = kRawFormat;
    return std::optional(std::move(backing));
  }
  if (const auto protocol = QemuProtocolOf(name); protocol == "file")
    backing.name = name.substr(protocol->size() + 1);
  else if (protocol)
    return refused(
        fmt::format("stands on '{}', which is no file, nor an NBD URI: an add-cow "
                    "image cannot stand on that (serve it by NBD, and name it "
                    "so: qemu-img rebase -u)",
                    name));
  const std::string directory = DirectoryOf(qcow2_path);
  const auto is = file_system.Identify(ResolveName(directory, backing.name));
  if (!is)
    return Fail(Error::Because(
        is.error().code(), options.qcow2_path,
        fmt::format("stands on {}, which cannot be opened: {}",
                    ResolveName(directory, backing.name), ErrnoText(is.error().code()))));
  ADDCOW_TRY_ASSIGN(backing.name, NameFrom(file_system, backing.name, directory, to));
  // As it is here, a name of ours could be taken for a URI.
  if (IsNbdUri(backing.name)) backing.name.insert(0, "./");
  return std::optional(std::move(backing));
}

Status RefuseLosses(const ImportOptions& options, const QemuLayerInfo& info) {
  if (info.encrypted)
    return Fail(Error::Because(
        EINVAL, options.qcow2_path,
        "is encrypted, and cannot be read here (copy it with its key first: qemu-img convert "
        "--object secret,... --image-opts driver=qcow2,encrypt.key-secret=...)"));
  if (info.extras.empty() || options.force) return {};
  return Fail(Error::Because(
      EINVAL, options.qcow2_path,
      fmt::format("has {}, which an add-cow image cannot have (--force goes without; the "
                  "qcow2 stays as it is)",
                  fmt::join(info.extras, ", "))));
}

ProgramLimits LimitsOf(const CreateOptions& options) {
  return {
      .timeout = options.timeout, .interrupted = options.interrupted, .option_prefix = "--"};
}

// Nothing of it is lost, but it can be many times as large then.
Status RefuseCompressed(const ImportOptions& options, uint64_t bytes) {
  if (bytes == 0 || options.force) return {};
  return Fail(Error::Because(
      EINVAL, options.qcow2_path,
      fmt::format(
          "has {} bytes of the disk compressed, which take their whole size in an image "
          "file (--force copies them so; the qcow2 stays as it is)",
          bytes)));
}

struct OpenedQcow2 {
  std::unique_ptr<Source> source;
  QemuLayerMap map;
};

// Opens it, locked, and makes sure that it is still what `info` says.
Result<OpenedQcow2> OpenQcow2Layer(FileSystem& file_system, const ImportOptions& options,
                                   QemuImage image, std::vector<QemuHeldFile> held,
                                   const QemuLayerInfo& info) {
  const ProgramLimits limits = LimitsOf(options.create);
  image.alone = true;
  ADDCOW_TRY_ASSIGN(auto server, ServerOfQemuImage(file_system, image, std::move(held)));
  OpenedQcow2 opened;
  ADDCOW_TRY_ASSIGN(
      opened.source,
      NbdSource::Open(std::move(server), {.timeout = options.create.timeout,
                                          .log = {},
                                          .interrupted = options.create.interrupted}));
  ADDCOW_TRY(opened.source->Start());
  ADDCOW_TRY_ASSIGN(const QemuLayerInfo now, InfoOfQemuLayer(image, limits));
  if (now.printed != info.printed)
    return Fail(Error::Because(EAGAIN, options.qcow2_path,
                               "was changed by another program meanwhile (try again)"));
  ADDCOW_TRY_ASSIGN(opened.map, MapOfQemuLayer(image, limits));
  return opened;
}

}  // namespace

Result<ImportResult> ImportLayer(FileSystem& file_system, CreateOptions create, Source& layer,
                                 const std::vector<LayerRun>& runs,
                                 const std::optional<FileInfo>& from) {
  ImportResult result;
  result.backing = create.backing;
  create.size = layer.size();
  const uint64_t unit = create.subclusters ? kSubclusterSize : create.cluster_size;
  for (const LayerRun& run : runs) (run.data ? result.data : result.zeroes) += run.range.length;
  NewContents contents{
      .allocated = WholeUnits(runs, unit, layer.size()), .write = {}, .from = from};
  LayerWriter writer(create, layer, runs, contents.allocated, result.data);
  contents.write = [&](File& image, Source* backing) { return writer.WriteTo(image, backing); };
  create.contents = &contents;
  ADDCOW_TRY_ASSIGN(result.created, CreateImage(file_system, create));
  return result;
}

Result<ImportResult> ImportQcow2(FileSystem& file_system, const ImportOptions& options) {
  ADDCOW_TRY_ASSIGN(auto file, file_system.Open(options.qcow2_path, OpenMode::kReadOnly));
  ADDCOW_TRY_ASSIGN(const FileInfo file_info, file->Info());
  ADDCOW_TRY_ASSIGN(const std::string path, QemuPathOf(file_system, *file, options.qcow2_path));
  ADDCOW_TRY_ASSIGN(const std::string real, RealPathOf(file_system, *file, options.qcow2_path));
  const QemuImage image{.path = path,
                        .format = std::string(kQcow2Format),
                        .is_block_device = file_info.is_block_device,
                        .lock = options.create.lock,
                        .directory = DirectoryOf(real)};
  if (image.lock) ADDCOW_TRY(WithLockRemedy(file->Lock(LockKind::kRead), "--"));
  ADDCOW_TRY_ASSIGN(QemuLayerInfo info, InfoOfQemuLayer(image, LimitsOf(options.create)));
  ADDCOW_TRY(RefuseLosses(options, info));
  CreateOptions create = options.create;
  ADDCOW_TRY_ASSIGN(const std::string to, DirectoryOfNew(file_system, create.add_cow_path));
  ADDCOW_TRY_ASSIGN(create.backing, BackingOf(file_system, options, path, info.image, to));
  if (info.image.virtual_size == 0)
    return Fail(Error::Because(EINVAL, options.qcow2_path, "has a disk of 0 bytes"));
  std::vector<QemuHeldFile> held(1);
  held.front() = {.path = path, .info = file_info, .file = std::move(file)};
  ADDCOW_TRY_ASSIGN(const OpenedQcow2 opened,
                    OpenQcow2Layer(file_system, options, image, std::move(held), info));
  ADDCOW_TRY(RefuseCompressed(options, opened.map.compressed));
  const std::vector<std::string> left =
      NotesOfLeftFiles(file_system, ResolveName(to, create.image_name));
  auto result = ImportLayer(file_system, create, *opened.source, opened.map.runs, file_info);
  if (!result) return Fail(WithNoteOfRoom(result.error(), left));
  auto& notes = result->created.notes;
  notes.insert(notes.end(), left.begin(), left.end());
  result->lost = std::move(info.extras);
  result->compressed = opened.map.compressed;
  return result;
}

}  // namespace addcow
