// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See rebase.h. The header has eight sectors, which no write changes in one
// step; so a new file is made beside the old one and renamed over it, as
// "create --force" does.

#include "common/ops/rebase.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "common/base/shell_word.h"
#include "common/base/units.h"
#include "common/base/zero_bytes.h"
#include "common/image/identity.h"
#include "common/image/raw_file.h"
#include "common/io/holes.h"
#include "common/ops/check.h"
#include "common/ops/layer_runs.h"
#include "common/ops/named_files.h"
#include "common/ops/new_add_cow.h"
#include "common/ops/raw_bitmap.h"

namespace addcow {

namespace {

// The bits say where a file has bytes of this disk. One that has data elsewhere
// may be another disk's, and writes to this one would destroy that. Where the old
// file is gone (`moved`) and some of the disk is in this one, that is said only: it
// will be the old one, with leaks.
Status CheckStrangeData(const ImageFiles& files, bool moved, RebaseResult& result) {
  ADDCOW_TRY_ASSIGN(const uint64_t strange, LeakedClusters(files));
  if (strange == 0) return {};
  ADDCOW_TRY_ASSIGN(const RawPlaces places,
                    RawPlacesOf(*files.add_cow, files.header, files.layout()));
  ADDCOW_TRY_ASSIGN(const bool any, AnyRawBit(*files.add_cow, places));
  const auto error = [&](const std::string& what) {
    return Error::Because(EINVAL, files.image_path,
                          fmt::format("holds data in {} where nothing is allocated{}",
                                      Counted(strange, "cluster"), what));
  };
  if (!any)
    return Fail(
        error(": perhaps another disk's, which would be overwritten (nothing of this disk "
              "is allocated, so an empty file of its size will do)"));
  if (!moved)
    return Fail(error(fmt::format(
        ": perhaps another disk's, which would be overwritten (in a copy of this disk's they "
        "are leaks: run addcow check -r leaks {}, and copy again)",
        ShellWord(files.add_cow_path))));
  result.notes.push_back(
      error(", which is overwritten in time: be sure that it is this disk's").Message());
  return {};
}

// Where the bits say that the image file has bytes, `old` has them, and a copy of it would,
// too: the holes of one that was made sparse were zeroes.
Status CheckLacksNothing(const ImageFiles& files, File& old) {
  ADDCOW_TRY_ASSIGN(const LayerRuns runs, FindLayerRuns(files, *files.image));
  Holes holes(old);
  ADDCOW_TRY(holes.Settle(old));
  std::vector<std::byte> buffer(kMiB);
  const auto look = [&](uint64_t offset, uint64_t length) -> Result<bool> {
    const auto part = std::span(buffer).first(static_cast<size_t>(length));
    ADDCOW_TRY_ASSIGN(const size_t count, old.Read(part, offset));
    if (IsZero(part.first(count))) return true;
    return Fail(Error::Because(
        EINVAL, files.image_path,
        fmt::format(
            "lacks data of this disk at {}, which the image file so far, {}, has: is it "
            "a copy? (to make one: cp --sparse=always {} {})",
            offset, old.name(), ShellWord(old.name()), ShellWord(files.image_path))));
  };
  return runs.Visit([&](bool data, ByteRange range) -> Status {
    return data ? Status() : holes.VisitData(range.offset, range.end(), buffer.size(), look);
  });
}

// Whether the new image file can hold what the old one did.
Status CheckNewImage(FileSystem& file_system, const RebaseOptions& options,
                     const ImageFiles& files, RebaseResult& result) {
  const std::string old_path =
      ResolveName(DirectoryOf(files.add_cow_path), files.header.image.name);
  // Who confines does not want files opened by the name in the header.
  if (!options.access.confine) {
    if (const auto old = file_system.Open(old_path, OpenMode::kReadOnly); old) {
      ADDCOW_TRY_ASSIGN(const uint64_t old_size, (*old)->Size());
      ADDCOW_TRY_ASSIGN(const FileInfo old_info, (*old)->Info());
      ADDCOW_TRY_ASSIGN(const FileInfo new_info, files.image->Info());
      if (new_info.SameFile(old_info)) return {};
      if (old_size == files.virtual_size) {
        ADDCOW_TRY(CheckStrangeData(files, false, result));
        return CheckLacksNothing(files, **old);
      }
      return Fail(Error::Because(
          EINVAL, files.image_path,
          fmt::format("has {} bytes, but the image file so far, {}, has {}: is it a copy?",
                      files.virtual_size, old_path, old_size)));
    }
  }
  const Layout layout = files.layout();
  ADDCOW_TRY_ASSIGN(const RawPlaces places, RawPlacesOf(*files.add_cow, files.header, layout));
  ADDCOW_TRY_ASSIGN(const BitCounts past_end, CountStrayBits(*files.add_cow, places, layout));
  if (past_end.clusters_with_data() == 0) return CheckStrangeData(files, true, result);
  return Fail(Error::Because(
      EINVAL, files.image_path,
      fmt::format("has {} bytes, so data in {} would be cut off (if the old file was no "
                  "longer, these are stray bits: addcow check -r all --image={} {} clears "
                  "them)",
                  files.virtual_size, Counted(past_end.clusters_with_data(), "cluster"),
                  ShellWord(files.image_path), ShellWord(files.add_cow_path))));
}

// Where more may read the image file than the new backing file: flatten would show
// it to them.
Result<Note> NoteWiderRights(File& image, const FileInfo& base) {
  ADDCOW_TRY_ASSIGN(const FileInfo own, image.Info());
  // Whom a list of its own names may be in no group of the base's.
  const bool same_group = own.group == base.group && !own.acl_limit;
  const uint32_t more = own.permissions & ~RightsWithin(base, same_group) & uint32_t{044};
  if (base.is_block_device || more == 0) return Note();
  return Note(Error::Because(0, image.name(),
                             "may be read by more users than the new backing file, whose data "
                             "gets into it")
                  .Message());
}

// The new backing file, locked for as long as the result lives, and what is to
// be said of it.
Result<Base> TakeBacking(FileSystem& file_system, const RebaseOptions& options,
                         const ImageFiles& files, RebaseResult& result) {
  ADDCOW_TRY_ASSIGN(
      Base backing,
      OpenNamedBacking(file_system, *options.backing, DirectoryOf(files.add_cow_path),
                       files.add_cow.get(), files.image.get(), options.access));
  const uint64_t size = backing.source->size();
  const std::string& name =
      backing.files.empty() ? options.backing->name : backing.files.front().path;
  const auto& noted = files.header.backing_identity;
  if (noted && options.access.check_identity && !options.same_without)
    if (const Note other = NoteOtherBase(name, backing, *noted)) result.notes.push_back(*other);
  // What is noted is to be what is there after a power failure: a commit may have been killed
  // before it had synced what it wrote.
  for (const ChainFile& file : backing.files) {
    ADDCOW_TRY_ASSIGN(const auto opened, file_system.Open(file.path, OpenMode::kReadOnly));
    const Status synced = opened->Sync();
    if (!synced && !synced.error().IsUnsupported()) return Fail(synced.error());
  }
  result.header.backing_identity = IdentityToNote(backing);
  Note wider;
  if (!backing.files.empty()) {
    ADDCOW_TRY_ASSIGN(wider, NoteWiderRights(*files.image, backing.Rights()));
  }
  result.notes.insert(result.notes.end(), backing.notes.begin(), backing.notes.end());
  for (const Note& note : {wider, NoteSmallerDisk(files.image_path, files.virtual_size, size)})
    if (note) result.notes.push_back(*note);
  result.header.backing = options.backing;
  return backing;
}

// Of the backing file that stays; neither it nor what it stands on need be there.
Status CheckOldBacking(FileSystem& file_system, const RebaseOptions& options,
                       const ImageFiles& files) {
  if (!files.header.backing || options.access.confine) return {};
  const NamedFile& named = *files.header.backing;
  const std::string path = ResolveName(DirectoryOf(files.add_cow_path), named.name);
  auto backing = file_system.Open(path, OpenMode::kReadOnly);
  if (!backing) return {};
  ADDCOW_TRY(CheckDifferent(*files.image, "image file", **backing, "backing file"));
  if (named.format != kAddCowFormat) return {};
  const auto base = OpenBase(file_system, {.file = std::move(*backing),
                                           .path = path,
                                           .format = named.format,
                                           .access = {.lock = false, .check_identity = false}});
  return base ? CheckNotOfBase(*files.image, *base) : Status();
}

Status CheckExpected(const RebaseOptions& options, const ImageFiles& files) {
  if (!options.expected) return {};
  ADDCOW_TRY_ASSIGN(const FileInfo info, files.add_cow->Info());
  if (info.SameFile(options.expected->add_cow) &&
      files.virtual_size == options.expected->virtual_size)
    return {};
  return Fail(Error::Because(EBUSY, files.add_cow_path,
                             "was changed by another program meanwhile (run it again)"));
}

// That the disk reads the same without its backing file.
Status CheckNotNeeded(const ImageFiles& files) {
  if (files.header.all_allocated || !files.header.backing) return {};
  const Layout layout = files.layout();
  ADDCOW_TRY_ASSIGN(const RawPlaces places, RawPlacesOf(*files.add_cow, files.header, layout));
  ADDCOW_TRY_ASSIGN(const BitCounts counts, CountRawBits(*files.add_cow, places, layout));
  const uint64_t missing = layout.clusters() - counts.allocated_clusters;
  if (missing == 0) return {};
  return Fail(Error::Because(
      EINVAL, files.add_cow_path,
      fmt::format("still needs its backing file {}: {} would read as zeroes without it "
                  "(without -u its data is copied first)",
                  files.header.backing->name, Counted(missing, "cluster"))));
}

}  // namespace

Result<RebaseResult> RebaseUnsafely(FileSystem& file_system, const RebaseOptions& options) {
  ADDCOW_TRY_ASSIGN(const std::string path, file_system.RealPath(options.add_cow_path));
  std::optional<std::string> image_path;
  if (options.image_name) image_path = ResolveName(DirectoryOf(path), *options.image_name);
  auto opened = OpenImageFiles(file_system, {.add_cow_path = path,
                                             .image_path = image_path,
                                             .backing_path = {},
                                             .mode = OpenMode::kReadWrite,
                                             .want_backing = false,
                                             .access = options.access,
                                             .may_be_another = true,
                                             .remedy_is_rebase = true});
  if (!opened && image_path && IsNotThere(opened.error()) &&
      opened.error().file() == *image_path)
    return Fail(
        NotFound(file_system, opened.error(), *options.image_name, "-i", DirectoryOf(path)));
  if (!opened) return Fail(std::move(opened).error());
  const ImageFiles files = std::move(*opened);
  if (files.not_writable) return Fail(*files.not_writable);
  ADDCOW_TRY(CheckMayReplaceAddCow(file_system, files));
  ADDCOW_TRY(CheckExpected(options, files));

  RebaseResult result;
  result.header = files.header;
  result.notes = NotesOfLeftFiles(file_system, path);
  // A record of the backing file that is not understood is not copied, so its bit is not.
  result.header.optional_features &= ~kOptionalBackingIdentity;
  result.virtual_size = files.virtual_size;
  if (options.no_backing) {
    if (!options.same_without) ADDCOW_TRY(CheckNotNeeded(files));
    result.header.backing.reset();
    result.header.backing_identity.reset();
  } else if (!options.backing) {
    ADDCOW_TRY(CheckOldBacking(file_system, options, files));
  }
  if (options.image_name) {
    ADDCOW_TRY(CheckNewImage(file_system, options, files, result));
    result.header.image.name = *options.image_name;
  }
  Base backing;
  if (options.backing) {
    ADDCOW_TRY_ASSIGN(backing, TakeBacking(file_system, options, files, result));
  }
  if (result.header.backing_identity && !IdentityFits(result.header)) {
    result.header.backing_identity.reset();
    result.notes.push_back(std::string(kNoRoomForIdentity));
  }

  // The bits vouch for the new file's bytes, as they did for the old one's.
  if (options.image_name) {
    ADDCOW_TRY(files.image->Sync());
    ADDCOW_TRY(file_system.SyncDirectory(DirectoryOf(files.image_path)));
  }
  ADDCOW_TRY(ReplaceAddCow(file_system, files, result.header, [&](File& file) -> Status {
    ADDCOW_TRY(SameBits(files)(file));
    const Layout layout = files.layout();
    // The flag alone is enough as long as there is no backing file.
    if (files.header.all_allocated && files.header.flag_suffices() && result.header.backing)
      return FillRawBits(file, layout.bitmap(), {0, layout.clusters()}, true);
    return {};
  }));
  return result;
}

}  // namespace addcow
