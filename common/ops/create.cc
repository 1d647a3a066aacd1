// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See create.h. The order: look at everything and check it, then make the
// image file and sync it, then the add-cow file, which appears in one step.
// So an add-cow file never names an image file that a crash can take away.

#include "common/ops/create.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "common/format/raw_header.h"
#include "common/image/bitmap_storage.h"
#include "common/io/durable_create.h"
#include "common/ops/raw_bitmap.h"

namespace addcow {

namespace {

// Where the add-cow file goes.
struct Target {
  std::string path;                // absolute, without symbolic links
  std::unique_ptr<File> existing;  // what is to be replaced, if anything
};

// A file that is removed again unless all went well.
class MadeFile {
 public:
  explicit MadeFile(FileSystem& file_system) : file_system_(file_system) {}
  ~MadeFile() {
    if (!path_.empty()) (void)file_system_.Remove(path_);
  }
  MadeFile(const MadeFile&) = delete;
  MadeFile& operator=(const MadeFile&) = delete;

  void Made(const std::string& path) { path_ = path; }
  void Keep() { path_.clear(); }
  bool made() const { return !path_.empty(); }

 private:
  FileSystem& file_system_;
  std::string path_;
};

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool IsNotThere(const Error& error) {
  return error.code() == ENOENT || error.code() == ENOTDIR;
}

Error DanglingLink(const std::string& path) {
  return Error::Because(ENOENT, path,
                        "is a symbolic link that leads to no file (remove it, or make the file "
                        "that it leads to)");
}

// With force: only an add-cow file may be replaced, sound or not.
Status CheckReplaceable(File& file) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, file.Info());
  std::array<std::byte, kMagic.size()> magic = {};
  ADDCOW_TRY_ASSIGN(const size_t count, file.Read(magic, 0));
  if (info.is_block_device || count < magic.size() ||
      std::memcmp(magic.data(), kMagic.data(), magic.size()) != 0)
    return Fail(Error::Because(EEXIST, file.name(),
                               "is not an add-cow file, so it is not overwritten (if it may "
                               "go, remove it first)"));
  return {};
}

Result<Target> FindTarget(FileSystem& file_system, const CreateOptions& options) {
  const std::string& path = options.add_cow_path;
  if (BaseName(path).empty())
    return Fail(Error::Because(EINVAL, fmt::format("'{}'", path), "is not the name of a file"));
  ADDCOW_TRY_ASSIGN(const bool exists, file_system.Exists(path));
  if (!exists) {
    ADDCOW_TRY_ASSIGN(const std::string directory, file_system.RealPath(DirectoryOf(path)));
    return Target{ResolveName(directory, BaseName(path)), nullptr};
  }
  if (!options.force)
    return Fail(
        Error::Because(EEXIST, path, "already exists (--force replaces an add-cow file)"));
  Target target;
  auto real = file_system.RealPath(path);
  if (!real && IsNotThere(real.error())) return Fail(DanglingLink(path));
  ADDCOW_TRY_ASSIGN(target.path, std::move(real));
  ADDCOW_TRY_ASSIGN(target.existing, file_system.Open(target.path, OpenMode::kReadOnly));
  ADDCOW_TRY(CheckReplaceable(*target.existing));
  // Its server would go on with a file that has no name any more.
  if (options.lock)
    ADDCOW_TRY(LockInPlace(file_system, target.path, *target.existing, LockKind::kWrite));
  return target;
}

// Where a name leads nowhere from the add-cow file's directory, but somewhere
// from the working directory: how to write it. Else empty. `is_new`: the file is
// to be made, so its directory is enough.
std::string Remedy(FileSystem& file_system, const std::string& name, const char* option,
                   const std::string& directory, bool is_new = false) {
  if (name.empty() || name.front() == '/') return "";
  auto there = file_system.RealPath(name);
  if (!there && is_new) {
    there = file_system.RealPath(DirectoryOf(name));
    if (there) there = ResolveName(*there, BaseName(name));
  }
  if (!there) return "";
  const std::string relative =
      std::filesystem::path(*there).lexically_relative(directory).string();
  return fmt::format("; for {} say {} {}", *there, option,
                     relative.empty() ? *there : relative);
}

