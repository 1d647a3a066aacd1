// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Fuzzes the engine: opens the files that the input describes (scene.h) and
// runs a script of operations on the disk. An operation of the script is
//
//   1 byte: what (low 4 bits) and options (high 4)
//   5 bytes: offset, as a size is encoded; modulo the disk's size and a bit
//   3 bytes: length, up to 256 KiB, or a bit more than a cluster
//
// Properties:
//   - Files are opened if and only if docs/format.md, read independently,
//     lets them; an open reads no more than the storage there is.
//   - What is refused, and what is opened for reading only, is not modified.
//   - Every read is what the model says, also at the end from the files
//     alone, and after a close or a kill followed by another open.
//   - Bits go from 0 to 1 only; a bit in the file is set in memory; after a
//     flush the file's are memory's. What is written becomes allocated, and with
//     subclusters nothing else does. This holds for clusters by their bitmap in memory
//     and in the file, and for subclusters by the map and both bitmaps in the file.
//   - SUBCLUSTERS is not set where it may not be, nor left by a close that finds no
//     subcluster that needs it.
//   - The backing file never changes.
//   - A map covers its range without gaps, each part from where it comes, and
//     what it calls a hole reads as zeroes.

#include <cstring>
#include <optional>
#include <set>
#include <vector>

#include "common/base/zero_bytes.h"
#include "common/image/image.h"
#include "common/ops/check.h"
#include "fuzz/allocation_watch.h"
#include "fuzz/disk_model.h"
#include "fuzz/image_view.h"
#include "fuzz/must.h"
#include "fuzz/open_meter.h"
#include "fuzz/scene.h"
#include "tests/support/test_image.h"

namespace addcow::fuzz {

AcceptedInputs accepted_inputs;

namespace {

constexpr int kMaxOperations = 24;
constexpr uint64_t kMaxChecked = kMiB;  // bytes of bitmaps, but for their padding
constexpr uint64_t kMaxMap = 16 * kMiB;
constexpr uint64_t kMaxHole = 256 * kKiB;  // of which is looked whether it is zero

enum Option : unsigned { kFua = 0x10, kKeepStorage = 0x20, kFastOnly = 0x40, kAligned = 0x80 };

class Session {
 public:
  explicit Session(Scene& scene)
      : scene_(scene),
        read_only_((scene.flags & (kReadOnly | kAddCowReadOnly)) != 0),
        before_(scene.files.Clone()) {}

  void Run(Input& input) {
    const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
    if (!Open(disk.has_value(), disk && disk->IsSurelyOpened())) {
      FUZZ_MUST(SameFiles(*before_, scene_.files), "a refused file was modified");
      return;
    }
    accepted_inputs.Count(disk->header().revision);
    FUZZ_MUST(image_->virtual_size() == disk->size(), "the virtual size");
    FUZZ_MUST(image_->writable() == !read_only_, "whether it can be written");
    CheckAll();
    for (int i = 0; i < kMaxOperations && !input.empty(); i++) Operation(input);
    Reopen(true);
    image_.reset();
    CheckFiles();
    if (read_only_) FUZZ_MUST(SameFiles(*before_, scene_.files), "read only, but changed");
  }

 private:
  const DiskByTheRules& start() const { return model_->start(); }
  uint64_t size() const { return start().size(); }
  // A cluster fits into the longest request.
  uint64_t MaxLength() const { return std::max(256 * kKiB, start().cluster() + 64 * kKiB); }

  // False: refused. `sure`: not for want of memory.
  bool Open(bool must_open, bool sure) {
    OpenMeter meter;
    ForwardingFileSystem metered(scene_.files, meter);
    ImageSource source;
    source.add_cow_path = kAddCow;
    source.subclusters = scene_.subclusters;
    source.mode = (scene_.flags & kReadOnly) != 0 ? OpenMode::kReadOnly : OpenMode::kReadWrite;
    {
      const auto image = Image::Open(metered, source, nullptr);
      meter.MustBeBounded(*scene_.files.Find(kAddCow));
      if (!image) {
        MustBeSound(image.error());
        const bool no_memory = image.error().code() == ENOMEM && !sure;
        FUZZ_MUST(!must_open || no_memory, "refused, but by the rules it is sound: {}",
                  image.error().Message());
        return false;
      }
      FUZZ_MUST(must_open, "opened, but by the rules it must be refused");
    }
    const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
    FUZZ_MUST(disk.has_value(), "opening it made it unsound");
    used_ = false;
    auto image = Image::Open(scene_.files, source, nullptr);
    FUZZ_MUST_SUCCEED(image, "opening it a second time");
    image_ = std::move(*image);
    if (!model_) model_.emplace(*disk);
    if (!watch_) watch_.emplace(scene_, *model_, read_only_);
    watch_->Opened(*image_, *disk);
    return true;
  }

