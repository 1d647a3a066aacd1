// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Fuzzes the engine: opens the files that the input describes (scene.h) and
// runs a script of operations on the disk. An operation of the script is
//
//   1 byte: what (low 4 bits) and options (high 4)
//   5 bytes: offset, as a size is encoded; modulo the disk's size and a bit
//   3 bytes: length, up to 256 KiB
//
// Properties:
//   - Files are opened if and only if docs/format.md, read independently,
//     lets them; an open reads no more than the storage there is.
//   - What is refused, and what is opened for reading only, is not modified.
//   - Every read is what the model says, also at the end from the files
//     alone, and after a close or a kill followed by another open.
//   - Bits go from 0 to 1 only; a bit in the file is set in memory; after a
//     flush the file's are memory's. What is written becomes allocated.
//   - The backing file never changes.
//   - A map covers its range without gaps, each part from where it comes, and
//     what it calls a hole reads as zeroes.

#include <cstring>
#include <optional>
#include <set>

#include "common/base/zero_bytes.h"
#include "common/image/image.h"
#include "common/ops/check.h"
#include "fuzz/disk_model.h"
#include "fuzz/must.h"
#include "fuzz/open_meter.h"
#include "fuzz/scene.h"
#include "tests/support/test_image.h"

namespace addcow::fuzz {

unsigned long accepted_inputs = 0;

namespace {

constexpr int kMaxOperations = 24;
constexpr uint64_t kMaxLength = 256 * kKiB;
constexpr uint64_t kMaxChecked = kMiB;  // bytes of add-cow file
constexpr uint64_t kMaxMap = 16 * kMiB;
// The bitmap of a larger one may be more than the address space takes.
constexpr uint64_t kSurelyOpened = 1024 * kTiB;

enum Option : unsigned { kFua = 0x10, kKeepStorage = 0x20, kFastOnly = 0x40, kAligned = 0x80 };

class Session {
 public:
  explicit Session(Scene& scene)
      : scene_(scene),
        read_only_((scene.flags & (kReadOnly | kAddCowReadOnly)) != 0),
        before_(scene.files.Clone()) {}

  void Run(Input& input) {
    const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
    if (!Open(disk.has_value(), disk ? disk->size() : 0)) {
      FUZZ_MUST(SameFiles(*before_, scene_.files), "a refused file was modified");
      return;
    }
    accepted_inputs++;
    model_.emplace(*disk);
    FUZZ_MUST(image_->virtual_size() == disk->size(), "the virtual size");
    FUZZ_MUST(image_->writable() == !read_only_, "whether it can be written");
    sample_ = disk->Sample();
    CheckAll();
    for (int i = 0; i < kMaxOperations && !input.empty(); i++) Operation(input);
    Reopen(true);
    image_.reset();
    CheckFiles();
    if (read_only_) FUZZ_MUST(SameFiles(*before_, scene_.files), "read only, but changed");
  }

 private:
  uint64_t size() const { return model_->start().size(); }

  // False: refused.
  bool Open(bool must_open, uint64_t disk_size) {
    OpenMeter meter;
    ForwardingFileSystem metered(scene_.files, meter);
    ImageSource source;
    source.add_cow_path = kAddCow;
    source.mode = (scene_.flags & kReadOnly) != 0 ? OpenMode::kReadOnly : OpenMode::kReadWrite;
    {
      const auto image = Image::Open(metered, source, nullptr);
      meter.MustBeBounded(*scene_.files.Find(kAddCow));
      if (!image) {
        MustBeSound(image.error());
        const bool no_memory = image.error().code() == ENOMEM && disk_size > kSurelyOpened;
        FUZZ_MUST(!must_open || no_memory, "refused, but by the rules it is sound: {}",
                  image.error().Message());
        return false;
      }
      FUZZ_MUST(must_open, "opened, but by the rules it must be refused");
    }
    auto image = Image::Open(scene_.files, source, nullptr);
    FUZZ_MUST_SUCCEED(image, "opening it a second time");
    image_ = std::move(*image);
    return true;
  }

