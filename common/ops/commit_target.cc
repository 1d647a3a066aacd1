// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See commit_target.h.

#include "common/ops/commit_target.h"

#include <fmt/format.h>

#include <utility>

#include "common/base/units.h"
#include "common/image/base.h"
#include "common/image/image.h"
#include "common/io/holes.h"
#include "common/io/zeroer.h"
#include "common/source/nbd_uri.h"
#include "common/source/nbd_writer.h"
#include "common/source/qemu_server.h"

namespace addcow {

namespace {

constexpr uint64_t kWriteback = 8 * kMiB;  // begun for so much at once

// What QEMU has open below an overlay bears, by its locks, that others write to it; what the
// overlay shows would be another disk then.
Status RefuseReaders(File& file, const AccessOptions& access) {
  if (!access.lock) return {};
  const auto use = file.UseByOthers();
  if (!use || *use == FileUse::kNone) return {};
  return WithLockRemedy(Fail(File::InUse(file.name(), LockKind::kWrite)), access.option_prefix);
}

Status LockForWriting(File& file, const AccessOptions& access) {
  if (!access.lock) return {};
  ADDCOW_TRY(WithLockRemedy(file.Lock(LockKind::kWrite), access.option_prefix));
  return RefuseReaders(file, access);
}

// A raw file or a block device. It is synced through a description that nothing else is done
// with (File).
class RawTarget final : public CommitTarget {
 public:
  static Result<std::unique_ptr<CommitTarget>> Open(std::unique_ptr<File> file,
                                                    const FileInfo& info,
                                                    const AccessOptions& access) {
    ADDCOW_TRY(LockForWriting(*file, access));
    ADDCOW_TRY_ASSIGN(auto sync, file->Reopen());
    ADDCOW_TRY_ASSIGN(const uint64_t size, file->Size());
    std::unique_ptr<RawTarget> target(
        new RawTarget(std::move(file), std::move(sync), size, !info.is_block_device));
    ADDCOW_TRY(target->holes_.Settle(*target->sync_));
    return target;
  }

  uint64_t size() const override { return size_; }
  bool can_grow() const override { return can_grow_; }
  Status Grow(uint64_t size) override {
    ADDCOW_TRY(file_->Truncate(size));
    ADDCOW_TRY(sync_->Sync());
    size_ = size;
    return {};
  }
  Status Write(std::span<const std::byte> data, uint64_t offset) override {
    const Status written = file_->Write(data, offset);
    holes_.Written(offset, data.size());
    if (!written) return written;
    return WriteBack({offset, data.size()});
  }
  Status Zero(uint64_t offset, uint64_t length) override {
    return zeroer_.Zero(offset, length, {.may_punch = true});
  }
  // With its time of modification, which the record of the base has.
  Status Flush() override { return sync_->Sync(); }

 private:
  RawTarget(std::unique_ptr<File> file, std::unique_ptr<File> sync, uint64_t size,
            bool can_grow)
      : file_(std::move(file)),
        sync_(std::move(sync)),
        size_(size),
        can_grow_(can_grow),
        holes_(*file_),
        zeroer_(*file_, holes_) {}

  // The disk is at work while the next is copied.
  Status WriteBack(ByteRange written) {
    const bool follows = written.offset >= begun_ && written.offset - begun_ <= kWriteback;
    if (!follows) begun_ = written.offset;
    if (written.end() - begun_ < kWriteback) return {};
    const uint64_t offset = std::exchange(begun_, written.end());
    return sync_->StartWriteback(offset, begun_ - offset);
  }

  const std::unique_ptr<File> file_;
  const std::unique_ptr<File> sync_;
  uint64_t size_;
  const bool can_grow_;
  Holes holes_;
  Zeroer zeroer_;
  uint64_t begun_ = 0;  // to where the writing out was begun, of what was written last
};

// An add-cow image, which has a base of its own.
class ImageTarget final : public CommitTarget {
 public:
  explicit ImageTarget(std::unique_ptr<Image> image) : image_(std::move(image)) {}

  uint64_t size() const override { return image_->virtual_size(); }
  Status Write(std::span<const std::byte> data, uint64_t offset) override {
    return image_->Write(data, offset);
  }
  Status Zero(uint64_t offset, uint64_t length) override {
    return image_->Zero(offset, length, {.may_punch = true});
  }
  Status Flush() override { return image_->Flush(); }
  Status Close() override { return image_->Close(); }

