// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See named_files.h.

#include "common/ops/named_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <vector>

#include "common/base/zero_bytes.h"
#include "common/image/raw_file.h"
#include "common/io/durable_create.h"
#include "common/io/holes.h"
#include "common/ops/raw_bitmap.h"
#include "common/source/nbd_uri.h"
#include "common/source/qemu_chain.h"

namespace addcow {

bool IsNotThere(const Error& error) {
  return error.code() == ENOENT || error.code() == ENOTDIR;
}

std::string Remedy(FileSystem& file_system, const std::string& name, const char* option,
                   const std::string& directory, bool is_new) {
  if (name.empty() || name.front() == '/') return "";
  auto there = file_system.RealPath(name);
  if (!there && is_new) there = PathOfName(file_system, name);
  if (!there) return "";
  const std::string relative =
      std::filesystem::path(*there).lexically_relative(directory).string();
  return fmt::format("; for {} say {} {}", *there, option,
                     relative.empty() ? *there : relative);
}

Result<std::string> NameFrom(FileSystem& file_system, const std::string& name,
                             const std::string& from, const std::string& to) {
  if (name.starts_with('/') || from == to) return name;
  ADDCOW_TRY_ASSIGN(const std::string there, PathOfName(file_system, ResolveName(from, name)));
  const std::string relative = std::filesystem::path(there).lexically_relative(to).string();
  return relative.empty() ? there : relative;
}

namespace {

// Whether what is no file was to be a server: a URI, or what QEMU has in place of one.
bool LooksLikeServer(const std::string& name) {
  constexpr std::array<std::string_view, 6> kOfQemu = {"nbd",  "rbd",   "ssh",
                                                       "json", "iscsi", "nvme"};
  const auto protocol = QemuProtocolOf(name);
  if (!protocol || protocol->empty()) return false;
  return name.compare(protocol->size(), 3, "://") == 0 ||
         std::ranges::find(kOfQemu, *protocol) != kOfQemu.end();
}

}  // namespace

Error NotFound(FileSystem& file_system, const Error& error, const std::string& name,
               const char* option, const std::string& directory, bool is_new) {
  if (!is_new && LooksLikeServer(name))
    return Error::Because(error.code(), name,
                          "is no file, nor a URI that is known: those begin with nbd://, "
                          "nbds://, nbd+unix:// or nbds+unix:// (what has another name can be "
                          "served by nbdkit or qemu-nbd)");
  return Error::Because(error.code(), error.file(),
                        "not found (names start from the add-cow file's directory" +
                            Remedy(file_system, name, option, directory, is_new) + ")");
}

std::vector<std::string> NotesOfLeftFiles(FileSystem& file_system, const std::string& path) {
  std::vector<std::string> notes;
  for (const std::string& left : LeftUnfinished(file_system, path))
    notes.push_back(NoteOfLeftFile(left));
  return notes;
}

std::string NoteOfLeftFile(const std::string& path) {
  return Error::Because(0, path,
                        "was left by a command that was killed (unless one of another host or "
                        "container is at it, remove it)")
      .Message();
}

Error WithNoteOfRoom(const Error& error, const std::vector<std::string>& notes) {
  return error.IsNoRoom() && !notes.empty() ? error.WithNote(notes.front()) : error;
}

Status CheckDifferent(File& a, const char* role_a, File& b, const char* role_b) {
  ADDCOW_TRY_ASSIGN(const FileInfo info_a, a.Info());
  ADDCOW_TRY_ASSIGN(const FileInfo info_b, b.Info());
  if (info_a.SameFile(info_b))
    return Fail(Error::Because(EINVAL, a.name(),
                               fmt::format("would be both the {} and the {}, they must be "
                                           "different files",
                                           role_a, role_b)));
  return {};
}

Result<Base> OpenNamedBacking(FileSystem& file_system, const NamedFile& named,
                              const std::string& directory, File* add_cow, File* image,
                              const AccessOptions& access) {
  if (!IsBaseFormat(named.format))
    return Fail(
        Error::Because(kErrUnsupported, named.name,
                       fmt::format("backing format '{}' cannot be served, it must be {}",
                                   named.format, BaseFormats())));
  // What the user names may be anywhere, and so may what that names.
  AccessOptions of_base = access;
  of_base.confine.reset();
  of_base.option_prefix = "--";
  if (IsNbdUri(named.name))
    return OpenBase(
        file_system,
        {.file = nullptr, .path = named.name, .format = named.format, .access = of_base});
  const std::string path = ResolveName(directory, named.name);
  auto file = file_system.Open(path, OpenMode::kReadOnly);
  if (!file && IsNotThere(file.error()))
    return Fail(NotFound(file_system, file.error(), named.name, "-b", directory));
  if (!file) return Fail(std::move(file).error());
  // Before it is locked: that it is in use here is the better message.
  if (add_cow != nullptr)
    ADDCOW_TRY(CheckDifferent(**file, "backing file", *add_cow, "add-cow file"));
  if (image != nullptr)
    ADDCOW_TRY(CheckDifferent(**file, "backing file", *image, "image file"));
  BaseRequest request{
      .file = std::move(*file), .path = path, .format = named.format, .access = of_base};
  request.above.images = 1;
  for (File* const other : {add_cow, image}) {
    if (other == nullptr) continue;
    ADDCOW_TRY_ASSIGN(const FileInfo info, other->Info());
    request.above.files.push_back(
        {.info = info, .path = other->name(), .add_cow = other == add_cow});
  }
  return OpenBase(file_system, std::move(request));
}

Status CheckNotOfBase(File& image, const Base& base) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, image.Info());
  for (const ChainFile& file : base.files)
    if (file.info.SameFile(info))
      return Fail(Error::Because(
          EINVAL, image.name(),
          fmt::format("would be both the image file and {}the backing file, they must be "
                      "different files",
                      &file == &base.files.front() ? "" : "a part of ")));
  return {};
}

