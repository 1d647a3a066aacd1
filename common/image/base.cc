// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See base.h.

#include "common/image/base.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "common/image/confine.h"
#include "common/image/image.h"
#include "common/image/raw_file.h"
#include "common/source/arrivals.h"
#include "common/source/file_source.h"
#include "common/source/nbd_source.h"
#include "common/source/nbd_uri.h"
#include "common/source/qemu_chain.h"
#include "common/source/qemu_server.h"

namespace addcow {

namespace {

// Another add-cow image, which nobody writes to.
class ImageBase final : public Source {
 public:
  explicit ImageBase(std::unique_ptr<Image> image) : image_(std::move(image)) {}

  uint64_t size() const override { return image_->virtual_size(); }
  Status Read(std::span<std::byte> buffer, uint64_t offset) override {
    return image_->Read(buffer, offset);
  }
  Result<DataRun> RunAt(uint64_t offset, uint64_t limit) override {
    return image_->RunAt(offset, limit);
  }
  size_t pieces_at_once() const override { return image_->backing().pieces_at_once(); }
  Status ReadPieces(std::span<const Piece> pieces, const Arrived& arrived) override;
  Status Prefetch(uint64_t offset, uint64_t length) override {
    return image_->Prefetch(offset, length);
  }
  Status Start() override { return image_->Start(); }
  SourceCounts counts() override { return image_->backing().source_counts(); }
  void Abandon() override { image_->AbandonBacking(); }