 private:
  const std::unique_ptr<Image> image_;
};

// Files that are open, and locked so.
using HeldFiles = std::vector<std::unique_ptr<File>>;

// What a server has, or a qemu-nbd of ours.
class NbdTarget final : public CommitTarget {
 public:
  // `image`: the file that a qemu-nbd of ours writes to, else null. `held`: what is locked.
  NbdTarget(std::unique_ptr<NbdWriter> writer, std::unique_ptr<File> image, HeldFiles held)
      : held_(std::move(held)), writer_(std::move(writer)), image_(std::move(image)) {}

  uint64_t size() const override { return writer_->size(); }
  Status Write(std::span<const std::byte> data, uint64_t offset) override {
    return OrLimit(writer_->Write(data, offset));
  }
  Status Zero(uint64_t offset, uint64_t length) override {
    return OrLimit(writer_->Zero(offset, length));
  }
  Status Flush() override { return OrLimit(writer_->Flush()); }
  Status Close() override { return OrLimit(writer_->Close()); }

 private:
  // NBD has no word for the limit: it comes as a file system without room.
  Status OrLimit(Status done) const {
    if (done || image_ == nullptr || !done.error().IsNoRoom()) return done;
    const auto limit = SizeLimitReached(*image_);
    return limit ? Status(Fail(*limit)) : done;
  }

  const HeldFiles held_;
  const std::unique_ptr<NbdWriter> writer_;
  const std::unique_ptr<File> image_;
};

// What is only looked at.
class SeenTarget final : public CommitTarget {
 public:
  SeenTarget(uint64_t size, bool can_grow, HeldFiles held)
      : size_(size), can_grow_(can_grow), held_(std::move(held)) {}

  uint64_t size() const override { return size_; }
  bool can_grow() const override { return can_grow_; }
  Status Write(std::span<const std::byte>, uint64_t) override { return Refused("write"); }
  Status Zero(uint64_t, uint64_t) override { return Refused("zero"); }
  Status Flush() override { return {}; }

 private:
  static Status Refused(const char* what) {
    return Fail(Error::System(EBADF, what, "the backing file"));
  }

