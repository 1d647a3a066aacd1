// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See image_files.h. The rule that the files must differ compares what was
// opened, not how it was spelt: two names can lead to one file.

#include "common/image/image_files.h"

#include <fmt/format.h>

#include "common/base/shell_word.h"
#include "common/format/layout.h"
#include "common/image/base.h"
#include "common/image/confine.h"
#include "common/image/identity.h"
#include "common/image/raw_file.h"
#include "common/image/size_checks.h"
#include "common/source/nbd_uri.h"

namespace addcow {

namespace {

// How the user says `name`, which ends in "=", to this program.
std::string Option(const ImageSource& source, const char* name) {
  return std::string(source.access.option_prefix) + name;
}

// An open failed: says whose file it is and what can be done. `given`: by the user, not by
// the header. `option` and, for a base, `rebase` say another file.
Error NamedFileError(const Error& error, const ImageSource& source, const ImageFiles& files,
                     bool given, const char* role, const char* option,
                     const std::string& rebase) {
  if (given || (error.code() != ENOENT && error.code() != ENOTDIR)) return error;
  const std::string remedy =
      source.remedy_is_rebase
          ? fmt::format("addcow rebase -u {} {}", rebase, ShellWord(files.add_cow_path))
          : Option(source, option) + "FILE";
  return Error::Because(
      error.code(), error.file(),
      fmt::format("not found, but it is the {} of {} (if it was moved, say {})", role,
                  files.add_cow_path, remedy));
}

Status CheckDifferent(const std::string& name, const FileInfo& a, const char* role_a,
                      const FileInfo& b, const char* role_b) {
  if (!a.SameFile(b)) return {};
  return Fail(Error::Because(
      kErrCorrupt, name,
      fmt::format("is both the {} and the {}, they must be different files", role_a, role_b)));
}

// `given`: the path that the user gave instead of the header's name.
Result<std::unique_ptr<File>> OpenNamed(FileSystem& file_system, const ImageSource& source,
                                        const ImageFiles& files,
                                        const std::optional<std::string>& given,
                                        const std::string& name, OpenMode mode) {
  if (given) return file_system.Open(*given, mode);
  if (source.access.confine)
    return OpenConfined(file_system, source.access, files.add_cow_path, name, mode);
  return file_system.Open(ResolveName(DirectoryOf(files.add_cow_path), name), mode);
}

Status LockIf(const ImageSource& source, File& file, OpenMode mode) {
  if (!source.access.lock) return {};
  return WithLockRemedy(
      file.Lock(mode == OpenMode::kReadOnly ? LockKind::kRead : LockKind::kWrite),
      source.access.option_prefix);
}

// A backing file that is not needed may be missing, unreadable, in use or of a format that
// cannot be served; or what it stands on may. What is there must not be wrong, nor outside
// of where it may be.
Result<Base> OrWithout(const ImageSource& source, Result<Base> opened) {
  if (opened || !source.backing_optional) return opened;
  const int code = opened.error().code();
  const bool outside = source.access.confine && (code == EXDEV || code == ELOOP);
  if (code == kErrCorrupt || code == EINVAL || code == kErrInterrupted || outside)
    return opened;
  Base without;
  without.notes.push_back(opened.error().WithNote("so it is left out").Message());
  return without;
}

// How the backing file that is open is accepted as it is, from any directory.
std::string HowToAccept(FileSystem& file_system, const ImageSource& source,
                        const ImageFiles& files) {
  std::string name = files.header.backing->name;
  if (source.backing_path)
    name = PathOfName(file_system, *source.backing_path).value_or(*source.backing_path);
  if (name.starts_with('-')) name.insert(0, "./");
  return fmt::format("addcow rebase -u -b {} -F {} {}", ShellWord(name),
                     ShellWord(files.header.backing->format), ShellWord(files.add_cow_path));
}

// That the base is what it was, and what is to be said of it.
Status CheckIdentity(FileSystem& file_system, const ImageSource& source, Base& base,
                     ImageFiles& files) {
  if (files.header.backing_identity && source.access.check_identity) {
    const IdentityWords words{.backing = files.backing_path,
                              .add_cow = files.add_cow_path,
                              .accept = HowToAccept(file_system, source, files),
                              .ignore = Option(source, "identity=ignore")};
    ADDCOW_TRY_ASSIGN(const Note changed,
                      CompareIdentity(base, *files.header.backing_identity, words));
    if (changed) files.notes.push_back(*changed);
  }
  files.notes.insert(files.notes.end(), base.notes.begin(), base.notes.end());
  if (const Note note =
          NoteSmallerDisk(files.image_path, files.virtual_size, base.source->size()))
    files.notes.push_back(*note);
  return {};
}

// The backing file, opened; none where it is not to be.
Result<BaseRequest> OpenBacking(FileSystem& file_system, const ImageSource& source,
                                ImageFiles& files) {
  if (!files.header.backing && source.backing_path)
    return Fail(Error::Because(EINVAL, files.add_cow_path,
                               fmt::format("has no backing file, so {} cannot say where it is",
                                           Option(source, "backing="))));
  if (!files.header.backing) return BaseRequest();
  const NamedFile& named = *files.header.backing;
  const std::string& name = source.backing_path.value_or(named.name);
  const bool is_uri = IsNbdUri(name);
  files.backing_path =
      is_uri || source.backing_path ? name : ResolveName(DirectoryOf(files.add_cow_path), name);
  const bool needed = !files.header.all_allocated || source.backing_always;
  if (!needed || !source.want_backing) return BaseRequest();
  if (!IsBaseFormat(named.format))
    return Fail(Error::Because(
        kErrUnsupported, files.add_cow_path,
        fmt::format("backing file format is '{}', must be {}", named.format, BaseFormats())));
  BaseRequest request{.file = nullptr,
                      .path = files.backing_path,
                      .format = named.format,
                      .access = source.access};
  ADDCOW_TRY(CheckAllowed(source.access, files.add_cow_path, named, !source.backing_path));
  if (is_uri) return request;
  ADDCOW_TRY_ASSIGN(request.file, OpenBackingFile(file_system, source, files));
  return request;
}

// The bits say which bytes are in the file that the header names. With what was written to
// another one they would be believed of that file, which does not have it. Of an image that is
// opened for writing.
Status CheckIsNamed(FileSystem& file_system, const ImageSource& source,
                    const ImageFiles& files) {
  // Who confines does not want files opened by the name in the header.
  if (!source.image_path || source.may_be_another || source.access.confine) return {};
  ADDCOW_TRY_ASSIGN(const FileInfo image, files.image->Info());
  const std::string named =
      ResolveName(DirectoryOf(files.add_cow_path), files.header.image.name);
  const auto info = file_system.Identify(named);
  if (!info || info->SameFile(image)) return {};
  const std::string path = file_system.RealPath(files.image_path).value_or(files.image_path);
  return Fail(Error::Because(
      EINVAL, files.image_path,
      fmt::format("is not the image file that the header names, {}, which is there too and "
                  "would lack what is written (copy that one, and name the copy in the "
                  "header: addcow rebase -u -i {} {})",
                  named, ShellWord(path), ShellWord(files.add_cow_path))));
}

// The same file once more. Where the system cannot do that, `open` opens it by
// its name, which may lead elsewhere by now.
template <typename Open>
Result<std::unique_ptr<File>> OpenAgain(File& file, Open open) {
  if (auto again = file.Reopen()) return again;
  ADDCOW_TRY_ASSIGN(auto again, open(OpenMode::kReadWrite));
  ADDCOW_TRY_ASSIGN(const FileInfo info, file.Info());
  ADDCOW_TRY_ASSIGN(const FileInfo info_again, again->Info());
  if (info.SameFile(info_again)) return again;
  return Fail(
      Error::Because(EAGAIN, file.name(),
                     "was replaced by another program while it was being opened (try again)"));
}

Status OpenImage(FileSystem& file_system, const ImageSource& source, Above& above,
                 ImageFiles& files) {
  files.image_path = source.image_path.value_or(
      ResolveName(DirectoryOf(files.add_cow_path), files.header.image.name));
  const auto open = [&](OpenMode mode) {
    return OpenNamed(file_system, source, files, source.image_path, files.header.image.name,
                     mode);
  };
  auto image = files.mode == OpenMode::kReadOnly
                   ? open(OpenMode::kReadOnly)
                   : OpenWritableOrReadOnly(open, files.not_writable);
  if (files.not_writable) files.mode = OpenMode::kReadOnly;
  if (!image)
    return Fail(NamedFileError(image.error(), source, files, source.image_path.has_value(),
                               "image file", "image=", "-i FILE"));
  files.image = std::move(*image);
  ADDCOW_TRY_ASSIGN(const FileInfo add_cow_info, files.add_cow->Info());
  ADDCOW_TRY_ASSIGN(const FileInfo image_info, files.image->Info());
  ADDCOW_TRY(CheckDifferent(files.image->name(), image_info, "image file", add_cow_info,
                            "add-cow file"));
  ADDCOW_TRY(CheckNotAbove(image_info, files.image_path, above));
  above.files.push_back({.info = add_cow_info, .path = files.add_cow_path, .add_cow = true});
  above.files.push_back({.info = image_info, .path = files.image_path});
  // Only now it is known whether the add-cow file will be written to.
  if (files.mode == OpenMode::kReadWrite)
    ADDCOW_TRY(LockIf(source, *files.add_cow, OpenMode::kReadWrite));
  ADDCOW_TRY(LockIf(source, *files.image, files.mode));
  ADDCOW_TRY_ASSIGN(files.virtual_size, files.image->Size());
  if (files.virtual_size == 0)
    return Fail(Error::Because(kErrCorrupt, files.image_path,
                               "the image file is empty, its size must be 1 byte or more"));
  if (files.mode == OpenMode::kReadOnly) return {};
  const auto again = [&]() { return OpenAgain(*files.image, open); };
  ADDCOW_TRY_ASSIGN(files.image_durable, again());
  ADDCOW_TRY_ASSIGN(files.image_sync, again());
  return {};
}

// The add-cow file and the image file, which are noted in `above`.
Result<ImageFiles> OpenOwn(FileSystem& file_system, const ImageSource& source,
                           std::unique_ptr<File> opened, Above& above) {
  if (++above.images > kMostImages)
    return Fail(Error::Because(
        ELOOP, source.add_cow_path,
        fmt::format("more than {} images stand on each other (flatten some)", kMostImages)));
  ADDCOW_TRY_ASSIGN(ImageFiles files, OpenAddCowFile(file_system, source, std::move(opened)));
  ADDCOW_TRY(OpenImage(file_system, source, above, files));
  return files;
}

// Checks the image with what it stands on, which becomes its own.
Status Complete(FileSystem& file_system, const ImageSource& source, Base base,
                ImageFiles& files) {
  if (base.source != nullptr) {
    // Also where it is not needed: what it lacks would make the disk another one.
    ADDCOW_TRY(CheckIdentity(file_system, source, base, files));
    files.backing = std::move(base.source);
    files.base_image = base.image;
  } else {
    files.notes.insert(files.notes.end(), base.notes.begin(), base.notes.end());
  }
  ADDCOW_TRY(CheckBitmapSize(files));
  return CheckImageContents(files);
}

// An image that another one stands on.
struct Link {
  ImageSource source;
  ImageFiles files;
};

// What the image stands on; without a source where that is nothing. There may be
// hundreds of images: they are not opened by calls within each other, for which a stack
// may have no room.
Result<Base> OpenBelow(FileSystem& file_system, const ImageSource& source, Above& above,
                       ImageFiles& files) {
  std::vector<std::unique_ptr<Link>> links;
  ADDCOW_TRY_ASSIGN(BaseRequest request, OpenBacking(file_system, source, files));
  Base base;
  while (!request.path.empty()) {
    if (request.format != kAddCowFormat) {
      request.above = above;
      ADDCOW_TRY_ASSIGN(base, OpenBase(file_system, std::move(request)));
      above.files.insert(above.files.end(), base.files.begin(), base.files.end());
      break;
    }
    ADDCOW_TRY_ASSIGN(const FileInfo info, request.file->Info());
    ADDCOW_TRY(CheckNotAbove(info, request.path, above));
    auto link = std::make_unique<Link>();
    link->source.mode = OpenMode::kReadOnly;
    link->source.access = source.access;
    link->source.remedy_is_rebase = true;
    ADDCOW_TRY_ASSIGN(link->source.add_cow_path,
                      RealPathOf(file_system, *request.file, request.path));
    ADDCOW_TRY_ASSIGN(link->files,
                      OpenOwn(file_system, link->source, std::move(request.file), above));
    ADDCOW_TRY_ASSIGN(request, OpenBacking(file_system, link->source, link->files));
    links.push_back(std::move(link));
  }
  for (; !links.empty(); links.pop_back()) {
    Link& link = *links.back();
    ADDCOW_TRY(Complete(file_system, link.source, std::move(base), link.files));
    ADDCOW_TRY_ASSIGN(base, BaseOfImage(file_system, std::move(link.files)));
  }
  return base;
}

}  // namespace

Result<std::unique_ptr<File>> OpenBackingFile(FileSystem& file_system,
                                              const ImageSource& source,
                                              const ImageFiles& files) {
  const NamedFile& named = *files.header.backing;
  auto backing = OpenNamed(file_system, source, files, source.backing_path, named.name,
                           OpenMode::kReadOnly);
  if (!backing)
    return Fail(NamedFileError(backing.error(), source, files, source.backing_path.has_value(),
                               "backing file",
                               "backing=", "-b FILE -F " + ShellWord(named.format)));
  // Before it is locked: that it is in use here is the better message.
  ADDCOW_TRY_ASSIGN(const FileInfo info, (*backing)->Info());
  ADDCOW_TRY_ASSIGN(const FileInfo add_cow, files.add_cow->Info());
  ADDCOW_TRY_ASSIGN(const FileInfo image, files.image->Info());
  const std::string& name_there = (*backing)->name();
  ADDCOW_TRY(CheckDifferent(name_there, info, "backing file", add_cow, "add-cow file"));
  ADDCOW_TRY(CheckDifferent(name_there, info, "backing file", image, "image file"));
  return backing;
}

Result<ImageFiles> OpenAddCowFile(FileSystem& file_system, const ImageSource& source,
                                  std::unique_ptr<File> opened) {
  ImageFiles files;
  if (opened != nullptr) {
    files.add_cow_path = source.add_cow_path;
    files.add_cow = std::move(opened);
  } else {
    ADDCOW_TRY_ASSIGN(files.add_cow_path, file_system.RealPath(source.add_cow_path));
    const auto open = [&](OpenMode mode) { return file_system.Open(files.add_cow_path, mode); };
    ADDCOW_TRY_ASSIGN(files.add_cow, source.mode == OpenMode::kReadOnly
                                         ? open(OpenMode::kReadOnly)
                                         : OpenWritableOrReadOnly(open, files.not_writable));
  }
  files.mode = files.not_writable ? OpenMode::kReadOnly : source.mode;
  // Before it is read: who has it open for writing may be changing it. Were it
  // one that "create --force" has just replaced, its bits would be lost.
  if (source.access.lock)
    ADDCOW_TRY(WithLockRemedy(
        LockInPlace(file_system, files.add_cow_path, *files.add_cow, LockKind::kRead),
        source.access.option_prefix));
  ADDCOW_TRY_ASSIGN(files.header, ReadHeader(*files.add_cow, files.add_cow_path));
  return files;
}

Result<ImageFiles> OpenImageFiles(FileSystem& file_system, const ImageSource& source,
                                  std::unique_ptr<File> opened, Above above) {
  const size_t first = above.files.size();
  ADDCOW_TRY_ASSIGN(ImageFiles files, OpenOwn(file_system, source, std::move(opened), above));
  auto below = OpenBelow(file_system, source, above, files);
  if (!below && below.error().code() == EMFILE)
    below = Fail(below.error().WithNote(
        "each of the images that stand on each other has two files open (raise the limit: "
        "ulimit -n; or flatten some)"));
  ADDCOW_TRY_ASSIGN(Base base, OrWithout(source, std::move(below)));
  ADDCOW_TRY(Complete(file_system, source, std::move(base), files));
  if (files.mode == OpenMode::kReadWrite) ADDCOW_TRY(CheckIsNamed(file_system, source, files));
  if (files.backing != nullptr && !source.access.check_identity)
    files.notes.push_back(
        Error::Because(0, files.add_cow_path,
                       fmt::format("what it stands on is not compared with what was noted of "
                                   "that ({})",
                                   Option(source, "identity=ignore")))
            .Message());
  above.files.erase(above.files.begin(),
                    above.files.begin() + static_cast<std::ptrdiff_t>(first));
  files.chain = std::move(above.files);
  return files;
}

}  // namespace addcow
