// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See resize.h.

#include "common/ops/resize.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "common/image/allocation_bitmap.h"
#include "common/image/image.h"
#include "common/ops/raw_bitmap.h"

namespace addcow {

namespace {

Result<uint64_t> WantedSize(const SizeChange& change, const ImageFiles& files) {
  const uint64_t size = files.virtual_size;
  const auto refuse = [&](const std::string& why) {
    return Fail(Error::Because(EINVAL, files.add_cow_path, why));
  };
  switch (change.kind) {
    case SizeChange::Kind::kGrowBy:
      if (change.bytes > kMaxOffset - size)
        return refuse(fmt::format("has {} bytes, and with {} more it would have more than {}",
                                  size, change.bytes, kMaxOffset));
      return size + change.bytes;
    case SizeChange::Kind::kShrinkBy:
      if (change.bytes >= size)
        return refuse(
            fmt::format("has {} bytes, so it cannot lose {}: one must be left at least", size,
                        change.bytes));
      return size - change.bytes;
    case SizeChange::Kind::kTo:
      break;
  }
  if (change.bytes == 0 || change.bytes > kMaxOffset)
    return refuse(
        fmt::format("cannot have {} bytes: must be 1 to {}", change.bytes, kMaxOffset));
  return change.bytes;
}

Status RefuseDevices(const ImageFiles& files) {
  ADDCOW_TRY_ASSIGN(const FileInfo image, files.image->Info());
  if (image.is_block_device)
    return Fail(Error::Because(EINVAL, files.image_path,
                               "the image file is a block device, whose size is not addcow's "
                               "to change"));
  ADDCOW_TRY_ASSIGN(const FileInfo add_cow, files.add_cow->Info());
  if (add_cow.is_block_device)
    return Fail(Error::Because(EINVAL, files.add_cow_path,
                               "is a block device, where a bitmap cannot get another length "
                               "(copy it to a file)"));
  return {};
}

Error TooLarge(const std::string& file, uint64_t bytes) {
  return Error::Because(
      EFBIG, file,
      fmt::format("cannot have {} bytes: its file system, or the limit of file sizes (ulimit "
                  "-f), does not take such a large file; the disk is as it was",
                  bytes));
}

// What can be known before anything is changed.
Status CheckLimits(const ImageFiles& files, const Layout& wanted) {
  ADDCOW_TRY_ASSIGN(const FileInfo image, files.image->Info());
  // Past the end of the file there is nothing to punch; but that no file can be so long is
  // said.
  const Status last_byte = files.image->PunchHole(wanted.virtual_size() - 1, 1);
  if (wanted.virtual_size() > image.size_limit ||
      (!last_byte && last_byte.error().code() == EFBIG))
    return Fail(TooLarge(files.image_path, wanted.virtual_size()));
  ADDCOW_TRY_ASSIGN(const FileInfo add_cow, files.add_cow->Info());
  if (wanted.bitmap().padded_end() > add_cow.size_limit)
    return Fail(TooLarge(files.add_cow_path, wanted.bitmap().padded_end()));
  // A disk whose bits have no room in memory could not be opened any more.
  ADDCOW_TRY(AllocationBitmap::Create(wanted.clusters(), files.add_cow_path));
  return {};
}

// Says what the shorter disk would lack. Nothing is written for it.
Status RefuseToShrink(FileSystem& file_system, ImageFiles files, const ImageSource& source,
                      uint64_t size) {
  files.mode = OpenMode::kReadOnly;
  const std::string path = files.add_cow_path;
  ADDCOW_TRY_ASSIGN(const auto image, Image::Of(file_system, std::move(files), source, {}));
  const uint64_t lost = image->virtual_size() - size;
  uint64_t data = 0;
  ADDCOW_TRY(image->Map(size, lost, [&](const Extent& extent) {
    if (extent.data) data += extent.length;
    return true;
  }));
  return Fail(Error::Because(
      EINVAL, path,
      fmt::format("has {} bytes, of which the last {} would be lost, {} of them data (to cut "
                  "them off: --shrink)",
                  image->virtual_size(), lost, data)));
}

// Whether a subcluster bitmap of the one disk is also, by its place and length, one of the
// other.
bool SameSubclusterPlace(const Layout& a, const Layout& b) {
  const BitmapPlace of_a = a.subcluster_bitmap();
  const BitmapPlace of_b = b.subcluster_bitmap();
  return of_a.offset == of_b.offset && of_a.padded_end() == of_b.padded_end();
}

bool HasSubclusterBitmap(const Header& header) {
  return header.subclusters && !header.all_allocated;
}

// Copies up what could not be read right with the other size: a last, partial cluster in
// which the backing file goes on after the disk's end; and, where the subcluster bitmap
// cannot stay, all that need it.
Status CompleteBeforeResize(Image& image, const Layout& wanted, const ResizeOptions& options,
                            ResizeResult& result) {
  const ImageFiles& files = image.files();
  const Layout before = files.layout();
  const bool all_partial =
      HasSubclusterBitmap(files.header) && !SameSubclusterPlace(before, wanted);
  const uint64_t last = before.clusters() - 1;
  const bool last_cluster = wanted.virtual_size() > before.virtual_size() &&
                            before.virtual_size() % before.cluster_size() != 0 &&
                            image.backing().size() > before.virtual_size() &&
                            !image.bitmap().Test(last);
  const auto length = [&](uint64_t cluster) {
    return before.End(cluster + 1) - before.Start(cluster);
  };
  uint64_t total = 0;
  const auto next_partial = [&](uint64_t cluster) {
    return all_partial ? image.NextPartial(cluster) : before.clusters();
  };
  for (uint64_t at = next_partial(0); at < last; at = next_partial(at + 1)) total += length(at);
  const bool with_last = last_cluster || (all_partial && image.NextPartial(last) == last);
  if (with_last) total += length(last);
  if (total == 0) return {};
  const auto copy_up = [&](uint64_t cluster) -> Status {
    if (options.progress) options.progress(result.copied, total);
    ADDCOW_TRY(CheckInterrupted(options.interrupted, files.add_cow_path));
    ADDCOW_TRY(image.CopyUp({cluster, 1}));
    result.copied += length(cluster);
    return {};
  };
  for (uint64_t at = next_partial(0); at < last; at = next_partial(at + 1))
    ADDCOW_TRY(copy_up(at));
  if (with_last) ADDCOW_TRY(copy_up(last));
  if (options.progress) options.progress(total, total);
  return {};
}

// Clears the bits past the end of such a disk, and cuts off what comes after its bitmaps.
// Not synced.
Status ClearPastEnd(File& add_cow, const Header& header, const Layout& layout) {
  if (!HasSubclusterBitmap(header)) {
    // Where no second bitmap counts, nothing of it does.
    ADDCOW_TRY_ASSIGN(const uint64_t size, add_cow.Size());
    if (size > layout.bitmap().padded_end())
      ADDCOW_TRY(add_cow.Truncate(layout.bitmap().padded_end()));
  }
  ADDCOW_TRY_ASSIGN(const RawPlaces places, RawPlacesOf(add_cow, header, layout));
  ADDCOW_TRY(ClearRawBitsFrom(add_cow, places.clusters, layout.clusters()));
  return ClearRawBitsFrom(add_cow, places.subclusters, layout.subcluster_bitmap().bits);
}

// Gives the add-cow file the bits of the larger disk. Until the image file has grown they
// lie past its end, and nobody looks at them.
Status ExtendBits(File& add_cow, const Header& header, const Layout& before,
                  const Layout& after, uint64_t backing_size, const ResizeOptions& options) {
  ADDCOW_TRY(ClearPastEnd(add_cow, header, before));
  ADDCOW_TRY_ASSIGN(const uint64_t size, add_cow.Size());
  const uint64_t whole =
      (HasSubclusterBitmap(header) ? after.subcluster_bitmap() : after.bitmap()).padded_end();
  if (size < whole) ADDCOW_TRY(add_cow.Truncate(whole));
  // Where the backing file has something, a 0 bit would show it. The image file gets a
  // hole there, which reads as zeroes.
  const uint64_t hidden = header.all_allocated ? after.virtual_size()
                                               : std::min(backing_size, after.virtual_size());
  const uint64_t end = DivideUp(hidden, after.cluster_size());
  // Between two looks at whether to stop: a few MiB of bitmap.
  constexpr uint64_t kMostBitsAtOnce = 8 * 4 * kMiB;
  for (uint64_t first = before.clusters(); first < end; first += kMostBitsAtOnce) {
    ADDCOW_TRY(CheckInterrupted(options.interrupted, options.source.add_cow_path));
    ADDCOW_TRY(FillRawBits(add_cow, after.bitmap(),
                           {first, std::min(kMostBitsAtOnce, end - first)}, true));
  }
  // Durable before the image file's new size is: that size without these bits would show
  // the backing file's old data.
  return add_cow.SyncData();
}

Status Grow(const ImageFiles& files, const Header& header, const Layout& after,
            uint64_t backing_size, const ResizeOptions& options) {
  const Layout before = files.layout();
  File& add_cow = *files.add_cow;
  Status grown = ExtendBits(add_cow, header, before, after, backing_size, options);
  if (grown) {
    grown = files.image->Truncate(after.virtual_size());
    if (!grown && grown.error().code() == EFBIG)
      grown = Fail(TooLarge(files.image_path, after.virtual_size()));
  }
  if (!grown) {
    // What was set means nothing without the size: where it cannot be taken back, it stays.
    const auto size = files.image->Size();
    if (size && *size == before.virtual_size() && ClearPastEnd(add_cow, header, before))
      (void)add_cow.SyncData();
    return grown;
  }
  return files.image_sync->Sync();
}

// Also for the size that it has: then only what a killed one left is done.
Status Shrink(const ImageFiles& files, const Header& header, const Layout& after) {
  if (after.virtual_size() < files.virtual_size)
    ADDCOW_TRY(files.image->Truncate(after.virtual_size()));
  // Bits that are cleared while a crash may bring the longer file back would have it read
  // the backing file's data in place of what was written.
  ADDCOW_TRY(files.image_sync->Sync());
  ADDCOW_TRY(ClearPastEnd(*files.add_cow, header, after));
  return files.add_cow->SyncData();
}

}  // namespace

Result<ResizeResult> ResizeImage(FileSystem& file_system, const ResizeOptions& options,
                                 LogSink log) {
  ImageSource source = options.source;
  source.mode = OpenMode::kReadWrite;
  source.access.log = log;
  source.subclusters = false;  // what is copied up is whole clusters
  ADDCOW_TRY_ASSIGN(ImageFiles opened, OpenImageFiles(file_system, source));
  if (opened.not_writable) return Fail(*opened.not_writable);
  ADDCOW_TRY(RefuseDevices(opened));
  ResizeResult result{.old_size = opened.virtual_size};
  ADDCOW_TRY_ASSIGN(result.new_size, WantedSize(options.size, opened));
  const Layout after(result.new_size, opened.header.geometry());
  if (result.new_size < result.old_size && !options.shrink)
    return Fail(
        RefuseToShrink(file_system, std::move(opened), source, result.new_size).error());
  if (result.new_size > result.old_size) ADDCOW_TRY(CheckLimits(opened, after));

  ADDCOW_TRY_ASSIGN(const auto image,
                    Image::Of(file_system, std::move(opened), source, std::move(log)));
  const ImageFiles& files = image->files();
  const Status completed = CompleteBeforeResize(*image, after, options, result);
  const Status closed = image->Close();
  ADDCOW_TRY(completed);
  ADDCOW_TRY(closed);
  // As it is now: the flags may be others than when it was opened.
  ADDCOW_TRY_ASSIGN(const Header header, ReadHeader(*files.add_cow, files.add_cow_path));
  if (HasSubclusterBitmap(header) && !SameSubclusterPlace(files.layout(), after))
    return Fail(Error::Because(EIO, files.add_cow_path,
                               "still has a subcluster bitmap, whose place would be another "
                               "one (run it again)"));
  // Those that a killed process has written need not be durable: were the
  // file cut by them, a crash could bring SUBCLUSTERS back without its bitmap.
  ADDCOW_TRY(files.add_cow->SyncData());
  ADDCOW_TRY(CheckInterrupted(options.interrupted, files.add_cow_path));
  if (result.new_size > result.old_size)
    ADDCOW_TRY(Grow(files, header, after, image->backing().size(), options));
  else
    ADDCOW_TRY(Shrink(files, header, after));
  return result;
}

}  // namespace addcow