  const uint64_t size_;
  const bool can_grow_;
  const HeldFiles held_;
};

Result<std::unique_ptr<CommitTarget>> OpenServed(std::unique_ptr<NbdServer> server,
                                                 const AccessOptions& access,
                                                 std::unique_ptr<File> image = nullptr,
                                                 HeldFiles held = {}) {
  ADDCOW_TRY_ASSIGN(auto writer,
                    NbdWriter::Open(std::move(server), {.timeout = access.timeout,
                                                        .interrupted = access.interrupted}));
  return std::make_unique<NbdTarget>(std::move(writer), std::move(image), std::move(held));
}

Status CheckSame(const CommitBase& base, const FileInfo& info) {
  if (!base.is || info.SameFile(*base.is)) return {};
  return Fail(Error::Because(EAGAIN, base.path,
                             "was replaced by another program while it was being opened "
                             "(try again)"));
}

Result<std::unique_ptr<CommitTarget>> OpenImageTarget(FileSystem& file_system,
                                                      const CommitBase& base, OpenMode mode,
                                                      const AccessOptions& access) {
  ADDCOW_TRY_ASSIGN(
      auto image,
      Image::Open(
          file_system,
          {.add_cow_path = base.path, .mode = mode, .access = access, .remedy_is_rebase = true},
          access.log));
  const ImageFiles& files = image->files();
  if (files.not_writable) return Fail(*files.not_writable);
  ADDCOW_TRY_ASSIGN(const FileInfo info, files.add_cow->Info());
  ADDCOW_TRY(CheckSame(base, info));
  if (mode == OpenMode::kReadOnly)
    ADDCOW_TRY(LookAtWriting(file_system, files, access));
  else
    ADDCOW_TRY(image->Start());
  return std::make_unique<ImageTarget>(std::move(image));
}

// What an image of QEMU's stands on is not its own, and QEMU lets others write to it.
Result<HeldFiles> LockBelow(FileSystem& file_system, const CommitBase& base,
                            const AccessOptions& access) {
  HeldFiles held;
  for (const ChainFile& other : base.others) {
    if (other.with_contents || !access.lock) continue;
    ADDCOW_TRY_ASSIGN(auto file, file_system.Open(other.path, OpenMode::kReadOnly));
    ADDCOW_TRY_ASSIGN(const FileInfo info, file->Info());
    ADDCOW_TRY(CheckSame({.path = other.path, .format = {}, .is = other.info}, info));
    ADDCOW_TRY(WithLockRemedy(file->Lock(LockKind::kRead), access.option_prefix));
    held.push_back(std::move(file));
  }
  return held;
}

}  // namespace

std::optional<Error> SizeLimitReached(File& image) {
  // As much as it may lack: the cluster that was to be added, and tables before it.
  constexpr uint64_t kNear = 8 * kMiB;
  const auto info = image.Info();
  const auto size = image.Size();
  if (!info || !size || info->size_limit > kMaxOffset) return std::nullopt;
  if (*size < info->size_limit && info->size_limit - *size > kNear) return std::nullopt;
  return Error::Because(
      EFBIG, image.name(),
      fmt::format("would get too long: no file of this process can have more than {} bytes "
                  "(ulimit -f)",
                  info->size_limit));
}

Status CommitTarget::Grow(uint64_t) {
  return Fail(Error::System(EOPNOTSUPP, "grow", "the backing file"));
}

Status LookAtWriting(FileSystem& file_system, const ImageFiles& files,
                     const AccessOptions& access) {
  ADDCOW_TRY(file_system.CheckMayChange(files.add_cow_path, FileChange::kWrite));
  ADDCOW_TRY(file_system.CheckMayChange(files.image_path, FileChange::kWrite));
  ADDCOW_TRY(LockForWriting(*files.add_cow, access));
  return LockForWriting(*files.image, access);
}

Result<std::unique_ptr<CommitTarget>> OpenCommitTarget(FileSystem& file_system,
                                                       const CommitBase& base,
                                                       const AccessOptions& access) {
  if (IsNbdUri(base.path)) return OpenServed(ServerOfUri(base.path), access);
  ADDCOW_TRY_ASSIGN(auto file, file_system.Open(base.path, OpenMode::kReadWrite));
  ADDCOW_TRY_ASSIGN(const FileInfo info, file->Info());
  ADDCOW_TRY(CheckSame(base, info));
  if (base.format == kRawFormat) return RawTarget::Open(std::move(file), info, access);
  if (base.format == kAddCowFormat) {
    file.reset();
    return OpenImageTarget(file_system, base, OpenMode::kReadWrite, access);
  }
  ADDCOW_TRY(RefuseReaders(*file, access));
  ADDCOW_TRY_ASSIGN(const std::string path, QemuPathOf(file_system, *file, base.path));
  ADDCOW_TRY_ASSIGN(const std::string real, RealPathOf(file_system, *file, base.path));
  ADDCOW_TRY_ASSIGN(HeldFiles below, LockBelow(file_system, base, access));
  ADDCOW_TRY_ASSIGN(auto server,
                    ServerOfQemuImage(file_system, {.path = path,
                                                    .format = base.format,
                                                    .is_block_device = info.is_block_device,
                                                    .lock = access.lock,
                                                    .writable = true,
                                                    .directory = DirectoryOf(real)}));
  ADDCOW_TRY_ASSIGN(auto target,
                    OpenServed(std::move(server), access, std::move(file), std::move(below)));
  // QEMU has opened what had the name by then; nothing is written to it yet.
  ADDCOW_TRY_ASSIGN(const FileInfo there, file_system.Identify(path));
  ADDCOW_TRY(CheckSame(base, there));
  return target;
}

Result<std::unique_ptr<CommitTarget>> LookAtCommitTarget(FileSystem& file_system,
                                                         const CommitBase& base,
                                                         const AccessOptions& access) {
  // A server is only asked whether it would let us write.
  if (IsNbdUri(base.path)) return OpenServed(ServerOfUri(base.path), access);
  ADDCOW_TRY(file_system.CheckMayChange(base.path, FileChange::kWrite));
  if (base.format == kAddCowFormat)
    return OpenImageTarget(file_system, base, OpenMode::kReadOnly, access);
  ADDCOW_TRY_ASSIGN(auto file, file_system.Open(base.path, OpenMode::kReadOnly));
  ADDCOW_TRY_ASSIGN(const FileInfo info, file->Info());
  ADDCOW_TRY(CheckSame(base, info));
  ADDCOW_TRY(LockForWriting(*file, access));
  const bool is_raw = base.format == kRawFormat;
  uint64_t size = base.size;
  HeldFiles held;
  if (is_raw) {
    ADDCOW_TRY_ASSIGN(size, file->Size());
  } else {
    for (const ChainFile& other : base.others)
      if (other.with_contents)
        ADDCOW_TRY(file_system.CheckMayChange(other.path, FileChange::kWrite));
    ADDCOW_TRY_ASSIGN(held, LockBelow(file_system, base, access));
  }
  held.push_back(std::move(file));
  return std::make_unique<SeenTarget>(size, is_raw && !info.is_block_device, std::move(held));
}

}  // namespace addcow
