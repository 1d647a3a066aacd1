// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See rebase_data.h. Between the copying and the change of names the image is not locked
// for a moment. Whoever writes to the disk then has that in the image file; what is not there
// was the same in both backing files. An image of another size, or whose add-cow file another
// command has written anew, is not the one that was looked at.

#include "common/ops/rebase_data.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/units.h"
#include "common/image/backing.h"
#include "common/image/image.h"
#include "common/ops/named_files.h"
#include "common/ops/new_add_cow.h"

namespace addcow {

namespace {

constexpr uint64_t kRebasePiece = 4 * kMiB;      // compared at once; whole grains of any image
constexpr uint64_t kRebaseCommand = 256 * kKiB;  // of what is read from a slow one

// Of any failure that comes after the first byte was copied.
constexpr const char* kStillOnOld =
    "the disk is still on its old backing file; run it again to go on";

class DifferenceCopier {
 public:
  // `now`: the new backing file, without a source if there is none.
  DifferenceCopier(Image& image, const Backing& now)
      : image_(image), now_(now), old_bytes_(kRebasePiece), new_bytes_(kRebasePiece) {}

  // What is not in the image file of [offset, limit), from its beginning. Where it ended.
  Result<uint64_t> Step(uint64_t offset, uint64_t limit) {
    // The old backing file may end in the middle of a grain; what is not there goes on.
    uint64_t missing = offset;
    while (missing < limit) {
      const Image::Place place = image_.PlaceAt(missing, limit);
      if (place.source == Extent::Source::kImage) {
        if (missing == offset) return place.end;
        break;
      }
      missing = place.end;
    }
    const Backing::Hold hold(image_.backing());
    ADDCOW_TRY_ASSIGN(const DataRun before, RunAt(image_.backing(), offset, missing));
    ADDCOW_TRY_ASSIGN(const DataRun after, RunAt(now_, offset, missing));
    const uint64_t zero_end =
        std::min(before.data ? offset : before.end, after.data ? offset : after.end);
    const uint64_t grain = image_.grain();
    // Of a grain that is data in part, all is looked at.
    const uint64_t zeroes = zero_end == missing ? zero_end : RoundDown(zero_end, grain);
    if (zeroes > offset) return zeroes;
    const uint64_t end = std::min(RoundDown(offset, kRebasePiece) + kRebasePiece, missing);
    const auto of_old = std::span(old_bytes_).first(static_cast<size_t>(end - offset));
    const auto of_new = std::span(new_bytes_).first(of_old.size());
    ADDCOW_TRY(ReadAll(image_.backing(), of_old, offset));
    ADDCOW_TRY(ReadAll(now_, of_new, offset));
    ADDCOW_TRY(KeepWhatDiffers(of_old, of_new, offset, grain));
    return end;
  }

 private:
  static Result<DataRun> RunAt(const Backing& backing, uint64_t offset, uint64_t end) {
    if (offset >= backing.size()) return DataRun{false, end};
    return backing.RunAt(offset, end);
  }

  static Status ReadAll(const Backing& backing, std::span<std::byte> buffer, uint64_t offset) {
    if (backing.pieces_at_once() <= 1) return backing.Read(buffer, offset);
    std::vector<Source::Piece> pieces;
    for (size_t at = 0; at < buffer.size(); at += kRebaseCommand)
      pieces.push_back(
          {buffer.subspan(at, std::min<size_t>(kRebaseCommand, buffer.size() - at)),
           offset + at});
    return backing.ReadPieces(pieces, {});
  }