Result<Contents> ContentsOf(File& file, uint64_t size) {
  // Enough for a file of a usual size on a file system without holes, and for
  // what a partition table or a file system leaves on a device.
  constexpr uint64_t kMost = 256 * kMiB;
  std::vector<std::byte> buffer(kMiB);
  uint64_t looked = 0;
  Contents contents = Contents::kZeroes;
  Holes holes(file);
  ADDCOW_TRY(holes.Settle(file));
  ADDCOW_TRY(holes.VisitData(
      0, size, buffer.size(), [&](uint64_t offset, uint64_t length) -> Result<bool> {
        const auto part = std::span(buffer).first(static_cast<size_t>(length));
        if (looked >= kMost) {
          contents = Contents::kUnknown;
          return false;
        }
        ADDCOW_TRY_ASSIGN(const size_t count, file.Read(part, offset));
        if (!IsZero(part.first(count))) contents = Contents::kData;
        looked += length;
        return contents == Contents::kZeroes;
      }));
  return contents;
}

namespace {

// Whether the subcluster bitmap lies where a disk of that size has it.
Result<bool> HasPlaces(File& add_cow, const Header& header, const Layout& layout) {
  if (!header.subclusters) return true;
  const BitmapPlace place = layout.subcluster_bitmap();
  ADDCOW_TRY_ASSIGN(const uint64_t size, add_cow.Size());
  return size >= place.end() && size <= place.padded_end();
}

}  // namespace

Result<uint64_t> CountClustersWithData(FileSystem& file_system, File& add_cow,
                                       const std::string& path,
                                       std::optional<FileInfo>& image_info) {
  const auto header = ReadHeader(add_cow, path);
  if (header) {
    const auto image = file_system.Open(ResolveName(DirectoryOf(path), header->image.name),
                                        OpenMode::kReadOnly);
    if (image) {
      ADDCOW_TRY_ASSIGN(image_info, (*image)->Info());
      ADDCOW_TRY_ASSIGN(const uint64_t size, (*image)->Size());
      if (size == 0) return 0;
      const Layout layout(size, header->geometry());
      if (header->all_allocated) return layout.clusters();
      ADDCOW_TRY_ASSIGN(const bool has_places, HasPlaces(add_cow, *header, layout));
      if (has_places) {
        ADDCOW_TRY_ASSIGN(const RawPlaces places, RawPlacesOf(add_cow, *header, layout));
        ADDCOW_TRY_ASSIGN(const BitCounts counts, CountRawBits(add_cow, places, layout));
        return counts.clusters_with_data();
      }
    }
  }
  uint64_t bits = 0;
  ADDCOW_TRY_ASSIGN(const BitmapPlace whole,
                    WholeRawBitmap(add_cow, header ? header->geometry() : Geometry{}));
  ADDCOW_TRY(VisitRawBits(add_cow, whole, [&](const ClusterRun& run) -> Status {
    if (run.allocated) bits += run.range.count;
    return {};
  }));
  return bits;
}

}  // namespace addcow