Error NotFound(FileSystem& file_system, const Error& error, const std::string& name,
               const char* option, const std::string& directory, bool is_new = false) {
  return Error::Because(error.code(), error.file(),
                        "not found (names start from the add-cow file's directory" +
                            Remedy(file_system, name, option, directory, is_new) + ")");
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

Result<std::unique_ptr<File>> OpenBacking(FileSystem& file_system, const NamedFile& named,
                                          const std::string& directory) {
  if (named.format != kRawFormat)
    return Fail(Error::Because(
        kErrUnsupported, named.name,
        fmt::format("backing format '{}' cannot be served, only '{}' (convert it: qemu-img "
                    "convert -O raw)",
                    named.format, kRawFormat)));
  auto file = file_system.Open(ResolveName(directory, named.name), OpenMode::kReadOnly);
  if (!file && IsNotThere(file.error()))
    return Fail(NotFound(file_system, file.error(), named.name, "-b", directory));
  return file;
}

// The size of an image file that is there.
Result<uint64_t> SizeOf(File& image, std::optional<uint64_t> wanted) {
  ADDCOW_TRY_ASSIGN(const uint64_t size, image.Size());
  if (size == 0)
    return Fail(Error::Because(EINVAL, image.name(),
                               "already exists, but is empty (remove it, and give a new one's "
                               "size with -s)"));
  if (wanted && *wanted != size)
    return Fail(Error::Because(
        EINVAL, image.name(),
        fmt::format("already exists and has {} bytes, not {} (leave out -s to take it as it "
                    "is)",
                    size, *wanted)));
  return size;
}

// The size of an image file that is not there.
Result<uint64_t> NewSize(FileSystem& file_system, const CreateOptions& options,
                         const std::string& image_path, const std::string& directory,
                         File* backing) {
  if (options.size) return *options.size;
  if (backing == nullptr)
    return Fail(Error::Because(
        EINVAL, image_path,
        "does not exist, so its size must be given with -s SIZE (names start from the add-cow "
        "file's directory" +
            Remedy(file_system, options.image_name, "-i", directory) + ")"));
  ADDCOW_TRY_ASSIGN(const uint64_t size, backing->Size());
  if (size == 0)
    return Fail(Error::Because(EINVAL, backing->name(),
                               "is empty, so the size must be given with -s SIZE"));
  return size;
}

// Whether `path`, which is not there, is where the add-cow file is to be.
bool LeadsTo(FileSystem& file_system, const std::string& path, const Target& target) {
  const auto directory = file_system.RealPath(DirectoryOf(path));
  return directory && ResolveName(*directory, BaseName(path)) == target.path;
}

// Makes the image file, sparse. `made` removes it if the rest fails.
Result<std::unique_ptr<File>> MakeImage(FileSystem& file_system, const CreateOptions& options,
                                        const std::string& path, const Target& target,
                                        uint64_t size, MadeFile& made) {
  if (LeadsTo(file_system, path, target))
    return Fail(
        Error::Because(EINVAL, path,
                       "would be both the image file and the add-cow file, they must be "
                       "different files"));
  auto file = file_system.Create(path);
  if (!file && IsNotThere(file.error()))
    return Fail(NotFound(file_system, file.error(), options.image_name, "-i",
                         DirectoryOf(target.path), true));
  // It could not be opened, for it was not there.
  if (!file && file.error().code() == EEXIST) return Fail(DanglingLink(path));
  if (!file) return file;
  made.Made(path);
  ADDCOW_TRY((*file)->Truncate(size));
  return file;
}

// The whole add-cow file. The bitmap is a hole, but where it has ones; one of
// which bits are to be set later has storage, where there is room.
Status WriteAddCow(File& file, const HeaderBytes& header, const Layout& layout,
                   bool all_allocated, const CreateOptions& options) {
  ADDCOW_TRY(file.Write(header, 0));
  ADDCOW_TRY(file.Truncate(kBitmapOffset + layout.padded_bitmap_bytes()));
  if (!all_allocated) return BitmapStorage(file, layout).TakeAll();
  // Between two looks at whether to stop: a few MiB of bitmap.
  constexpr uint64_t kMostBits = 8 * 4 * kMiB;
  for (uint64_t first = 0; first < layout.clusters(); first += kMostBits) {
    ADDCOW_TRY(CheckInterrupted(options.interrupted, options.add_cow_path));
    ADDCOW_TRY(
        FillRawBits(file, {first, std::min(kMostBits, layout.clusters() - first)}, true));
  }
  return {};
}

}  // namespace

