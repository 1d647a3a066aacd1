// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The part of File that is the same for every kind of file: short transfers,
// EINTR, and errors that name the file.

#include "common/io/file.h"

#include <algorithm>

#include "common/base/units.h"

namespace addcow {

namespace {

// Repeats `call` while a signal interrupts it.
template <typename Call>
auto RetryInterrupted(Call call) {
  for (;;) {
    auto result = call();
    if (result || result.error() != EINTR) return result;
  }
}

// The system does not have the call: so an old kernel says it, and so the
// sandbox of a container, which answers EPERM to what it does not know.
bool IsNotOffered(int code) { return code == ENOSYS || code == EPERM || code == EOPNOTSUPP; }

bool CannotTellHoles(int code) { return code == EINVAL || IsNotOffered(code); }

}  // namespace

Error File::Failure(int code, std::string_view operation) const {
  return Error::System(code, std::string(operation), name_);
}

Error File::Failure(int code, std::string_view operation, uint64_t offset,
                    uint64_t count) const {
  return Error::Io(code, std::string(operation), name_, offset, count);
}

Result<size_t> File::Read(std::span<std::byte> buffer, uint64_t offset) {
  size_t done = 0;
  while (done < buffer.size()) {
    auto rest = buffer.subspan(done);
    auto count = RetryInterrupted([&] { return DoRead(rest, offset + done); });
    if (!count) return Fail(Failure(count.error(), "pread", offset + done, rest.size()));
    if (*count == 0) break;
    done += *count;
  }
  return done;
}

Status File::ReadExactly(std::span<std::byte> buffer, uint64_t offset) {
  ADDCOW_TRY_ASSIGN(const size_t count, Read(buffer, offset));
  if (count < buffer.size())
    return Fail(Error::Because(
        EIO, name_,
        "ends at byte " + std::to_string(offset + count) + (count == 0 ? " or earlier" : "") +
            ", before the data that should be there: was it truncated?"));
  return {};
}

template <typename Call>
Status File::WriteAll(std::span<const std::byte> data, uint64_t offset, const char* operation,
                      Call call) {
  size_t done = 0;
  while (done < data.size()) {
    auto rest = data.subspan(done);
    auto count = RetryInterrupted([&] { return call(rest, offset + done); });
    if (!count) return Fail(Failure(count.error(), operation, offset + done, rest.size()));
    if (*count == 0) return Fail(Failure(EIO, operation, offset + done, rest.size()));
    done += *count;
  }
  return {};
}

Status File::Write(std::span<const std::byte> data, uint64_t offset) {
  return WriteAll(data, offset, "pwrite",
                  [&](auto rest, uint64_t at) { return DoWrite(rest, at); });
}

Status File::WriteDurably(std::span<const std::byte> data, uint64_t offset) {
  return WriteAll(data, offset, "pwritev2",
                  [&](auto rest, uint64_t at) { return DoWriteDurably(rest, at); });
}

Status File::CloneFrom(const File& source, uint64_t offset, uint64_t length) {
  auto done = RetryInterrupted([&] { return DoCloneFrom(source.Innermost(), offset, length); });
  if (!done) return Fail(Failure(done.error(), "clone range", offset, length));
  return {};
}

Status File::PunchHole(uint64_t offset, uint64_t length) {
  auto done = RetryInterrupted([&] { return DoPunchHole(offset, length); });
  if (!done) return Fail(Failure(done.error(), "punch hole", offset, length));
  return {};
}

Status File::ZeroRange(uint64_t offset, uint64_t length) {
  auto done = RetryInterrupted([&] { return DoZeroRange(offset, length); });
  if (!done) return Fail(Failure(done.error(), "zero range", offset, length));
  return {};
}

Status File::Reserve(uint64_t offset, uint64_t length) {
  auto done = RetryInterrupted([&] { return DoReserve(offset, length); });
  if (!done) return Fail(Failure(done.error(), "fallocate", offset, length));
  return {};
}

Result<StorageRun> File::StorageAt(uint64_t offset, uint64_t length) {
  auto run = RetryInterrupted([&] { return DoStorageAt(offset, length); });
  if (!run) return Fail(Failure(run.error(), "fiemap", offset, length));
  return *run;
}

Status File::SyncData() {
  auto done = RetryInterrupted([&] { return DoSyncData(); });
  if (!done) return Fail(Failure(done.error(), "fdatasync"));
  return {};
}

Status File::Sync() {
  auto done = RetryInterrupted([&] { return DoSync(); });
  if (!done) return Fail(Failure(done.error(), "fsync"));
  return {};
}

Status File::StartWriteback(uint64_t offset, uint64_t length) {
  auto done = RetryInterrupted([&] { return DoStartWriteback(offset, length); });
  if (done) return {};
  switch (done.error()) {
    case ENOSYS:
    case EOPNOTSUPP:
    case EINVAL:
    case ESPIPE:
    case EPERM:   // see IsNotOffered
    case ENOMEM:  // nothing is lost, and a sync tries again
    case EAGAIN:
      return {};
    default:
      return Fail(Failure(done.error(), "sync_file_range", offset, length));
  }
}

Result<uint64_t> File::Size() {
  auto size = RetryInterrupted([&] { return DoSize(); });
  if (!size) return Fail(Failure(size.error(), "size"));
  return *size;
}

Status File::Truncate(uint64_t size) {
  auto done = RetryInterrupted([&] { return DoTruncate(size); });
  if (!done) return Fail(Failure(done.error(), "ftruncate", size, 0));
  return {};
}

// The size, but not less than `offset`: a file that was truncated underneath
// must not send a caller back to where it came from.
Result<uint64_t> File::SizeFrom(uint64_t offset) {
  ADDCOW_TRY_ASSIGN(const uint64_t size, Size());
  return std::max(size, offset);
}

Result<uint64_t> File::FindData(uint64_t offset) {
  auto found = RetryInterrupted([&] { return DoSeekData(offset); });
  if (found) return *found;
  if (found.error() == ENXIO) return SizeFrom(offset);
  if (CannotTellHoles(found.error())) return offset;
  return Fail(Failure(found.error(), "lseek", offset, 0));
}

Result<uint64_t> File::FindHole(uint64_t offset) {
  auto found = RetryInterrupted([&] { return DoSeekHole(offset); });
  if (found) return *found;
  if (found.error() == ENXIO || CannotTellHoles(found.error())) return SizeFrom(offset);
  return Fail(Failure(found.error(), "lseek", offset, 0));
}

Status File::Prefetch(uint64_t offset, uint64_t length) {
  auto done = RetryInterrupted([&] { return DoPrefetch(offset, length); });
  if (done || IsNotOffered(done.error())) return {};
  return Fail(Failure(done.error(), "fadvise", offset, length));
}

Status File::Lock(LockKind kind) {
  auto done = RetryInterrupted([&] { return DoLock(kind); });
  if (done) return {};
  if (done.error() != EAGAIN) return Fail(Failure(done.error(), kLockOperation));
  return Fail(InUse(name_, kind));
}

Error File::InUse(const std::string& name, LockKind kind) {
  return Error::Because(EBUSY, name,
                        kind == LockKind::kWrite
                            ? "is in use by another program, so it cannot be written to (stop "
                              "that program first)"
                            : "is in use by another program that may write to it (stop that "
                              "program first)");
}

Result<FileUse> File::UseByOthers() {
  auto use = RetryInterrupted([&] { return DoUseByOthers(); });
  if (!use) return Fail(Failure(use.error(), "look for locks"));
  return *use;
}

Result<std::unique_ptr<File>> File::Reopen() {
  auto file = RetryInterrupted([&] { return DoReopen(); });
  if (!file) return Fail(Failure(file.error(), "open again"));
  return std::move(*file);
}

Result<FileInfo> File::Info() {
  auto info = RetryInterrupted([&] { return DoInfo(); });
  if (!info) return Fail(Failure(info.error(), "fstat"));
  return *info;
}

Result<Attributes> File::ReadAttributes() {
  auto attributes = RetryInterrupted([&] { return DoAttributes(); });
  if (!attributes) return Fail(Failure(attributes.error(), "getxattr"));
  return std::move(*attributes);
}

}  // namespace addcow