 private:
  const std::unique_ptr<Image> image_;
};

// What its own base has goes on to that in one call: at the end of a chain there may be one
// that is far away.
Status ImageBase::ReadPieces(std::span<const Piece> pieces, const Arrived& arrived) {
  Arrivals arrivals(pieces.size(), arrived);
  std::vector<Piece> below;
  std::vector<size_t> part_of;  // the pieces, by what is below
  Source* const base = image_->backing().source();
  for (size_t i = 0; i < pieces.size(); i++) {
    const Piece& piece = pieces[i];
    const uint64_t end = piece.offset + piece.buffer.size();
    for (uint64_t at = piece.offset; at < end;) {
      const Image::Place place = image_->PlaceAt(at, end);
      const auto part = piece.buffer.subspan(static_cast<size_t>(at - piece.offset),
                                             static_cast<size_t>(place.end - at));
      // A sector in which it ends is not its own to the end.
      if (place.source == Extent::Source::kBacking && place.end <= base->size()) {
        below.push_back({part, at});
        part_of.push_back(i);
        arrivals.Expect(i);
      } else {
        ADDCOW_TRY(image_->Read(part, at));
      }
      at = place.end;
    }
    arrivals.Came(i);
  }
  if (below.empty()) return {};
  return base->ReadPieces(below, [&](size_t part) { arrivals.Came(part_of[part]); });
}

// When one of its files was changed last.
Result<std::optional<FileTime>> ModifiedOf(const ImageFiles& files) {
  std::optional<FileTime> modified;
  for (File* const file : {files.add_cow.get(), files.image.get()}) {
    ADDCOW_TRY_ASSIGN(const FileInfo info, file->Info());
    if (info.is_block_device) return std::optional<FileTime>();
    if (!modified || *modified < info.modified) modified = info.modified;
  }
  return modified;
}

}  // namespace

bool IsBaseFormat(std::string_view format) {
  return format == kRawFormat || format == kAddCowFormat || IsQemuFormat(format);
}

std::string BaseFormats() {
  std::string of_qemu = fmt::format("{}", fmt::join(QemuFormats(), ", "));
  // Who has a VHD looks for that.
  of_qemu.insert(of_qemu.find("vpc") + 3, " for VHD");
  return fmt::format(
      "{}, {} or one that QEMU reads ({}); anything else can be converted "
      "(qemu-img convert -O raw), or served by NBD and named by its URI",
      kRawFormat, kAddCowFormat, of_qemu);
}

FileInfo Base::Rights() const {
  if (files.empty()) return FileInfo{.owner = ::geteuid(), .group = ::getegid()};
  FileInfo rights = files.front().info;
  for (const ChainFile& file : files)
    rights.permissions &= RightsWithin(file.info, file.info.group == rights.group);
  return rights;
}

namespace {

Result<Base> OpenRawBase(BaseRequest request, const FileInfo& info) {
  File& file = *request.file;
  if (request.access.lock)
    ADDCOW_TRY(WithLockRemedy(file.Lock(LockKind::kRead), request.access.option_prefix));
  ADDCOW_TRY_ASSIGN(const uint64_t size, file.Size());
  ADDCOW_TRY(CheckReadRaw(file, size, request.role));
  Base base;
  base.sample_edge = kMostSampleEdge;
  if (!info.is_block_device) base.modified = info.modified;
  if (Note note = NoteOtherFormat(file, request.role)) base.notes.push_back(*note);
  base.source = std::make_unique<FileSource>(std::move(request.file), size);
  return base;
}

// What a server has; its name is for messages.
Result<Base> OpenServedBase(std::unique_ptr<NbdServer> server, const AccessOptions& access) {
  const std::string name = server->name();
  ADDCOW_TRY_ASSIGN(auto source,
                    NbdSource::Open(std::move(server), {.timeout = access.timeout,
                                                        .log = access.log,
                                                        .interrupted = access.interrupted}));
  if (source->size() == 0)
    return Fail(Error::Because(EINVAL, name, "the backing file is empty"));
  Base base;
  base.source = std::move(source);
  return base;
}

Result<Base> OpenUriBase(const BaseRequest& request) {
  if (request.format != kRawFormat)
    return Fail(Error::Because(EINVAL, request.path,
                               fmt::format("format is '{}', must be '{}': a server sends what "
                                           "the disk reads, whatever it keeps it in",
                                           request.format, kRawFormat)));
  ADDCOW_TRY(CheckNbdUri(request.path));
  return OpenServedBase(ServerOfUri(request.path), request.access);
}

// `path`, for which `named` is what the user knows, leads to the open file.
Status CheckLeadsTo(FileSystem& file_system, File& file, const std::string& path,
                    const std::string& named) {
  ADDCOW_TRY_ASSIGN(const FileInfo there, file_system.Identify(path));
  ADDCOW_TRY_ASSIGN(const FileInfo info, file.Info());
  if (info.SameFile(there)) return {};
  return Fail(Error::Because(
      EAGAIN, named, "was replaced by another program while it was being opened (try again)"));
}

constexpr std::string_view kVmdkFormat = "vmdk";

// Those that QEMU opens.
struct QemuFiles {
  std::vector<ChainFile> files;  // besides the image that it is told to
  std::vector<QemuHeldFile> held;
};

// The file that an image of QEMU's names, locked for reading. QEMU itself lets others write
// to what is below an image that is only served, and to raw files with contents of it.
Status HoldQemuFile(FileSystem& file_system, const AccessOptions& access, const QemuFile& file,
                    const FileInfo& info, QemuFiles& found) {
  QemuHeldFile held{.path = file.name, .info = info, .file = nullptr};
  auto opened = access.confine ? OpenConfined(file_system, access, file.named_by, file.name,
                                              OpenMode::kReadOnly)
                               : file_system.Open(file.name, OpenMode::kReadOnly);
  if (opened) {
    held.file = std::move(*opened);
    ADDCOW_TRY(CheckLeadsTo(file_system, *held.file, file.name, file.name));
    if (access.lock)
      ADDCOW_TRY(WithLockRemedy(held.file->Lock(LockKind::kRead), access.option_prefix));
  } else if (access.lock) {
    return Fail(std::move(opened).error());
  }
  found.held.push_back(std::move(held));
  return {};
}

// None of them is one that it must not be, nor opened before that is known.
Result<QemuFiles> OpenQemuFiles(FileSystem& file_system, const BaseRequest& request,
                                const QemuImage& image) {
  QemuFiles found;
  ADDCOW_TRY(FilesOfQemuImage(
      image.path, image.format, image.directory, request.access.program_limits(),
      [&](const QemuFile& file) -> Status {
        if (request.access.confine) {
          ADDCOW_TRY(CheckConfined(file_system, request.access, file.named_by, file.name));
          if (file.format == kVmdkFormat) {
            ADDCOW_TRY_ASSIGN(const auto vmdk,
                              OpenConfined(file_system, request.access, file.named_by,
                                           file.name, OpenMode::kReadOnly));
            ADDCOW_TRY(CheckOwnExtents(*vmdk, request.access));
          }
        }
        // It may be no file. What cannot be looked at is for QEMU to find.
        if (!file.name.starts_with('/')) return {};
        const auto info = file_system.Identify(file.name);
        if (!info) return {};
        ADDCOW_TRY(CheckNotAbove(*info, file.name, request.above));
        found.files.push_back(
            {.info = *info,
             .path = file.name,
             .with_contents = file.format.empty() && file.named_by == image.path});
        return HoldQemuFile(file_system, request.access, file, *info, found);
      }));
  return found;
}

Result<Base> OpenQemuBase(FileSystem& file_system, BaseRequest request, const FileInfo& info) {
  ADDCOW_TRY_ASSIGN(const std::string path,
                    QemuPathOf(file_system, *request.file, request.path));
  ADDCOW_TRY_ASSIGN(const std::string real,
                    RealPathOf(file_system, *request.file, request.path));
  const QemuImage image{.path = path,
                        .format = request.format,
                        .is_block_device = info.is_block_device,
                        .lock = request.access.lock,
                        .directory = DirectoryOf(real)};
  ADDCOW_TRY(CheckQemuNbd(image));
  if (request.access.confine && request.format == kVmdkFormat)
    ADDCOW_TRY(CheckOwnExtents(*request.file, request.access));
  // QEMU's own lock is gone for as long as its program is.
  if (request.access.lock)
    ADDCOW_TRY(
        WithLockRemedy(request.file->Lock(LockKind::kRead), request.access.option_prefix));
  ADDCOW_TRY_ASSIGN(QemuFiles found, OpenQemuFiles(file_system, request, image));
  found.held.push_back({.path = path, .info = info, .file = std::move(request.file)});
  ADDCOW_TRY_ASSIGN(auto server, ServerOfQemuImage(file_system, image, std::move(found.held)));
  ADDCOW_TRY_ASSIGN(Base base, OpenServedBase(std::move(server), request.access));
  base.files = std::move(found.files);
  if (!info.is_block_device) base.modified = info.modified;
  return base;
}

}  // namespace

Result<Base> BaseOfImage(FileSystem& file_system, ImageFiles files) {
  Base base;
  base.notes = files.notes;
  ADDCOW_TRY_ASSIGN(base.modified, ModifiedOf(files));
  // Its log is that of the image that stands on it.
  ADDCOW_TRY_ASSIGN(auto image, Image::Of(file_system, std::move(files), {}, {}));
  base.image = image.get();
  base.source = std::make_unique<ImageBase>(std::move(image));
  return base;
}

Result<Base> OpenBase(FileSystem& file_system, BaseRequest request) {
  const bool served = request.file == nullptr || IsQemuFormat(request.format);
  if (served && request.access.no_servers)
    return Fail(Error::Because(kErrUnsupported, request.path, "is not read here"));
  if (request.file == nullptr) return OpenUriBase(request);
  ADDCOW_TRY_ASSIGN(const FileInfo info, request.file->Info());
  ADDCOW_TRY(CheckNotAbove(info, request.path, request.above));
  Base base;
  if (request.format == kAddCowFormat) {
    ADDCOW_TRY_ASSIGN(const std::string path,
                      RealPathOf(file_system, *request.file, request.path));
    const ImageSource source{.add_cow_path = path,
                             .mode = OpenMode::kReadOnly,
                             .access = request.access,
                             .remedy_is_rebase = true};
    ADDCOW_TRY_ASSIGN(
        ImageFiles files,
        OpenImageFiles(file_system, source, std::move(request.file), std::move(request.above)));
    std::vector<ChainFile> chain = std::move(files.chain);
    ADDCOW_TRY_ASSIGN(base, BaseOfImage(file_system, std::move(files)));
    base.files = std::move(chain);
  } else {
    const std::string path = request.path;
    if (request.format == kRawFormat) {
      ADDCOW_TRY_ASSIGN(base, OpenRawBase(std::move(request), info));
    } else {
      ADDCOW_TRY_ASSIGN(base, OpenQemuBase(file_system, std::move(request), info));
    }
    base.files.insert(base.files.begin(), {.info = info, .path = path});
  }
  return base;
}

Result<std::string> RealPathOf(FileSystem& file_system, File& file, const std::string& path) {
  ADDCOW_TRY_ASSIGN(std::string real, file_system.RealPath(path));
  ADDCOW_TRY(CheckLeadsTo(file_system, file, real, path));
  return real;
}

Result<std::string> QemuPathOf(FileSystem& file_system, File& file, const std::string& path) {
  ADDCOW_TRY_ASSIGN(std::string named, PathOfName(file_system, path));
  ADDCOW_TRY(CheckLeadsTo(file_system, file, named, path));
  return named;
}

Status CheckNotAbove(const FileInfo& file, const std::string& path, const Above& above) {
  const auto same = std::ranges::find_if(
      above.files, [&](const ChainFile& other) { return other.info.SameFile(file); });
  if (same == above.files.end()) return {};
  std::vector<std::string> names;
  for (auto at = same; at != above.files.end(); ++at)
    if (at == same || at->add_cow) names.push_back(at->path);
  names.push_back(path);
  return Fail(Error::Because(kErrCorrupt, same->path,
                             fmt::format("stands on itself: {}", fmt::join(names, " -> "))));
}

}  // namespace addcow
