// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See image_files.h. The rule that the files must differ compares what was
// opened, not how it was spelt: two names can lead to one file.

#include "common/image/image_files.h"

#include <fmt/format.h>

#include "common/format/layout.h"

namespace addcow {

namespace {

// An open failed: says whose file it is and what can be done.
// `given`: by the user, not by the header.
Error NamedFileError(const Error& error, bool given, const std::string& add_cow,
                     const char* role, const char* parameter) {
  if (given || (error.code() != ENOENT && error.code() != ENOTDIR)) return error;
  return Error::Because(
      error.code(), error.file(),
      fmt::format("not found, but it is the {} of {} (if it was moved, serve it with {}=FILE)",
                  role, add_cow, parameter));
}

Status CheckDifferent(File& a, const char* role_a, File& b, const char* role_b) {
  ADDCOW_TRY_ASSIGN(const FileInfo info_a, a.Info());
  ADDCOW_TRY_ASSIGN(const FileInfo info_b, b.Info());
  if (info_a.SameFile(info_b))
    return Fail(
        Error::Because(kErrCorrupt, a.name(),
                       fmt::format("is both the {} and the {}, they must be different files",
                                   role_a, role_b)));
  return {};
}

Status OpenBacking(FileSystem& file_system, const ImageSource& source, ImageFiles& files) {
  if (!files.header.backing && source.backing_path)
    return Fail(Error::Because(EINVAL, files.add_cow_path,
                               "has no backing file, so backing= cannot say where it is"));
  if (!files.header.backing) return {};
  const NamedFile& named = *files.header.backing;
  files.backing_path =
      source.backing_path.value_or(ResolveName(DirectoryOf(files.add_cow_path), named.name));
  if (files.header.all_allocated || !source.want_backing) return {};
  if (named.format != kRawFormat)
    return Fail(Error::Because(
        kErrUnsupported, files.add_cow_path,
        fmt::format("backing file format is '{}', must be '{}' (convert it: qemu-img convert "
                    "-O raw, or serve it as raw with nbdfuse)",
                    named.format, kRawFormat)));
  auto backing = file_system.Open(files.backing_path, OpenMode::kReadOnly);
  if (!backing)
    return Fail(NamedFileError(backing.error(), source.backing_path.has_value(),
                               files.add_cow_path, "backing file", "backing"));
  files.backing = std::move(*backing);
  ADDCOW_TRY_ASSIGN(files.backing_size, files.backing->Size());
  ADDCOW_TRY(CheckDifferent(*files.backing, "backing file", *files.add_cow, "add-cow file"));
  return CheckDifferent(*files.backing, "backing file", *files.image, "image file");
}

Status OpenImage(FileSystem& file_system, const ImageSource& source, ImageFiles& files) {
  files.image_path = source.image_path.value_or(
      ResolveName(DirectoryOf(files.add_cow_path), files.header.image.name));
  auto image = files.mode == OpenMode::kReadOnly
                   ? file_system.Open(files.image_path, OpenMode::kReadOnly)
                   : OpenWritableOrReadOnly(file_system, files.image_path, &files.mode);
  if (!image)
    return Fail(NamedFileError(image.error(), source.image_path.has_value(), files.add_cow_path,
                               "image file", "image"));
  files.image = std::move(*image);
  ADDCOW_TRY(CheckDifferent(*files.image, "image file", *files.add_cow, "add-cow file"));
  ADDCOW_TRY_ASSIGN(files.virtual_size, files.image->Size());
  if (files.virtual_size == 0)
    return Fail(Error::Because(kErrCorrupt, files.image_path,
                               "the image file is empty, its size must be 1 byte or more"));
  return {};
}

Status CheckBitmapSize(const ImageFiles& files) {
  const Layout layout(files.virtual_size);
  ADDCOW_TRY_ASSIGN(const uint64_t size, files.add_cow->Size());
  const uint64_t needed = kBitmapOffset + layout.bitmap_bytes();
  if (size < needed)
    return Fail(Error::Because(
        kErrCorrupt, files.add_cow_path,
        fmt::format("truncated: {} bytes, must be at least {} for the COW bitmap of a disk of "
                    "{} bytes",
                    size, needed, files.virtual_size)));
  return {};
}

}  // namespace

Result<ImageFiles> OpenAddCowFile(FileSystem& file_system, const ImageSource& source) {
  ImageFiles files;
  ADDCOW_TRY_ASSIGN(files.add_cow_path, file_system.RealPath(source.add_cow_path));
  if (source.mode == OpenMode::kReadOnly) {
    files.mode = OpenMode::kReadOnly;
    ADDCOW_TRY_ASSIGN(files.add_cow, file_system.Open(files.add_cow_path, OpenMode::kReadOnly));
  } else {
    ADDCOW_TRY_ASSIGN(files.add_cow,
                      OpenWritableOrReadOnly(file_system, files.add_cow_path, &files.mode));
  }
  HeaderBytes bytes;
  ADDCOW_TRY_ASSIGN(const size_t count, files.add_cow->Read(bytes, 0));
  ADDCOW_TRY_ASSIGN(files.header,
                    ParseHeader(std::span(bytes).first(count), files.add_cow_path));
  return files;
}

Result<ImageFiles> OpenImageFiles(FileSystem& file_system, const ImageSource& source) {
  ADDCOW_TRY_ASSIGN(ImageFiles files, OpenAddCowFile(file_system, source));
  ADDCOW_TRY(OpenImage(file_system, source, files));
  ADDCOW_TRY(OpenBacking(file_system, source, files));
  ADDCOW_TRY(CheckBitmapSize(files));
  return files;
}

}  // namespace addcow