  // As a new process does; the old one ended well (`close`) or was killed.
  void Reopen(bool close) {
    if (close) FUZZ_MUST_SUCCEED(image_->Close(), "close");
    const Allocated last = watch_->Now();
    image_.reset();
    const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
    FUZZ_MUST(disk.has_value(), "the files are not sound any more");
    watch_->MustBeOnDisk(last, *disk, close);
    // What was not flushed may be lost: the backing file shows again.
    for (const uint64_t subcluster : watch_->Subclusters())
      if (!disk->IsInImage(subcluster)) model_->Forget(subcluster);
    if (close && used_)
      FUZZ_MUST(!disk->header().subclusters || disk->AnyPartial(),
                "SUBCLUSTERS was left, but no subcluster needs it");
    watch_->MustHaveRightFeatures(*disk);
    FUZZ_MUST(Open(true, disk->IsSurelyOpened()), "it cannot be opened again");
    CheckAll();
  }

  void Operation(Input& input) {
    const unsigned code = input.Byte();
    uint64_t offset = input.Size() % (size() + 4096);
    if ((code & kAligned) != 0) offset -= offset % start().cluster();
    const uint64_t length = input.Number(3) % (MaxLength() + 1);
    switch (code % 16) {
      case 0:
      case 1:
      case 2:
      case 3:
        return Write(code, offset, length);
      case 4:
      case 5:
      case 6:
        return Zero(code, offset, length);
      case 7:
        return Read(offset, length);
      case 8:
        return Flush();
      case 9:
        return Map(offset, length);
      case 10:
        return CopyUp(offset / start().cluster(), length % 5);
      case 11:
        return Reopen(true);
      case 12:
        return Reopen(false);
      case 13:
        return Map(0, std::min(size(), kMaxMap));
      case 14:
        return Prefetch(offset, length);
      case 15:
        return Zero(code, 0, size() <= kMiB ? size() : MaxLength());
    }
  }

  // A change of the range: the status that it must have, before its effect.
  // True: it was done.
  bool MustBeRight(const Status& status, const char* what, uint64_t offset, uint64_t length) {
    if (!status) MustBeSound(status.error());
    const bool fits = offset <= size() && length <= size() - offset;
    const int wanted = read_only_ ? EROFS : fits ? 0 : ENOSPC;
    const int code = status ? 0 : status.error().code();
    FUZZ_MUST(code == wanted, "{} of {}+{} gives errno {}, expected {}: {}", what, offset,
              length, code, wanted, status ? "" : status.error().Message());
    used_ = used_ || code == 0;
    return code == 0;
  }

  void Write(unsigned code, uint64_t offset, uint64_t length) {
    std::vector<std::byte> data(length);
    for (size_t i = 0; i < data.size(); i += 256)
      std::memset(data.data() + i, static_cast<int>(++stamp_ % 255 + 1),
                  std::min<size_t>(256, data.size() - i));
    const Fua fua = (code & kFua) != 0 ? Fua::kYes : Fua::kNo;
    const std::set<uint64_t> before = watch_->live();
    const bool done = MustBeRight(image_->Write(data, offset, fua), "write", offset, length);
    if (done) model_->Write(offset, data);
    CheckAround(offset, length);
    if (!done) return;
    const uint64_t stop = offset + length;
    for (uint64_t at = offset; at < stop; at = start().EndOf(at / start().cluster())) {
      const uint64_t cluster = at / start().cluster();
      const uint64_t end = start().EndOf(cluster);
      // What was in the image file in pieces may stay so.
      const bool covered = at == start().Start(cluster) && end <= stop &&
                           !(fua == Fua::kYes && watch_->IsIn(before, at, end));
      if (covered || !watch_->may_get_subclusters())
        FUZZ_MUST(image_->bitmap().Test(cluster), "cluster {} was written, but is unallocated",
                  cluster);
    }
    for (uint64_t at = offset; at < stop; at = NextSubcluster(at))
      FUZZ_MUST(watch_->live().contains(at / kSubcluster),
                "subcluster {} was written, but is unallocated", at / kSubcluster);
    if (fua == Fua::kYes) watch_->Flushed(offset, length);
  }

