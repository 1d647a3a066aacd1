// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See convert.h.

#include "common/ops/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "common/image/image.h"
#include "common/io/durable_create.h"
#include "common/ops/named_files.h"
#include "common/ops/new_add_cow.h"
#include "common/ops/raw_bitmap.h"

namespace addcow {

namespace {

Error HasChanged(const ImageFiles& files) {
  return Error::Because(EAGAIN, files.add_cow_path,
                        "was changed by another program meanwhile (try again)");
}

// What the image file has, cut into clusters of the new size.
Status VisitParts(const ImageFiles& files, const Header& header, const Layout& wanted,
                  const VisitClusterPart& visit) {
  const auto cut = [&](ByteRange range) { return CutByClusters(wanted, range, visit); };
  if (header.all_allocated) return cut({0, wanted.virtual_size()});
  const Layout layout(files.virtual_size, header.geometry());
  ADDCOW_TRY_ASSIGN(const RawPlaces places, RawPlacesOf(*files.add_cow, header, layout));
  return VisitAllocated(*files.add_cow, places, layout, cut);
}

// Copies up what is missing of the clusters that are there in part: of the new ones, in
// whole ones of before. Twice over them: to know how much it is, and to do it.
Status CompleteClusters(Image& image, const Layout& wanted, const ConvertOptions& options,
                        ConvertResult& result) {
  const ImageFiles& files = image.files();
  const Layout before = files.layout();
  const Layout& larger = wanted.cluster_size() > before.cluster_size() ? wanted : before;
  const auto for_each = [&](const std::function<Status(ByteRange)>& use) {
    uint64_t next = 0;  // clusters before this one are done
    return VisitParts(files, files.header, wanted, [&](const ClusterPart& part) -> Status {
      if (part.whole) return {};
      const uint64_t cluster = larger.ClusterOf(part.bytes.offset);
      if (cluster < next) return {};
      next = cluster + 1;
      return use({larger.Start(cluster), larger.End(next) - larger.Start(cluster)});
    });
  };
  uint64_t total = 0;
  ADDCOW_TRY(for_each([&](ByteRange range) -> Status {
    total += range.length;
    return {};
  }));
  // The bits in the file do not change before the flush.
  ADDCOW_TRY(for_each([&](ByteRange range) -> Status {
    if (options.progress) options.progress(result.copied, total);
    ADDCOW_TRY(CheckInterrupted(options.interrupted, files.add_cow_path));
    ADDCOW_TRY(image.CopyUp(before.Touched(range.offset, range.length)));
    result.copied += range.length;
    return {};
  }));
  if (options.progress) options.progress(total, total);
  return {};
}

Result<bool> AnyPart(const ImageFiles& files, const Layout& wanted) {
  bool any = false;
  ADDCOW_TRY(VisitParts(files, files.header, wanted, [&](const ClusterPart& part) -> Status {
    any = any || !part.whole;
    return {};
  }));
  return any;
}

// Optional features that this program does not know stay where the revision does. In
// another one their bits mean something else: bit 0 is one that nobody knows in version 1,
// and ALL_ALLOCATED in revision 20. A record of the backing file that is not understood
// is not copied, whose place moves with the header's length.
void DropUnknownFeatures(const std::string& add_cow, ConvertResult& result) {
  Header& after = result.after;
  after.optional_features &= ~kOptionalBackingIdentity;
  if (after.revision == result.before.revision) return;
  const uint64_t dropped = std::exchange(after.optional_features, 0);
  if (dropped == 0) return;
  result.notes.push_back(
      fmt::format("{}: unknown optional features ({:#x}) were left out: they belong to the "
                  "revision that it had",
                  add_cow, dropped));
}

// The new add-cow file.
Status FillNewFile(File& file, const ImageFiles& files, const Header& before,
                   const Header& after, const HeaderBytes& header_bytes) {
  const Layout layout(files.virtual_size, after.geometry());
  ADDCOW_TRY(WriteNewHeader(file, header_bytes));
  ADDCOW_TRY(file.Truncate(
      (after.subclusters ? layout.subcluster_bitmap() : layout.bitmap()).padded_end()));
  ADDCOW_TRY(WriteBitsOf(file, layout, [&](const VisitClusterPart& visit) {
    return VisitParts(files, before, layout, [&](const ClusterPart& part) -> Status {
      if (!part.whole && !after.subclusters) return Fail(HasChanged(files));
      return visit(part);
    });
  }));
  return after.all_allocated ? Status() : TakeStorageForBits(file, layout);
}

}  // namespace

Result<ConvertResult> ConvertImage(FileSystem& file_system, const ConvertOptions& options,
                                   LogSink log) {
  ImageSource source = options.source;
  source.mode = OpenMode::kReadWrite;
  source.want_backing = false;
  ADDCOW_TRY_ASSIGN(ImageFiles opened, OpenImageFiles(file_system, source));
  if (opened.not_writable) return Fail(*opened.not_writable);

  ConvertResult result{
      .before = opened.header, .after = opened.header, .virtual_size = opened.virtual_size};
  Header& after = result.after;
  after.revision = options.revision;
  after.cluster_size = options.cluster_size;
  after.no_subclusters = after.no_subclusters || !options.subclusters;
  if (after == result.before && !(after.subclusters && after.no_subclusters)) return result;
  ADDCOW_TRY(CheckMayReplaceAddCow(file_system, opened));
  result.notes = NotesOfLeftFiles(file_system, opened.add_cow_path);
  DropUnknownFeatures(opened.add_cow_path, result);
  if (after.backing_identity && !IdentityFits(after)) {
    after.backing_identity.reset();
    result.notes.emplace_back(kNoRoomForIdentity);
  }
  // Before anything is copied: names that do not fit are the user's business. Whether
  // there are subclusters is not known yet.
  after.subclusters = false;
  ADDCOW_TRY(SerializeHeader(after, opened.add_cow_path));

  const Layout layout(opened.virtual_size, after.geometry());
  ADDCOW_TRY_ASSIGN(const bool in_part, AnyPart(opened, layout));
  after.subclusters = in_part && !after.no_subclusters;
  std::unique_ptr<Image> image;
  const ImageFiles* files = &opened;
  if (in_part && after.no_subclusters) {
    opened = {};  // it is opened by the engine, with its backing file
    source.want_backing = true;
    ADDCOW_TRY_ASSIGN(image, Image::Open(file_system, source, std::move(log)));
    files = &image->files();
    if (files->not_writable) return Fail(*files->not_writable);
    // Meanwhile it was not locked: another program's change must not be undone.
    if (files->header != result.before || files->virtual_size != result.virtual_size)
      return Fail(HasChanged(*files));
    ADDCOW_TRY(TryReplacingAddCow(file_system, *files));
    const Status copied = CompleteClusters(*image, layout, options, result);
    const Status closed = image->Close();
    ADDCOW_TRY(copied);
    ADDCOW_TRY(closed);
  }
  // Of the file as it is now.
  ADDCOW_TRY_ASSIGN(const Header before, ReadHeader(*files->add_cow, files->add_cow_path));
  after.all_allocated = before.all_allocated;
  ADDCOW_TRY_ASSIGN(const HeaderBytes bytes, SerializeHeader(after, files->add_cow_path));
  ADDCOW_TRY_ASSIGN(const NewRights rights, RightsOf(*files->add_cow));
  ADDCOW_TRY(CheckInterrupted(options.interrupted, files->add_cow_path));
  bool in_place = false;
  const Status done = DurableCreate(
      file_system, files->add_cow_path, RenameMode::kReplace,
      [&](File& file) { return FillNewFile(file, *files, before, after, bytes); }, &in_place,
      rights);
  if (done) return result;
  if (in_place || result.copied == 0) return Fail(done.error());
  return Fail(done.error().WithNote(
      "the image is as before, but for clusters that were copied up; run it again to go on"));
}

}  // namespace addcow