  // As a new process does; the old one ended well (`close`) or was killed.
  void Reopen(bool close) {
    if (close) FUZZ_MUST_SUCCEED(image_->Close(), "close");
    std::set<uint64_t> allocated;
    for (const uint64_t cluster : Watched())
      if (image_->bitmap().Test(cluster)) allocated.insert(cluster);
    image_.reset();
    const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
    FUZZ_MUST(disk.has_value(), "the files are not sound any more");
    for (const uint64_t cluster : Watched()) {
      const bool on_disk = disk->IsAllocated(cluster);
      FUZZ_MUST(!on_disk || allocated.contains(cluster), "bit {} came out of nothing", cluster);
      FUZZ_MUST(on_disk || !close || read_only_ || !allocated.contains(cluster),
                "bit {} was lost by a close", cluster);
      FUZZ_MUST(on_disk || !durable_.contains(cluster), "bit {} went from 1 to 0", cluster);
      // What was not flushed may be lost: the backing file shows again.
      if (!on_disk) model_->Forget(cluster);
    }
    FUZZ_MUST(Open(true, size()), "it cannot be opened again");
    CheckAll();
  }

  void Operation(Input& input) {
    const unsigned code = input.Byte();
    uint64_t offset = input.Size() % (size() + 4096);
    if ((code & kAligned) != 0) offset -= offset % kCluster;
    const uint64_t length = input.Number(3) % (kMaxLength + 1);
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
        return CopyUp(offset / kCluster, length % 5);
      case 11:
        return Reopen(true);
      case 12:
        return Reopen(false);
      case 13:
        return Map(0, std::min(size(), kMaxMap));
      case 14:
        return Prefetch(offset, length);
      case 15:
        return Zero(code, 0, size() <= kMiB ? size() : kMaxLength);
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
    return code == 0;
  }

  void Write(unsigned code, uint64_t offset, uint64_t length) {
    std::vector<std::byte> data(length);
    for (size_t i = 0; i < data.size(); i += 256)
      std::memset(data.data() + i, static_cast<int>(++stamp_ % 255 + 1),
                  std::min<size_t>(256, data.size() - i));
    const Fua fua = (code & kFua) != 0 ? Fua::kYes : Fua::kNo;
    if (MustBeRight(image_->Write(data, offset, fua), "write", offset, length)) {
      model_->Write(offset, data);
      for (uint64_t at = offset; at < offset + length;
           at = model_->start().EndOf(at / kCluster)) {
        const uint64_t end = model_->start().EndOf(at / kCluster);
        const bool covered = at % kCluster == 0 && end <= offset + length;
        // The copy-up of another one may be deferred, but not beyond a FUA.
        if (covered || fua == Fua::kYes)
          FUZZ_MUST(image_->bitmap().Test(at / kCluster),
                    "cluster {} was written, but is unallocated", at / kCluster);
      }
      if (fua == Fua::kYes) Flushed(offset, length);
    }
    CheckAround(offset, length);
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
      if (fua == Fua::kYes) Flushed();
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
    if (!read_only_) Flushed();
  }

  void CopyUp(uint64_t first, uint64_t count) {
    const uint64_t clusters = model_->start().clusters();
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
      const uint64_t start = i * kCluster;
      model_->Write(start, model_->Bytes(start, model_->start().EndOf(i) - start));
    }
  }

  void Prefetch(uint64_t offset, uint64_t length) {
    const Status done = image_->Prefetch(offset, length);
    const bool fits = offset <= size() && length <= size() - offset;
    FUZZ_MUST(done.has_value() == fits, "prefetch of {}+{}", offset, length);
  }