  void Zero(unsigned code, uint64_t offset, uint64_t length) {
    const ZeroOptions options{.may_punch = (code & kKeepStorage) == 0,
                              .fast_only = (code & kFastOnly) != 0};
    const Fua fua = (code & kFua) != 0 ? Fua::kYes : Fua::kNo;
    const Status done = image_->Zero(offset, length, options, fua);
    if (!done && done.error().code() == EOPNOTSUPP && options.fast_only && !read_only_) {
      AdoptPartlyZeroed(offset, length);
    } else if (MustBeRight(done, "zero", offset, length)) {
      model_->Write(offset, std::vector<std::byte>(length));
      if (fua == Fua::kYes) watch_->Flushed();
    }
    CheckAround(offset, length);
  }

  // A fast zero that gave up: each byte is zero or what it was.
  void AdoptPartlyZeroed(uint64_t offset, uint64_t length) {
    FUZZ_MUST(offset <= size() && length <= size() - offset, "EOPNOTSUPP past the end");
    const auto old_bytes = model_->Bytes(offset, length);
    std::vector<std::byte> bytes(length, std::byte{0xee});
    FUZZ_MUST_SUCCEED(image_->Read(bytes, offset), "read");
    for (size_t i = 0; i < bytes.size(); i++)
      FUZZ_MUST(bytes[i] == std::byte{0} || bytes[i] == old_bytes[i], "byte {} is neither",
                offset + i);
    model_->Write(offset, bytes);
  }

  void Read(uint64_t offset, uint64_t length) {
    std::vector<std::byte> bytes(length, std::byte{0xee});
    const Status done = image_->Read(bytes, offset);
    if (offset > size() || length > size() - offset) {
      FUZZ_MUST(!done && done.error().code() == EINVAL, "a read past the end");
      return;
    }
    FUZZ_MUST_SUCCEED(done, "read");
    const std::string wrong = Difference(bytes, model_->Bytes(offset, length), offset);
    FUZZ_MUST(wrong.empty(), "read of {}+{}: {}", offset, length, wrong);
  }

  void Flush() {
    FUZZ_MUST_SUCCEED(image_->Flush(), "flush");
    if (read_only_) return;
    used_ = true;
    watch_->Flushed();
  }

  void CopyUp(uint64_t first, uint64_t count) {
    const uint64_t clusters = start().clusters();
    const Status done = image_->CopyUp({first, count});
    if (count == 0) return;
    if (first > clusters || count > clusters - first) {
      FUZZ_MUST(!done, "clusters past the end are copied up");
      return;
    }
    if (!MustBeRight(done, "copy up", 0, 0)) return;
    for (uint64_t i = first; i < first + count; i++) {
      FUZZ_MUST(image_->bitmap().Test(i), "cluster {} was copied up, but is unallocated", i);
      // Same bytes, but from now on they are the image file's: watched.
      const uint64_t at = start().Start(i);
      model_->Write(at, model_->Bytes(at, start().EndOf(i) - at));
    }
    watch_->Look();
  }

  void Prefetch(uint64_t offset, uint64_t length) {
    const Status done = image_->Prefetch(offset, length);
    const bool fits = offset <= size() && length <= size() - offset;
    FUZZ_MUST(done.has_value() == fits, "prefetch of {}+{}", offset, length);
  }

