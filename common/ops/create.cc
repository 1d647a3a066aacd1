// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See create.h. The order: look at everything and check it, then make the
// image file and sync it, then the add-cow file, which appears in one step.
// So an add-cow file never names an image file that a crash can take away.

#include "common/ops/create.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "common/image/identity.h"
#include "common/image/raw_file.h"
#include "common/io/durable_create.h"
#include "common/ops/named_files.h"
#include "common/ops/new_add_cow.h"
#include "common/ops/output_file.h"
#include "common/ops/raw_bitmap.h"

namespace addcow {

namespace {

// Where the add-cow file goes.
struct Target : OutputFile {
  std::optional<FileInfo> image;  // of what is to be replaced
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

// With force: only an add-cow file may be replaced, sound or not; or an empty file,
// which a crash can leave in its place (durable_create.h).
Status CheckReplaceable(File& file) {
  std::array<std::byte, kMagicBytes> magic = {};
  ADDCOW_TRY_ASSIGN(const size_t count, file.Read(magic, 0));
  if (count == 0) return {};
  if (!BeginsAsAddCow(std::span(magic).first(count)))
    return Fail(Error::Because(EEXIST, file.name(),
                               "is not an add-cow file, so it is not overwritten (if it may "
                               "go, remove it first)"));
  return {};
}

Result<Target> FindTarget(FileSystem& file_system, const CreateOptions& options) {
  const std::string& path = options.add_cow_path;
  ADDCOW_TRY_ASSIGN(OutputFile output, FindOutputFile(file_system, path,
                                                      {.force = options.force,
                                                       .replaces = "an add-cow file",
                                                       .mode = OpenMode::kReadOnly}));
  Target target{std::move(output), std::nullopt};
  if (target.existing == nullptr) return target;
  ADDCOW_TRY(CheckReplaceable(*target.existing));
  ADDCOW_TRY(RefuseIrreplaceable(*target.existing));
  // Its server would go on with a file that has no name any more.
  if (options.lock)
    ADDCOW_TRY(WithLockRemedy(
        LockInPlace(file_system, target.path, *target.existing, LockKind::kWrite), "--"));
  ADDCOW_TRY_ASSIGN(
      const uint64_t clusters,
      CountClustersWithData(file_system, *target.existing, target.path, target.image));
  if (clusters > 0 && !options.discard)
    return Fail(Error::Because(
        EEXIST, path,
        fmt::format("has data in {}, which would be lost (for other names: addcow rebase -u; "
                    "to throw it away: --force --discard)",
                    Counted(clusters, "cluster"))));
  return target;
}

// The size of an image file that is there.
Result<uint64_t> SizeOf(File& image, std::optional<uint64_t> wanted) {
  ADDCOW_TRY_ASSIGN(const uint64_t size, image.Size());
  ADDCOW_TRY_ASSIGN(const FileInfo info, image.Info());
  if (size == 0 && info.is_block_device)
    return Fail(Error::Because(EINVAL, image.name(),
                               "is a block device of 0 bytes (a loop device that has no file, "
                               "or a drive without a medium)"));
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
                         Source* backing) {
  if (options.size) return *options.size;
  if (backing == nullptr)
    return Fail(Error::Because(
        EINVAL, image_path,
        "does not exist, so its size must be given with -s SIZE (names start from the add-cow "
        "file's directory" +
            Remedy(file_system, options.image_name, "-i", directory) + ")"));
  return backing->size();
}

// Whether `path`, which is not there, is where the add-cow file is to be.
bool LeadsTo(FileSystem& file_system, const std::string& path, const Target& target) {
  const auto directory = file_system.RealPath(DirectoryOf(path));
  return directory && ResolveName(*directory, NameWithin(path)) == target.path;
}

// Storage for all of a new image file, which has its size.
Status Preallocate(File& image, uint64_t size, const CreateOptions& options) {
  if (options.preallocation == Preallocation::kOff) return {};
  // Also before it is written: where there is no room that is known at once.
  const Status reserved = image.Reserve(0, size);
  const bool cannot = !reserved && reserved.error().IsUnsupported();
  if (!reserved && !cannot) return reserved;
  if (options.preallocation == Preallocation::kFalloc) {
    if (reserved) return {};
    return Fail(Error::Because(EOPNOTSUPP, image.name(),
                               "its file system cannot reserve storage "
                               "(--preallocation=full writes zeroes instead)"));
  }
  const std::vector<std::byte> zeroes(static_cast<size_t>(std::min(size, 4 * kMiB)));
  for (uint64_t offset = 0; offset < size;) {
    if (options.progress) options.progress(offset, size);
    ADDCOW_TRY(CheckInterrupted(options.interrupted, options.add_cow_path));
    const auto count = static_cast<size_t>(std::min<uint64_t>(zeroes.size(), size - offset));
    ADDCOW_TRY(image.Write(std::span(zeroes).first(count), offset));
    offset += count;
  }
  if (options.progress) options.progress(size, size);
  return {};
}

Status SizeImage(File& image, uint64_t size) {
  Status sized = image.Truncate(size);
  if (sized || sized.error().code() != EFBIG) return sized;
  return Fail(Error::Because(
      EFBIG, image.name(),
      fmt::format("cannot have {} bytes: its file system, or the limit of file sizes (ulimit "
                  "-f), does not take such a large file (ext4: less than 16 TiB)",
                  size)));
}

// Why the image file could not be made.
Error NotMade(FileSystem& file_system, const CreateOptions& options, const std::string& path,
              const Target& target, const Error& error) {
  if (IsNotThere(error))
    return NotFound(file_system, error, options.image_name, "-i", DirectoryOf(target.path),
                    true);
  // It could not be opened, for it was not there.
  return error.code() == EEXIST ? DanglingLink(path) : error;
}

// Makes the image file with what it is to hold: under its name it is whole.
Result<std::unique_ptr<File>> WriteImage(FileSystem& file_system, const CreateOptions& options,
                                         const std::string& path, const Target& target,
                                         const NewRights& rights, uint64_t size,
                                         Source* backing, MadeFile& made) {
  std::optional<Error> of_contents;
  const auto fill = [&](File& file) -> Status {
    ADDCOW_TRY(SizeImage(file, size));
    Status written = options.contents->write(file, backing);
    if (!written) of_contents = written.error();
    return written;
  };
  bool in_place = false;
  const Status done =
      DurableCreate(file_system, path, RenameMode::kKeepExisting, fill, &in_place, rights);
  if (in_place) made.Made(path);
  if (!done && of_contents) return Fail(done.error());
  if (!done) return Fail(NotMade(file_system, options, path, target, done.error()));
  auto file = file_system.Open(path, OpenMode::kReadWrite);
  if (file && options.lock) ADDCOW_TRY(WithLockRemedy((*file)->Lock(LockKind::kWrite), "--"));
  return file;
}

// Makes the image file, sparse unless it is to be preallocated. `made` removes
// it if the rest fails.
Result<std::unique_ptr<File>> MakeImage(FileSystem& file_system, const CreateOptions& options,
                                        const std::string& path, const Target& target,
                                        const NewRights& rights, uint64_t size, Source* backing,
                                        MadeFile& made) {
  if (LeadsTo(file_system, path, target))
    return Fail(
        Error::Because(EINVAL, path,
                       "would be both the image file and the add-cow file, they must be "
                       "different files"));
  if (options.contents != nullptr)
    return WriteImage(file_system, options, path, target, rights, size, backing, made);
  auto file = file_system.Create(path, rights);
  if (!file) return Fail(NotMade(file_system, options, path, target, file.error()));
  made.Made(path);
  if (options.lock) ADDCOW_TRY(WithLockRemedy((*file)->Lock(LockKind::kWrite), "--"));
  ADDCOW_TRY(SizeImage(**file, size));
  ADDCOW_TRY(Preallocate(**file, size, options));
  return file;
}

// An image file that is there: whether it may be taken, and what that means.
Status TakeImage(File& image, const CreateOptions& options, const Target& target,
                 const Base& backing, CreateResult& result) {
  result.image_was_there = true;
  ADDCOW_TRY_ASSIGN(const FileInfo info, image.Info());
  if (options.contents != nullptr && info.is_block_device)
    return Fail(Error::Because(EEXIST, image.name(),
                               "is a block device, and a new image file is made here (give the "
                               "name of a file with -i)"));
  if (options.contents != nullptr)
    return Fail(Error::Because(EEXIST, image.name(),
                               "already exists, and a new image file is made here (give "
                               "another name with -i, or remove it if no image has it: one "
                               "that was killed just before its end leaves it)"));
  if (target.existing != nullptr)
    ADDCOW_TRY(CheckDifferent(image, "image file", *target.existing, "add-cow file"));
  ADDCOW_TRY(CheckNotOfBase(image, backing));
  if (options.lock) ADDCOW_TRY(WithLockRemedy(image.Lock(LockKind::kWrite), "--"));
  ADDCOW_TRY_ASSIGN(result.virtual_size, SizeOf(image, options.size));
  if (options.preallocation != Preallocation::kOff)
    return Fail(Error::Because(EINVAL, image.name(),
                               "already exists, and only a new image file can be "
                               "preallocated"));
  ADDCOW_TRY(RefuseAddCowFile(image, "image file"));
  ADDCOW_TRY_ASSIGN(const Contents contents, ContentsOf(image, result.virtual_size));
  const bool may_hold_data = contents != Contents::kZeroes;
  if (backing.source == nullptr) {
    result.old_data_shown = may_hold_data;
    if (Note note = NoteOtherFormat(image, "image file")) result.notes.push_back(*note);
    return {};
  }
  result.old_data_ignored = may_hold_data;
  // That of the image that is replaced is its own, whose data may go.
  const bool own = target.image && info.SameFile(*target.image);
  if (!may_hold_data || options.reuse_image || own) return {};
  const char* const why =
      contents == Contents::kData
          ? "already exists and holds data, perhaps another disk's, which would not be seen "
            "and be overwritten"
          : "already exists, and is too large to be searched for data, which would not be seen "
            "and be overwritten";
  return Fail(Error::Because(EEXIST, image.name(),
                             std::string(why) + " (--reuse-image takes it all the same)"));
}

// The backing file, and what the header and the notes are to say of it.
Result<Base> TakeBacking(FileSystem& file_system, const CreateOptions& options,
                         const Target& target, Header& header, CreateResult& result) {
  ADDCOW_TRY_ASSIGN(Base backing,
                    OpenNamedBacking(file_system, *options.backing, DirectoryOf(target.path),
                                     target.existing.get(), nullptr,
                                     {.lock = options.lock,
                                      .timeout = options.timeout,
                                      .interrupted = options.interrupted,
                                      .check_identity = options.check_identity}));
  header.backing_identity = IdentityToNote(backing);
  if (!IdentityFits(header)) {
    header.backing_identity.reset();
    result.notes.emplace_back(kNoRoomForIdentity);
  }
  result.notes.insert(result.notes.end(), backing.notes.begin(), backing.notes.end());
  return backing;
}

// The parts of clusters that the image file has from the beginning.
Status VisitContents(const CreateOptions& options, const Layout& layout,
                     const VisitClusterPart& visit) {
  if (options.contents == nullptr) return {};
  for (const ByteRange& range : options.contents->allocated)
    ADDCOW_TRY(CutByClusters(layout, range, visit));
  return {};
}

// The whole add-cow file. The bitmap is a hole, but where it has ones; one of
// which bits are to be set later has storage, where there is room.
Status WriteAddCow(File& file, const Header& header, const HeaderBytes& header_bytes,
                   const Layout& layout, const CreateOptions& options) {
  ADDCOW_TRY(WriteNewHeader(file, header_bytes));
  ADDCOW_TRY(file.Truncate(
      (header.subclusters ? layout.subcluster_bitmap() : layout.bitmap()).padded_end()));
  if (!header.all_allocated) {
    ADDCOW_TRY(WriteBitsOf(file, layout, [&](const VisitClusterPart& visit) {
      return VisitContents(options, layout, visit);
    }));
    return TakeStorageForBits(file, layout);
  }
  // Between two looks at whether to stop: a few MiB of bitmap.
  constexpr uint64_t kMostBits = 8 * 4 * kMiB;
  for (uint64_t first = 0; first < layout.clusters(); first += kMostBits) {
    ADDCOW_TRY(CheckInterrupted(options.interrupted, options.add_cow_path));
    ADDCOW_TRY(FillRawBits(file, layout.bitmap(),
                           {first, std::min(kMostBits, layout.clusters() - first)}, true));
  }
  return {};
}

}  // namespace

Result<CreateResult> CreateImage(FileSystem& file_system, const CreateOptions& options) {
  ADDCOW_TRY_ASSIGN(const Target target, FindTarget(file_system, options));
  const std::string directory = DirectoryOf(target.path);
  Header header{.revision = options.revision,
                .cluster_size = options.cluster_size,
                .image = {options.image_name, std::string(kRawFormat)},
                .backing = options.backing,
                .all_allocated = !options.backing,
                .no_subclusters = !options.subclusters};
  // Before anything is made: names that do not fit are the user's business.
  ADDCOW_TRY(SerializeHeader(header, options.add_cow_path));
  CreateResult result;
  Base backing;
  NewRights rights;
  if (options.backing) {
    ADDCOW_TRY_ASSIGN(backing, TakeBacking(file_system, options, target, header, result));
    rights.kind = NewRights::Kind::kWithin;
    rights.model = backing.Rights();
  }
  if (options.contents != nullptr && options.contents->from) {
    const FileInfo& from = *options.contents->from;
    if (rights.kind == NewRights::Kind::kUsual)
      rights = {.kind = NewRights::Kind::kWithin, .model = from};
    rights.model.permissions &= RightsWithin(from, from.group == rights.model.group);
  }
  for (std::string& note : NotesOfLeftFiles(file_system, target.path))
    result.notes.push_back(std::move(note));
  result.image_path = ResolveName(directory, options.image_name);
  MadeFile made(file_system);
  std::optional<Error> not_writable;
  auto image = OpenWritableOrReadOnly(
      [&](OpenMode open_mode) { return file_system.Open(result.image_path, open_mode); },
      not_writable);
  if (image) {
    if (not_writable)
      result.notes.push_back(not_writable->WithNote("the disk will be read only").Message());
    ADDCOW_TRY(TakeImage(**image, options, target, backing, result));
  } else {
    if (!IsNotThere(image.error())) return Fail(std::move(image).error());
    ADDCOW_TRY_ASSIGN(result.virtual_size, NewSize(file_system, options, result.image_path,
                                                   directory, backing.source.get()));
    image = MakeImage(file_system, options, result.image_path, target, rights,
                      result.virtual_size, backing.source.get(), made);
    if (!image) return Fail(std::move(image).error());
  }
  if (backing.source != nullptr)
    if (Note note =
            NoteSmallerDisk(result.image_path, result.virtual_size, backing.source->size()))
      result.notes.push_back(*note);
  ADDCOW_TRY((*image)->Sync());
  if (made.made()) ADDCOW_TRY(file_system.SyncDirectory(DirectoryOf(result.image_path)));

  const Layout layout(result.virtual_size, header.geometry());
  if (!header.all_allocated)
    ADDCOW_TRY(VisitContents(options, layout, [&](const ClusterPart& part) -> Status {
      header.subclusters = header.subclusters || !part.whole;
      return {};
    }));
  ADDCOW_TRY_ASSIGN(const HeaderBytes header_bytes,
                    SerializeHeader(header, options.add_cow_path));
  const RenameMode mode =
      target.existing != nullptr ? RenameMode::kReplace : RenameMode::kKeepExisting;
  bool in_place = false;
  ADDCOW_TRY(CheckInterrupted(options.interrupted, options.add_cow_path));
  const auto fill = [&](File& file) -> Status {
    ADDCOW_TRY(WriteAddCow(file, header, header_bytes, layout, options));
    return CheckInterrupted(options.interrupted, options.add_cow_path);
  };
  const Status done = DurableCreate(file_system, target.path, mode, fill, &in_place, rights);
  // Also after a failure: were the image file removed, the add-cow file that
  // is there would name one that is not.
  if (in_place) made.Keep();
  if (!done) return Fail(done.error());
  return result;
}

}  // namespace addcow
