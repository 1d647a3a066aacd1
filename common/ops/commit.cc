// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See commit.h. The order of the steps, each of which is durable before the next begins:
//
//   1  each image's record of its base is dropped: it would refuse the base half-way
//   2  bases that are too short are made longer
//   3  what all images hold is written, and synced
//   4  image by image: a new add-cow file notes what the base is now, and has no bit but
//      of one stretch (5); the others' storage is given back; the last bit is cleared, and
//      its storage given back
//   5  with that bit a run that comes after a kill knows that the data in the image file is
//      its own: data without any bit may be another disk's, and stays

#include "common/ops/commit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <utility>

#include "common/base/units.h"
#include "common/image/base.h"
#include "common/image/identity.h"
#include "common/io/holes.h"
#include "common/ops/commit_apart.h"
#include "common/ops/commit_target.h"
#include "common/ops/copy_layer.h"
#include "common/ops/layer_runs.h"
#include "common/ops/named_files.h"
#include "common/ops/new_add_cow.h"
#include "common/ops/raw_bitmap.h"
#include "common/source/nbd_uri.h"

namespace addcow {

namespace {

// One image, locked as long as it lives.
struct Layer {
  ImageFiles files;
  CommitBase base;
  std::unique_ptr<CommitTarget> target;
  LayerRuns runs;
  CommitResult::One result;
  // Once it is written: the base, locked for reading, and the header that notes what it is.
  Base written;
  Header after = {};
  // When its files were last written to by the commit.
  std::vector<FileTime> times;
  // The header from which the record of the base was dropped, until the base is changed.
  std::optional<Header> before = std::nullopt;
};

Error Refused(const std::string& file, const std::string& why) {
  return Error::Because(EINVAL, file, why);
}

// The base, once more for writing: that it is what it was has been seen.
Status OpenTarget(FileSystem& file_system, const CommitOptions& options, Layer& layer) {
  ADDCOW_TRY_ASSIGN(layer.target,
                    options.dry_run
                        ? LookAtCommitTarget(file_system, layer.base, options.access)
                        : OpenCommitTarget(file_system, layer.base, options.access));
  const uint64_t size = layer.target->size();
  layer.result.backing_size = size;
  if (size >= layer.files.virtual_size) return {};
  if (!layer.target->can_grow())
    return Fail(Refused(
        layer.base.path,
        fmt::format("has {} bytes, less than the disk's {}: make it larger first ({})", size,
                    layer.files.virtual_size,
                    layer.base.format == kAddCowFormat                 ? "addcow resize"
                    : layer.base.is && layer.base.format != kRawFormat ? "qemu-img resize"
                                                                       : "where it is kept")));
  layer.result.grown_to = layer.files.virtual_size;
  if (layer.base.is && layer.result.grown_to > layer.base.is->size_limit)
    return Fail(Error::Because(
        EFBIG, layer.base.path,
        fmt::format("cannot be made {} bytes long: no file of this process can (ulimit -f)",
                    layer.result.grown_to)));
  return {};
}

// What begins as an add-cow file is not taken for a raw one, by nobody: a guest could make
// its host open any file. So a raw base could not be opened any more, nor an image file of
// which that is still there when its bit has gone.
Status RefuseOtherFormat(const ImageFiles& files) {
  std::array<std::byte, kMagicBytes> begin = {};
  ADDCOW_TRY_ASSIGN(const size_t count, files.image->Read(begin, 0));
  if (!BeginsAsAddCow(std::span(begin).first(count))) return {};
  return Fail(Refused(files.image_path,
                      "begins as an add-cow file does, which its guest has written there: raw "
                      "files that begin so are not opened (flatten the image instead)"));
}

Result<Layer> OpenLayer(FileSystem& file_system, const CommitOptions& options,
                        const std::string& path) {
  Layer layer;
  ADDCOW_TRY_ASSIGN(layer.files,
                    OpenImageFiles(file_system, {.add_cow_path = path,
                                                 .mode = options.dry_run ? OpenMode::kReadOnly
                                                                         : OpenMode::kReadWrite,
                                                 .backing_always = true,
                                                 .access = options.access,
                                                 .remedy_is_rebase = true}));
  ImageFiles& files = layer.files;
  if (files.not_writable) return Fail(*files.not_writable);
  if (options.dry_run) ADDCOW_TRY(LookAtWriting(file_system, files, options.access));
  if (!files.header.backing)
    return Fail(Refused(files.add_cow_path, "has no backing file to commit to"));
  // Known now, and not only when the base has all.
  ADDCOW_TRY(CheckMayReplaceAddCow(file_system, files));
  layer.base = {.path = files.backing_path, .format = files.header.backing->format};
  // The one that was opened, and looked at: a name may lead elsewhere by now.
  if (!IsNbdUri(files.backing_path)) {
    layer.base.is = files.chain.at(2).info;
    layer.base.others.assign(files.chain.begin() + 3, files.chain.end());
  }
  layer.base.size = files.backing->size();
  layer.result.add_cow_path = files.add_cow_path;
  layer.result.backing_path = files.backing_path;
  layer.result.notes = files.notes;
  for (std::string& note : NotesOfLeftFiles(file_system, files.add_cow_path))
    layer.result.notes.push_back(std::move(note));
  return layer;
}

// Once all layers are open, and nothing that one writes to is another's: it would be in use,
// by us.
Status OpenLayerForWriting(FileSystem& file_system, const CommitOptions& options,
                           Layer& layer) {
  ImageFiles& files = layer.files;
  // It is locked for reading till here.
  files.backing.reset();
  files.base_image = nullptr;
  ADDCOW_TRY(OpenTarget(file_system, options, layer));
  ADDCOW_TRY_ASSIGN(layer.runs,
                    FindLayerRuns(files, options.dry_run ? *files.image : *files.image_sync));
  if (!layer.runs.allocated.empty() && layer.runs.allocated.front().offset == 0)
    ADDCOW_TRY(RefuseOtherFormat(files));
  layer.result.data = layer.runs.data;
  layer.result.zeroes = layer.runs.zeroes;
  return {};
}

// A new add-cow file, which is locked in place of the one before it.
Status Replace(FileSystem& file_system, const CommitOptions& options, Layer& layer,
               const Header& header, const WriteBits& bits) {
  ADDCOW_TRY(ReplaceAddCow(file_system, layer.files, header, bits));
  const std::string& path = layer.files.add_cow_path;
  ADDCOW_TRY_ASSIGN(auto file, file_system.Open(path, OpenMode::kReadWrite));
  if (options.access.lock)
    ADDCOW_TRY(WithLockRemedy(LockInPlace(file_system, path, *file, LockKind::kWrite),
                              options.access.option_prefix));
  layer.files.add_cow = std::move(file);
  return {};
}

// The same bits, under a header without a record of the base.
Status DropIdentity(FileSystem& file_system, const CommitOptions& options, Layer& layer) {
  Header& header = layer.files.header;
  if (!header.backing_identity && (header.optional_features & kOptionalBackingIdentity) == 0)
    return {};
  // One that is not understood is not written anew.
  if (header.backing_identity) layer.before = header;
  header.backing_identity.reset();
  header.optional_features &= ~kOptionalBackingIdentity;
  return Replace(file_system, options, layer, header, SameBits(layer.files));
}

Status CopyToBase(PieceCopier& copier, Layer& layer) {
  return CopyLayer(
      copier,
      {.file = layer.files.add_cow_path,
       .image = *layer.files.image,
       .runs = layer.runs,
       .target = *layer.target,
       // What a base was made longer by is zero already.
       .zeroes_end = layer.result.grown_to == 0 ? UINT64_MAX : layer.result.backing_size,
       .before_change = [&layer] { layer.before.reset(); }});
}

// The first stretch that is allocated, no more than a cluster of it: a whole one, or a
// part of one, which has bits of its own.
ByteRange MarkOf(const Layer& layer) {
  const Layout layout = layer.files.layout();
  const ByteRange& first = layer.runs.allocated.front();
  const uint64_t cluster = layout.ClusterOf(first.offset);
  return {first.offset, std::min(first.end(), layout.End(cluster + 1)) - first.offset};
}

// A new add-cow file with no bit but those of the mark, if there is one.
Status WriteEmptied(FileSystem& file_system, const CommitOptions& options, Layer& layer,
                    std::optional<ByteRange> mark) {
  Header header = layer.after;
  const Layout layout = layer.files.layout();
  const ClusterRange cluster = {mark ? layout.ClusterOf(mark->offset) : 0, 1};
  const bool whole = mark && mark->offset == layout.Start(cluster.first) &&
                     mark->end() == layout.End(cluster.end());
  header.all_allocated = false;
  header.subclusters = mark && !whole;
  return Replace(file_system, options, layer, header, [&](File& file) -> Status {
    const BitmapPlace last = header.subclusters ? layout.subcluster_bitmap() : layout.bitmap();
    ADDCOW_TRY(file.Truncate(last.padded_end()));
    if (whole) ADDCOW_TRY(FillRawBits(file, layout.bitmap(), cluster, true));
    if (header.subclusters) {
      const uint64_t first = mark->offset / kSubclusterSize;
      ADDCOW_TRY(FillRawBits(file, layout.subcluster_bitmap(),
                             {first, DivideUp(mark->end(), kSubclusterSize) - first}, true));
    }
    return TakeStorageForBits(file, layout);
  });
}

// Gives the storage of [offset, end) back. What cannot be is left as a leak.
Status GiveBack(const Layer& layer, uint64_t offset, uint64_t end, bool& able) {
  while (able && offset < end) {
    ADDCOW_TRY_ASSIGN(const DataRun run, layer.runs.holes->RunAt(offset, end));
    if (run.data) {
      // Past the end, too, where it ends: the file system would keep the last block.
      const uint64_t stop = run.end == layer.files.virtual_size
                                ? std::min(RoundUp(run.end, kSubclusterSize), kMaxOffset)
                                : run.end;
      const Status punched = layer.files.image->PunchHole(offset, stop - offset);
      if (!punched && !punched.error().IsUnsupported()) return punched;
      able = punched.has_value();
    }
    offset = run.end;
  }
  return {};
}

Status Empty(FileSystem& file_system, const CommitOptions& options, Layer& layer) {
  // Nothing is its own for sure where nothing is allocated.
  if (layer.runs.allocated.empty())
    return WriteEmptied(file_system, options, layer, std::nullopt);
  const ByteRange mark = MarkOf(layer);
  bool able = true;
  ADDCOW_TRY(WriteEmptied(file_system, options, layer, mark));
  ADDCOW_TRY(GiveBack(layer, 0, mark.offset, able));
  ADDCOW_TRY(GiveBack(layer, mark.end(), layer.files.virtual_size, able));
  ADDCOW_TRY(layer.files.image_sync->SyncData());
  ADDCOW_TRY(WriteEmptied(file_system, options, layer, std::nullopt));
  ADDCOW_TRY(GiveBack(layer, mark.offset, mark.end(), able));
  ADDCOW_TRY(layer.files.image_sync->SyncData());
  if (!able)
    layer.result.notes.push_back(
        Error::Because(0, layer.files.image_path,
                       "keeps its storage: its file system cannot give it back")
            .Message());
  return {};
}

// When the files of the base were last written to.
Result<std::vector<FileTime>> TimesOfBase(FileSystem& file_system, const Layer& layer) {
  std::vector<FileTime> times;
  if (!layer.base.is) return times;
  for (size_t i = 2; i < layer.files.chain.size(); i++) {
    ADDCOW_TRY_ASSIGN(const auto file,
                      file_system.Open(layer.files.chain[i].path, OpenMode::kReadOnly));
    ADDCOW_TRY_ASSIGN(const FileInfo info, file->Info());
    times.push_back(info.is_block_device ? FileTime() : info.modified);
  }
  return times;
}

// Opens the base as it is now, and finds what the header is to be.
Status TakeWritten(FileSystem& file_system, const CommitOptions& options, Layer& layer) {
  layer.target.reset();  // and with it the lock that keeps readers away
  AccessOptions access = options.access;
  access.check_identity = false;
  layer.after = layer.files.header;
  ADDCOW_TRY_ASSIGN(
      layer.written,
      OpenNamedBacking(file_system, *layer.after.backing, DirectoryOf(layer.files.add_cow_path),
                       layer.files.add_cow.get(), layer.files.image.get(), access));
  if (layer.base.is && !layer.written.files.front().info.SameFile(*layer.base.is))
    return Fail(Error::Because(EAGAIN, layer.base.path,
                               "was replaced by another program while it was written to"));
  // Between the lock of who writes and that of who reads somebody else may have written to it.
  ADDCOW_TRY_ASSIGN(const auto times, TimesOfBase(file_system, layer));
  if (times != layer.times)
    return Fail(Error::Because(EAGAIN, layer.base.path,
                               "was written to by another program just after it had all"));
  ADDCOW_TRY(layer.written.source->Start());
  layer.after.backing_identity = IdentityToNote(layer.written);
  if (IdentityFits(layer.after)) return {};
  layer.after.backing_identity.reset();
  layer.result.notes.push_back(std::string(kNoRoomForIdentity));
  return {};
}

Status WriteAll(FileSystem& file_system, const CommitOptions& options,
                std::vector<Layer>& layers) {
  uint64_t total = 0;
  for (const Layer& layer : layers) total += layer.runs.data;
  PieceCopier copier({.total = total,
                      .rate = options.rate,
                      .interrupted = options.access.interrupted,
                      .progress = options.progress});
  for (Layer& layer : layers) ADDCOW_TRY(DropIdentity(file_system, options, layer));
  for (Layer& layer : layers) {
    if (layer.result.grown_to == 0) continue;
    layer.before.reset();  // also a Grow that fails may have made it longer
    ADDCOW_TRY(layer.target->Grow(layer.result.grown_to));
  }
  copier.TellProgress();
  for (Layer& layer : layers) ADDCOW_TRY(CopyToBase(copier, layer));
  for (Layer& layer : layers) {
    ADDCOW_TRY(layer.target->Close());
    ADDCOW_TRY_ASSIGN(layer.times, TimesOfBase(file_system, layer));
  }
  return {};
}

Status EmptyAll(FileSystem& file_system, const CommitOptions& options,
                std::vector<Layer>& layers) {
  for (Layer& layer : layers) ADDCOW_TRY(TakeWritten(file_system, options, layer));
  for (Layer& layer : layers)
    ADDCOW_TRY(options.drop
                   ? Replace(file_system, options, layer, layer.after, SameBits(layer.files))
                   : Empty(file_system, options, layer));
  return {};
}

}  // namespace

Result<CommitResult> CommitImages(FileSystem& file_system, const CommitOptions& options) {
  ADDCOW_TRY(CheckApart(file_system, options.add_cow_paths, options.access));
  std::vector<Layer> layers;
  for (const std::string& path : options.add_cow_paths) {
    ADDCOW_TRY_ASSIGN(Layer layer, OpenLayer(file_system, options, path));
    for (const Layer& other : layers) {
      if (IsNbdUri(layer.base.path) && IsNbdUri(other.base.path) &&
          NormalNbdUri(layer.base.path) == NormalNbdUri(other.base.path))
        return Fail(Refused(path, fmt::format("and {} both stand on {}",
                                              other.files.add_cow_path, layer.base.path)));
      ADDCOW_TRY(
          CheckPairApart(path, layer.files.chain, other.files.add_cow_path, other.files.chain));
    }
    layers.push_back(std::move(layer));
  }
  for (Layer& layer : layers) ADDCOW_TRY(OpenLayerForWriting(file_system, options, layer));
  if (!options.dry_run) {
    // Once nothing else is refused: it leaves no file, but the directory's time.
    for (const Layer& layer : layers) ADDCOW_TRY(TryReplacingAddCow(file_system, layer.files));
    Status done = WriteAll(file_system, options, layers);
    if (done) done = EmptyAll(file_system, options, layers);
    // Where nothing of a base was changed, its record is right. If that fails too, there is
    // none.
    if (!done)
      for (Layer& layer : layers)
        if (layer.before)
          (void)Replace(file_system, options, layer, *layer.before, SameBits(layer.files));
    if (!done)
      return Fail(done.error().WithNote(
          "every image reads as before; run the same command again to go on"));
  }
  CommitResult result;
  for (Layer& layer : layers) result.images.push_back(std::move(layer.result));
  return result;
}

}  // namespace addcow