  void Map(uint64_t offset, uint64_t length) {
    uint64_t at = offset;
    std::optional<Extent> last;
    const std::vector<uint64_t> watched = watch_->Subclusters();
    const Status done = image_->Map(offset, length, [&](const Extent& extent) {
      FUZZ_MUST(extent.offset == at && extent.length > 0, "a gap in the map at {}", at);
      at += extent.length;
      FUZZ_MUST(at <= offset + length, "the map leaves its range");
      FUZZ_MUST(!last || last->source != extent.source || last->data != extent.data,
                "neighbours alike at {}", extent.offset);
      last = extent;
      CheckExtent(extent, watched);
      return true;
    });
    if (offset > size() || length > size() - offset) {
      FUZZ_MUST(!done && done.error().code() == EINVAL, "a map past the end");
      return;
    }
    FUZZ_MUST_SUCCEED(done, "map");
    FUZZ_MUST(at == offset + length, "the map ends at {}, not {}", at, offset + length);
  }

  void CheckExtent(const Extent& extent, const std::vector<uint64_t>& watched) {
    const uint64_t end = extent.offset + extent.length;
    // The end of the backing file is rounded to a whole sector.
    const uint64_t backing_end = DivideUp(start().backing_size(), 512) * 512;
    const bool image = extent.source == Extent::Source::kImage;
    const bool supplied = extent.source == Extent::Source::kBacking;
    for (auto at = std::ranges::lower_bound(watched, extent.offset / kSubcluster);
         at != watched.end() && *at * kSubcluster < end; ++at)
      FUZZ_MUST(image == watch_->live().contains(*at), "where subcluster {} comes from", *at);
    if (supplied)
      FUZZ_MUST(end <= backing_end, "the map goes past the end of the backing file");
    if (!supplied && !image)
      FUZZ_MUST(extent.offset >= backing_end && !extent.data, "nobody has {}", extent.offset);
    if (extent.data) return;
    const auto bytes = model_->Bytes(extent.offset, std::min(extent.length, kMaxHole));
    FUZZ_MUST(IsZero(bytes), "a hole at {} that is not zero", extent.offset);
  }

  // What an operation changed, and what is next to it.
  void CheckAround(uint64_t offset, uint64_t length) {
    const uint64_t from = offset > 5000 ? offset - 5000 : 0;
    if (from >= size()) return;
    Read(from, std::min(size() - from, length + 10000));
    watch_->Look();
  }

  void CheckAll() {
    for (const uint64_t cluster : watch_->Clusters())
      Read(start().Start(cluster), start().EndOf(cluster) - start().Start(cluster));
    watch_->LookAfresh();
  }

  // At the end, from what is on the disk.
  void CheckFiles() {
    const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
    FUZZ_MUST(disk.has_value(), "the files are not sound any more");
    for (const uint64_t cluster : watch_->Clusters()) {
      const uint64_t at = disk->Start(cluster);
      const uint64_t length = disk->EndOf(cluster) - at;
      const auto wrong = Difference(disk->Bytes(at, length), model_->Bytes(at, length), at);
      FUZZ_MUST(wrong.empty(), "the files: {}", wrong);
    }
    FUZZ_MUST(disk->OthersAreSame(*before_, scene_.files), "another file was changed");
    const HeaderFields& header = disk->header();
    if (disk->add_cow().size() > kMaxChecked + header.header_bytes + 2 * header.bitmap_unit)
      return;
    const auto report = CheckImage(scene_.files, kAddCow, Repair::kNone);
    FUZZ_MUST_SUCCEED(report, "check");
    FUZZ_MUST(!report->error, "check: {}", report->error->Message());
    // Only bits that the input itself left out under ALL_ALLOCATED.
    FUZZ_MUST(report->missing_bits == 0 || start().header().all_allocated,
              "{} bits are missing", report->missing_bits);
    FUZZ_MUST(report->unpadded == disk->IsUnpadded(), "whether it is padded");
  }

  Scene& scene_;
  const bool read_only_;
  const std::unique_ptr<FakeFileSystem> before_;
  std::unique_ptr<Image> image_;
  std::optional<DiskModel> model_;
  std::optional<AllocationWatch> watch_;
  bool used_ = false;  // since the last open something has changed, or was flushed
  uint64_t stamp_ = 0;
};

}  // namespace
}  // namespace addcow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  addcow::fuzz::Input input(data, size);
  const auto scene = addcow::fuzz::MakeScene(input);
  addcow::fuzz::Session(*scene).Run(input);
  return 0;
}
