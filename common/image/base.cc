// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See base.h.

#include "common/image/base.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "common/image/image.h"
#include "common/image/raw_file.h"
#include "common/source/file_source.h"

namespace addcow {

namespace {

// Each is one more call for a read to go through, and two files more that are open.
constexpr size_t kMostImages = 500;

// Another add-cow image, which nobody writes to.
class ImageBase final : public Source {
 public:
  explicit ImageBase(std::unique_ptr<Image> image) : image_(std::move(image)) {}

  const Image& image() const { return *image_; }
  uint64_t size() const override { return image_->virtual_size(); }
  Status Read(std::span<std::byte> buffer, uint64_t offset) override {
    return image_->Read(buffer, offset);
  }
  Result<DataRun> RunAt(uint64_t offset, uint64_t limit) override {
    return image_->RunAt(offset, limit);
  }
  Status Prefetch(uint64_t offset, uint64_t length) override {
    return image_->Prefetch(offset, length);
  }

 private:
  const std::unique_ptr<Image> image_;
};

Result<Base> OpenRaw(BaseRequest request) {
  File& file = *request.file;
  if (request.access.lock)
    ADDCOW_TRY(WithLockRemedy(file.Lock(LockKind::kRead), request.access.option_prefix));
  ADDCOW_TRY_ASSIGN(const uint64_t size, file.Size());
  ADDCOW_TRY(CheckBacking(file, size));
  Base base;
  ADDCOW_TRY_ASSIGN(base.identity, IdentityOf(file));
  ADDCOW_TRY_ASSIGN(const FileInfo info, file.Info());
  base.files.push_back({.info = info, .path = request.path});
  if (Note note = NoteOtherFormat(file, "backing file")) base.notes.push_back(*note);
  base.source = std::make_unique<FileSource>(std::move(request.file), size);
  return base;
}

// That the path still leads to the file, and where it is: names in it start from the
// directory of the file itself.
Result<std::string> RealPathOf(FileSystem& file_system, const BaseRequest& request) {
  ADDCOW_TRY_ASSIGN(std::string path, file_system.RealPath(request.path));
  ADDCOW_TRY_ASSIGN(const FileInfo there, file_system.Identify(path));
  ADDCOW_TRY_ASSIGN(const FileInfo info, request.file->Info());
  if (info.SameFile(there)) return path;
  return Fail(
      Error::Because(EAGAIN, request.path,
                     "was replaced by another program while it was being opened (try again)"));
}

// What a record can say of it: its disk's size, and when one of its files was changed
// last.
Result<BackingIdentity> IdentityOf(const ImageFiles& files) {
  BackingIdentity identity{.size = files.virtual_size, .modified = {}};
  for (File* const file : {files.add_cow.get(), files.image.get()}) {
    ADDCOW_TRY_ASSIGN(const FileInfo info, file->Info());
    if (info.is_block_device)
      return BackingIdentity{.size = files.virtual_size, .modified = {}};
    if (!identity.modified || *identity.modified < info.modified)
      identity.modified = info.modified;
  }
  return identity;
}

Result<Base> OpenImageBase(FileSystem& file_system, BaseRequest request) {
  if (request.above.size() / 2 >= kMostImages)
    return Fail(Error::Because(
        ELOOP, request.path,
        fmt::format("more than {} images stand on each other (flatten some)", kMostImages)));
  Base base;
  ADDCOW_TRY_ASSIGN(const std::string path, RealPathOf(file_system, request));
  const ImageSource source{.add_cow_path = path,
                           .mode = OpenMode::kReadOnly,
                           .access = request.access,
                           .above = std::move(request.above)};
  // Its log is that of the image that stands on it.
  ADDCOW_TRY_ASSIGN(auto image, Image::Open(file_system, source, {}, std::move(request.file)));
  const ImageFiles& files = image->files();
  base.notes = files.notes;
  ADDCOW_TRY_ASSIGN(base.identity, IdentityOf(files));
  base.files = files.chain;
  base.image = image.get();
  base.source = std::make_unique<ImageBase>(std::move(image));
  return base;
}

}  // namespace

bool IsBaseFormat(std::string_view format) {
  return format == kRawFormat || format == kAddCowFormat;
}

FileInfo Base::Rights() const {
  FileInfo rights = files.front().info;
  for (const ChainFile& file : files)
    if (!file.info.is_block_device) rights.permissions &= file.info.permissions;
  return rights;
}

Result<Base> OpenBase(FileSystem& file_system, BaseRequest request) {
  ADDCOW_TRY(CheckNotAbove(*request.file, request.path, request.above));
  return request.format == kAddCowFormat ? OpenImageBase(file_system, std::move(request))
                                         : OpenRaw(std::move(request));
}

Status CheckNotAbove(File& file, const std::string& path, const std::vector<ChainFile>& above) {
  ADDCOW_TRY_ASSIGN(const FileInfo info, file.Info());
  const auto same = std::ranges::find_if(
      above, [&](const ChainFile& other) { return other.info.SameFile(info); });
  if (same == above.end()) return {};
  std::vector<std::string> names;
  for (auto at = same; at != above.end(); ++at)
    if (at == same || at->add_cow) names.push_back(at->path);
  names.push_back(path);
  return Fail(Error::Because(kErrCorrupt, same->path,
                             fmt::format("stands on itself: {}", fmt::join(names, " -> "))));
}

}  // namespace addcow