  void Map(uint64_t offset, uint64_t length) {
    uint64_t at = offset;
    std::optional<Extent> last;
    const std::set<uint64_t> watched = Watched();
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

  void CheckExtent(const Extent& extent, const std::set<uint64_t>& watched) {
    const uint64_t end = extent.offset + extent.length;
    // The end of the backing file is rounded to a whole sector.
    const uint64_t backing_end = DivideUp(model_->start().backing_size(), 512) * 512;
    const bool image = extent.source == Extent::Source::kImage;
    const bool supplied = extent.source == Extent::Source::kBacking;
    for (auto at = watched.lower_bound(extent.offset / kCluster);
         at != watched.end() && *at * kCluster < end; ++at)
      // What a partial cluster has in the image file was written by this process.
      FUZZ_MUST(image_->bitmap().Test(*at) ? image : !image || model_->changed().contains(*at),
                "where cluster {} comes from", *at);
    if (supplied)
      FUZZ_MUST(end <= backing_end, "the map goes past the end of the backing file");
    if (!supplied && !image)
      FUZZ_MUST(extent.offset >= backing_end && !extent.data, "nobody has {}", extent.offset);
    if (extent.data) return;
    const auto bytes = model_->Bytes(extent.offset, std::min(extent.length, kMaxLength));
    FUZZ_MUST(IsZero(bytes), "a hole at {} that is not zero", extent.offset);
  }

  // The clusters that are looked at: the sample, and what was changed.
  std::set<uint64_t> Watched() const {
    std::set<uint64_t> watched(sample_.begin(), sample_.end());
    for (const auto& [cluster, bytes] : model_->changed()) watched.insert(cluster);
    return watched;
  }

  // A FUA write succeeded: its clusters are allocated on the disk.
  void Flushed(uint64_t offset, uint64_t length) {
    const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
    FUZZ_MUST(disk.has_value(), "the files are not sound after a FUA write");
    for (uint64_t at = offset; at < offset + length;
         at = model_->start().EndOf(at / kCluster)) {
      FUZZ_MUST(disk->IsAllocated(at / kCluster),
                "written with FUA, but bit {} is 0 on the disk", at / kCluster);
      durable_.insert(at / kCluster);
    }
  }

  // A flush succeeded: what is allocated is so on the disk.
  void Flushed() {
    const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
    FUZZ_MUST(disk.has_value(), "the files are not sound after a flush");
    for (const uint64_t cluster : Watched()) {
      const bool live = image_->bitmap().Test(cluster);
      FUZZ_MUST(disk->IsAllocated(cluster) == live, "flushed, but bit {} is {} on the disk",
                cluster, !live);
      if (live) durable_.insert(cluster);
    }
    FUZZ_MUST(disk->header().all_allocated == image_->bitmap().all(), "ALL_ALLOCATED");
  }

  // What an operation changed, and what is next to it.
  void CheckAround(uint64_t offset, uint64_t length) {
    const uint64_t start = offset > 5000 ? offset - 5000 : 0;
    if (start >= size()) return;
    Read(start, std::min(size() - start, length + 10000));
    CheckBits();
  }

  void CheckBits() {
    for (const uint64_t cluster : Watched()) {
      const bool set = image_->bitmap().Test(cluster);
      FUZZ_MUST(set || !allocated_.contains(cluster), "bit {} went from 1 to 0", cluster);
      if (set) allocated_.insert(cluster);
    }
  }

  void CheckAll() {
    for (const uint64_t cluster : Watched())
      Read(cluster * kCluster, model_->start().EndOf(cluster) - cluster * kCluster);
    allocated_.clear();  // a kill may have lost some
    CheckBits();
  }

  // At the end, from what is on the disk.
  void CheckFiles() {
    const auto disk = DiskByTheRules::Read(scene_.files, kAddCow);
    FUZZ_MUST(disk.has_value(), "the files are not sound any more");
    for (const uint64_t cluster : Watched()) {
      const uint64_t start = cluster * kCluster;
      const uint64_t length = disk->EndOf(cluster) - start;
      const auto wrong =
          Difference(disk->Bytes(start, length), model_->Bytes(start, length), start);
      FUZZ_MUST(wrong.empty(), "the files: {}", wrong);
    }
    FUZZ_MUST(disk->OthersAreSame(*before_, scene_.files), "another file was changed");
    if (disk->add_cow().size() > kMaxChecked) return;
    const auto report = CheckImage(scene_.files, kAddCow, Repair::kNone);
    FUZZ_MUST_SUCCEED(report, "check");
    FUZZ_MUST(!report->error, "check: {}", report->error->Message());
    // Only bits that the input itself left out under ALL_ALLOCATED.
    FUZZ_MUST(report->missing_bits == 0 || model_->start().header().all_allocated,
              "{} bits are missing", report->missing_bits);
  }

  Scene& scene_;
  const bool read_only_;
  const std::unique_ptr<FakeFileSystem> before_;
  std::unique_ptr<Image> image_;
  std::optional<DiskModel> model_;
  std::vector<uint64_t> sample_;
  std::set<uint64_t> allocated_;  // seen as 1 since the last open
  std::set<uint64_t> durable_;    // 1 when a flush succeeded
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