  Status KeepWhatDiffers(std::span<const std::byte> of_old, std::span<const std::byte> of_new,
                         uint64_t offset, uint64_t grain) {
    const size_t size = of_old.size();
    const auto differs = [&](size_t at) {
      const size_t count = std::min<size_t>(static_cast<size_t>(grain), size - at);
      return std::memcmp(of_old.data() + at, of_new.data() + at, count) != 0;
    };
    for (size_t at = 0; at < size;) {
      size_t end = at;
      while (end < size && differs(end)) end = std::min(end + static_cast<size_t>(grain), size);
      if (end > at) ADDCOW_TRY(image_.Keep(of_old.subspan(at, end - at), offset + at));
      at = end;
      while (at < size && !differs(at)) at += static_cast<size_t>(grain);
    }
    return {};
  }

  Image& image_;
  const Backing& now_;
  std::vector<std::byte> old_bytes_;
  std::vector<std::byte> new_bytes_;
};

Status CopyDifferences(Image& image, const Backing& now, const RebaseOptions& options,
                       const RebaseProgress& progress) {
  const uint64_t size = image.virtual_size();
  DifferenceCopier copier(image, now);
  for (uint64_t at = 0; at < size;) {
    progress(at, size);
    ADDCOW_TRY(CheckInterrupted(options.access.interrupted, image.files().add_cow_path));
    ADDCOW_TRY_ASSIGN(at, copier.Step(at, std::min(RoundDown(at, kGiB) + kGiB, size)));
  }
  progress(size, size);
  return {};
}

// That the new header has room for the names.
Status CheckNamesFit(const ImageFiles& files, const RebaseOptions& options) {
  Header after = files.header;
  after.backing = options.backing;
  after.backing_identity.reset();
  after.optional_features &= ~kOptionalBackingIdentity;
  ADDCOW_TRY(SerializeHeader(after, files.add_cow_path));
  return {};
}

}  // namespace

Result<RebaseResult> RebaseSafely(FileSystem& file_system, const RebaseOptions& options,
                                  LogSink log, const RebaseProgress& progress) {
  RebaseOptions names = options;
  names.same_without = true;
  // Locked for reading until the names have changed, so that it is what was compared.
  std::unique_ptr<Backing> now;
  std::string path;
  {
    Base base;
    ADDCOW_TRY_ASSIGN(auto image, Image::Open(file_system,
                                              {.add_cow_path = options.add_cow_path,
                                               .mode = OpenMode::kReadWrite,
                                               .access = options.access,
                                               .remedy_is_rebase = true},
                                              std::move(log)));
    const ImageFiles& files = image->files();
    if (files.not_writable) return Fail(*files.not_writable);
    ADDCOW_TRY(CheckMayReplaceAddCow(file_system, files));
    ADDCOW_TRY(CheckNamesFit(files, options));
    if (options.backing) {
      ADDCOW_TRY_ASSIGN(
          base, OpenNamedBacking(file_system, *options.backing, DirectoryOf(files.add_cow_path),
                                 files.add_cow.get(), files.image.get(), options.access));
      ADDCOW_TRY(CheckNotOfBase(*files.image, base));
    }
    ADDCOW_TRY(TryReplacingAddCow(file_system, files));
    ADDCOW_TRY(image->Start());
    now = std::make_unique<Backing>(std::move(base.source));
    if (options.backing) ADDCOW_TRY(now->Start());
    const Status copied = CopyDifferences(*image, *now, options, progress);
    const Status closed = image->Close();
    for (const Status* const done : {&copied, &closed})
      if (!*done) return Fail(done->error().WithNote(kStillOnOld));
    path = files.add_cow_path;
    ADDCOW_TRY_ASSIGN(const FileInfo add_cow, files.add_cow->Info());
    names.expected = {.add_cow = add_cow, .virtual_size = image->virtual_size()};
  }
  auto rebased = RebaseUnsafely(file_system, names);
  if (rebased) return rebased;
  // Of a directory that could not be synced the new file may be there.
  const auto there = file_system.Identify(path);
  const bool replaced = there && !there->SameFile(names.expected->add_cow);
  return replaced ? rebased : Fail(rebased.error().WithNote(kStillOnOld));
}

}  // namespace addcow