Result<CreateResult> CreateImage(FileSystem& file_system, const CreateOptions& options) {
  ADDCOW_TRY_ASSIGN(const Target target, FindTarget(file_system, options));
  const std::string directory = DirectoryOf(target.path);
  const Header header{.image = {options.image_name, std::string(kRawFormat)},
                      .backing = options.backing,
                      .all_allocated = !options.backing,
                      .optional_features = 0};
  ADDCOW_TRY_ASSIGN(const HeaderBytes header_bytes,
                    SerializeHeader(header, options.add_cow_path));
  std::unique_ptr<File> backing;
  if (options.backing) {
    ADDCOW_TRY_ASSIGN(backing, OpenBacking(file_system, *options.backing, directory));
    if (target.existing != nullptr)
      ADDCOW_TRY(CheckDifferent(*backing, "backing file", *target.existing, "add-cow file"));
  }

  CreateResult result;
  result.image_path = ResolveName(directory, options.image_name);
  MadeFile made(file_system);
  auto image = file_system.Open(result.image_path, OpenMode::kReadOnly);
  if (image) {
    result.image_was_there = true;
    ADDCOW_TRY_ASSIGN(result.virtual_size, SizeOf(**image, options.size));
    if (target.existing != nullptr)
      ADDCOW_TRY(CheckDifferent(**image, "image file", *target.existing, "add-cow file"));
    if (backing != nullptr) {
      ADDCOW_TRY(CheckDifferent(**image, "image file", *backing, "backing file"));
      ADDCOW_TRY_ASSIGN(const uint64_t data, (*image)->FindData(0));
      result.old_data_ignored = data < result.virtual_size;
    }
  } else {
    if (!IsNotThere(image.error())) return Fail(std::move(image).error());
    ADDCOW_TRY_ASSIGN(result.virtual_size, NewSize(file_system, options, result.image_path,
                                                   directory, backing.get()));
    image =
        MakeImage(file_system, options, result.image_path, target, result.virtual_size, made);
    if (!image) return Fail(std::move(image).error());
  }
  ADDCOW_TRY((*image)->Sync());
  if (made.made()) ADDCOW_TRY(file_system.SyncDirectory(DirectoryOf(result.image_path)));

  const Layout layout(result.virtual_size);
  const RenameMode mode =
      target.existing != nullptr ? RenameMode::kReplace : RenameMode::kKeepExisting;
  bool in_place = false;
  ADDCOW_TRY(CheckInterrupted(options.interrupted, options.add_cow_path));
  const auto fill = [&](File& file) -> Status {
    ADDCOW_TRY(WriteAddCow(file, header_bytes, layout, header.all_allocated, options));
    return CheckInterrupted(options.interrupted, options.add_cow_path);
  };
  const Status done = DurableCreate(file_system, target.path, mode, fill, &in_place);
  // Also after a failure: were the image file removed, the add-cow file that
  // is there would name one that is not.
  if (in_place) made.Keep();
  if (!done) return Fail(done.error());
  return result;
}

}  // namespace addcow
