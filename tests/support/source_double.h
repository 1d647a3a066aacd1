// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A base that is not a local file: it hands over to one, and counts what was read of it.
// It may tell of data and holes in short runs, or fail to, and may not be able to read
// some of its bytes. Of several pieces the last is there first.
//
// Threads: any; what it does is said before others are there, but for `broken`.

#ifndef ADDCOW_TESTS_SUPPORT_SOURCE_DOUBLE_H
#define ADDCOW_TESTS_SUPPORT_SOURCE_DOUBLE_H

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "common/image/image.h"
#include "common/source/source.h"

namespace addcow {

class SourceDouble final : public Source {
 public:
  explicit SourceDouble(std::unique_ptr<Source> source) : source_(std::move(source)) {}

  uint64_t size() const override { return source_->size(); }
  Status Read(std::span<std::byte> buffer, uint64_t offset) override {
    if (before_read) before_read();
    {
      const std::lock_guard lock(mutex_);
      reads_.push_back({offset, buffer.size()});
      if (offset < broken_.end() && broken_.offset < offset + buffer.size())
        return Fail(Error::Io(EIO, "read", "the base", offset, buffer.size()));
    }
    return source_->Read(buffer, offset);
  }
  size_t pieces_at_once() const override { return at_once; }
  Status ReadPieces(std::span<const Piece> pieces, const Arrived& arrived) override {
    Status all;
    for (size_t i = pieces.size(); i-- > 0;) {
      const Status read = Read(pieces[i].buffer, pieces[i].offset);
      if (read && arrived) arrived(i);
      if (!read) all = read;
    }
    return all;
  }
  Result<DataRun> RunAt(uint64_t offset, uint64_t limit) override {
    if (cannot_tell) return Fail(Error::Io(EIO, "tell data", "the base", offset, limit));
    const uint64_t most = longest_run > 0 ? std::min(limit, offset + longest_run) : limit;
    return source_->RunAt(offset, most);
  }
  Status Prefetch(uint64_t offset, uint64_t length) override {
    return source_->Prefetch(offset, length);
  }

  size_t at_once = 1;        // pieces
  uint64_t longest_run = 0;  // in bytes, of what it tells; 0: any
  std::atomic<bool> cannot_tell = false;
  std::function<void()> before_read;  // it is slow

  // Reads that touch the range fail from now on.
  void Break(ByteRange range) {
    const std::lock_guard lock(mutex_);
    broken_ = range;
  }
  void Mend() { Break({}); }

  std::vector<ByteRange> reads() const {
    const std::lock_guard lock(mutex_);
    return reads_;
  }
  uint64_t bytes_read() const {
    uint64_t bytes = 0;
    for (const ByteRange range : reads()) bytes += range.length;
    return bytes;
  }
  // Whether some byte was read more than once.
  bool ReadTwice() const {
    auto sorted = reads();
    std::ranges::sort(sorted, {}, &ByteRange::offset);
    for (size_t i = 1; i < sorted.size(); i++)
      if (sorted[i].offset < sorted[i - 1].end()) return true;
    return false;
  }
  void Forget() {
    const std::lock_guard lock(mutex_);
    reads_.clear();
  }

 private:
  const std::unique_ptr<Source> source_;
  mutable std::mutex mutex_;
  std::vector<ByteRange> reads_;
  ByteRange broken_;
};

// Opens the image of `add_cow_path` on its base behind a double, which is `*source` then,
// for as long as the image is there.
inline Result<std::unique_ptr<Image>> OpenOnDouble(FileSystem& file_system,
                                                   const ImageSource& what, LogSink log,
                                                   SourceDouble** source) {
  ADDCOW_TRY_ASSIGN(ImageFiles files, OpenImageFiles(file_system, what));
  *source = nullptr;
  if (files.backing != nullptr) {
    auto made = std::make_unique<SourceDouble>(std::move(files.backing));
    *source = made.get();
    files.backing = std::move(made);
  }
  return Image::Of(file_system, std::move(files), what, std::move(log));
}

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_SOURCE_DOUBLE_H
