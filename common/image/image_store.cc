// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See image_store.h.

#include "common/image/image_store.h"

namespace addcow {

namespace {

// Where the image is read only there is but one, and nothing is written.
File& OrData(const std::unique_ptr<File>& file, const ImageFiles& files) {
  return file != nullptr ? *file : *files.image;
}

}  // namespace

ImageStore::ImageStore(const ImageFiles& files, const File* shared)
    : data_(*files.image),
      durable_(OrData(files.image_durable, files)),
      sync_(OrData(files.image_sync, files)),
      holes_(data_),
      zeroer_(data_, holes_),
      cloner_(shared, data_) {}

Status ImageStore::Open() {
  ADDCOW_TRY(holes_.Settle(sync_));
  const bool can = holes_.well_known() && &durable_ != &data_;
  can_write_durably_.store(can, std::memory_order_relaxed);
  return {};
}

bool ImageStore::Clone(uint64_t offset, uint64_t length) {
  const bool cloned = cloner_.Clone(offset, length);
  if (cloned) {
    counters_.Add(Count::kCloned, length);
    holes_.Written(offset, length);
  }
  return cloned;
}

Error ImageStore::Stopped(const char* operation) const {
  return Error::Because(
      EIO, data_.name(),
      std::string(operation) +
          " refused: an earlier sync failed, or a file was truncated or removed, so what is "
          "on the disk is not known; read only until it is opened again");
}

Status ImageStore::WriteDurably(std::span<const std::byte> data, uint64_t offset) {
  MutexLock lock(durable_mutex_);
  if (stopped()) return Fail(Stopped("write"));
  counters_.Add(Count::kWritten, data.size());
  Status own;  // what is no sync's failure
  ADDCOW_TRY(OrStop([&]() -> Status {
    Status written = durable_.WriteDurably(data, offset);
    if (written) return written;
    if (written.error().IsUnsupported()) {
      can_write_durably_.store(false, std::memory_order_relaxed);
      own = Fail(Error::Io(EOPNOTSUPP, "durable write", data_.name(), offset, data.size()));
      return {};
    }
    if (!written.error().IsNoRoom()) return written;
    // Where data was lost for it after all, the next sync is told, too.
    own = std::move(written);
    return {};
  }));
  return own;
}

Status ImageStore::Sync() {
  MutexLock lock(sync_mutex_);
  if (stopped()) return Fail(Stopped("flush"));  // one may have failed meanwhile
  const uint64_t begun = holes_.SyncBegins();
  // What a file system in user space has lost it may tell only the handle that wrote
  // (sshfs), so that one is asked as well.
  if (!holes_.well_known() && &data_ != &sync_)
    ADDCOW_TRY(OrStop([&] { return data_.SyncData(); }));
  ADDCOW_TRY(OrStop([&] { return sync_.SyncData(); }));
  holes_.SyncSucceeded(begun);
  return {};
}

Status ImageStore::StartWriteback(uint64_t offset, uint64_t length) {
  return OrStop([&] { return data_.StartWriteback(offset, length); });
}

Error ImageStore::Stop(const Error& cause) {
  const Error error = cause.WithCode(EIO);
  if (stopped_.exchange(true, std::memory_order_acq_rel)) return error;
  return error.WithNote("read only from here on: writes that were not flushed may be lost");
}

}  // namespace addcow
