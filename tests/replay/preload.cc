// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The recorder's half that is preloaded into nbdkit: replaces the functions
// of the C library that change or sync a file, and writes down what they do to
// the image file and the add-cow file. Other descriptors pass through.
//
// What it cannot put down it does not let happen: calls that write in a way
// that the log has no record for end the process, as does any write to the
// backing file. A way to write that is not replaced here at all (io_uring, a
// mapping made before) is found too, by whoever compares the files with what
// the whole log gives (replay_test.cc does).
//
// A sync that is not replaced here (syncfs, O_SYNC) counts as none.

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <vector>

#include "tests/replay/recorder_log.h"

#define EXPORT __attribute__((visibility("default")))

namespace addcow::recorder {
namespace {

template <typename... Arguments>
long Call(long number, Arguments... arguments) {
  return ::syscall(number, arguments...);
}

// Makes the call between its two records; errno stays the call's.
template <typename Function>
auto Recorded(const RecordHeader& header, std::span<const iovec> data, Function function) {
  const uint64_t id = Begin(header, data);
  const auto result = function();
  const int error = errno;
  End(id, result < 0 ? -error : static_cast<int64_t>(result));
  errno = error;
  return result;
}

RecordHeader Header(RecordKind kind, uint32_t file, off_t offset, uint64_t length) {
  RecordHeader header;
  header.kind = kind;
  header.file = file;
  header.offset = static_cast<uint64_t>(offset);
  header.length = length;
  return header;
}

// For calls that no record can say: only on other descriptors.
void MustBeOther(int fd, const char* call) {
  if (Find(fd).watch != Watch::kOther) Die(call);
}

// The number of a file to record, or nothing for another descriptor.
std::optional<uint32_t> FileOf(int fd) {
  const Watched found = Find(fd);
  if (found.watch == Watch::kReadOnly) Die("the backing file is written");
  if (found.watch == Watch::kOther) return {};
  return found.file;
}

uint64_t LengthOf(std::span<const iovec> parts) {
  uint64_t length = 0;
  for (const iovec& part : parts) length += part.iov_len;
  return length;
}

template <typename Function>
ssize_t Write(int fd, std::span<const iovec> parts, off_t offset, Function function) {
  const auto file = FileOf(fd);
  if (!file) return function();
  return Recorded(Header(RecordKind::kFileWrite, *file, offset, LengthOf(parts)), parts,
                  function);
}

std::span<const iovec> Parts(const iovec* parts, int count) {
  return {parts, static_cast<size_t>(count < 0 ? 0 : count)};
}

int Fallocate(int fd, int mode, off_t offset, off_t length) {
  const auto call = [&] {
    return static_cast<int>(Call(SYS_fallocate, fd, mode, offset, length));
  };
  const auto file = FileOf(fd);
  if (!file) return call();
  if (mode == FALLOC_FL_KEEP_SIZE) return call();  // changes nothing that is read
  if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) &&
      mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
    Die("fallocate in a mode that is not known here");
  return Recorded(Header(RecordKind::kFileZero, *file, offset, static_cast<uint64_t>(length)),
                  {}, call);
}

int Sync(int fd, long number) {
  const auto call = [&] { return static_cast<int>(Call(number, fd)); };
  const Watched found = Find(fd);
  if (found.watch != Watch::kRecorded) return call();
  if (DropsSync(found.file)) return 0;
  return Recorded(Header(RecordKind::kFileSync, found.file, 0, 0), {}, call);
}

// A copy inside of the kernel: the source is read, since it stays as it is.
// `function` gets the length, and returns how much was copied.
template <typename Function>
ssize_t Copy(int in, uint64_t in_offset, int out, uint64_t out_offset, uint64_t length,
             Function function) {
  const auto file = FileOf(out);
  if (!file) return function(length);
  struct stat st;
  if (::fstat(in, &st) != 0) Die("a copy from what has no size");
  const auto size = static_cast<uint64_t>(st.st_size);
  if (length == 0 || length > size) length = size;
  length = in_offset > size ? 0 : std::min(length, size - in_offset);
  std::vector<char> data(length);
  if (Call(SYS_pread64, in, data.data(), data.size(), in_offset) !=
      static_cast<long>(data.size()))
    Die("cannot read what is copied");
  const iovec part{data.data(), data.size()};
  return Recorded(Header(RecordKind::kFileWrite, *file, static_cast<off_t>(out_offset), length),
                  {&part, 1}, [&] { return function(length); });
}

void* Map(void* address, size_t length, int protection, int flags, int fd, off_t offset) {
  const int kind = flags & MAP_TYPE;
  if ((kind == MAP_SHARED || kind == MAP_SHARED_VALIDATE) && (protection & PROT_WRITE) != 0 &&
      (flags & MAP_ANONYMOUS) == 0)
    MustBeOther(fd, "mmap for writing");
  return reinterpret_cast<void*>(
      Call(SYS_mmap, address, length, protection, flags, fd, offset));
}

}  // namespace
}  // namespace addcow::recorder

using namespace addcow::recorder;

extern "C" {

EXPORT ssize_t pwrite(int fd, const void* data, size_t count, off_t offset) {
  const iovec part{const_cast<void*>(data), count};
  return Write(fd, {&part, 1}, offset,
               [&] { return Call(SYS_pwrite64, fd, data, count, offset); });
}

EXPORT ssize_t pwritev(int fd, const iovec* parts, int count, off_t offset) {
  return Write(fd, Parts(parts, count), offset,
               [&] { return Call(SYS_pwritev, fd, parts, count, offset, 0); });
}

EXPORT ssize_t pwritev2(int fd, const iovec* parts, int count, off_t offset, int flags) {
  // The log knows no sync of a part of a file. As a system without it, so that
  // the engine syncs all of it; the crash search has durable writes.
  if (flags == RWF_DSYNC && Find(fd).watch == Watch::kRecorded) {
    errno = EOPNOTSUPP;
    return -1;
  }
  if (offset < 0 || flags != 0) MustBeOther(fd, "pwritev2 with flags");
  return Write(fd, Parts(parts, count), offset,
               [&] { return Call(SYS_pwritev2, fd, parts, count, offset, 0, flags); });
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length) {
  return Fallocate(fd, mode, offset, length);
}

EXPORT int ftruncate(int fd, off_t size) noexcept {
  const auto call = [&] { return static_cast<int>(Call(SYS_ftruncate, fd, size)); };
  const auto file = FileOf(fd);
  if (!file) return call();
  return Recorded(
      Header(addcow::RecordKind::kFileTruncate, *file, 0, static_cast<uint64_t>(size)), {},
      call);
}

EXPORT int fdatasync(int fd) { return Sync(fd, SYS_fdatasync); }
EXPORT int fsync(int fd) { return Sync(fd, SYS_fsync); }

EXPORT ssize_t copy_file_range(int in, off64_t* in_offset, int out, off64_t* out_offset,
                               size_t length, unsigned flags) {
  if (in_offset == nullptr || out_offset == nullptr)
    MustBeOther(out, "copy_file_range at a file position");
  const auto call = [&](uint64_t) {
    return Call(SYS_copy_file_range, in, in_offset, out, out_offset, length, flags);
  };
  if (in_offset == nullptr || out_offset == nullptr || length == 0) return call(0);
  return Copy(in, static_cast<uint64_t>(*in_offset), out, static_cast<uint64_t>(*out_offset),
              length, call);
}

EXPORT int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  const auto call = [&] { return static_cast<int>(Call(SYS_ioctl, fd, request, argument)); };
  if (request == FICLONERANGE) {
    const auto& range = *static_cast<const file_clone_range*>(argument);
    const auto clone = [&](uint64_t copied) {
      return call() == 0 ? static_cast<ssize_t>(copied) : -1;
    };
    return Copy(static_cast<int>(range.src_fd), range.src_offset, fd, range.dest_offset,
                range.src_length, clone) == -1
               ? -1
               : 0;
  }
  if (request != FS_IOC_FIEMAP) MustBeOther(fd, "ioctl");
  return call();
}

EXPORT void* mmap(void* address, size_t length, int protection, int flags, int fd,
                  off_t offset) noexcept {
  return Map(address, length, protection, flags, fd, offset);
}

// What the log cannot say, or what nobody has needed so far.

EXPORT int posix_fallocate(int fd, off_t offset, off_t length) {
  MustBeOther(fd, "posix_fallocate");
  return Call(SYS_fallocate, fd, 0, offset, length) == 0 ? 0 : errno;
}

EXPORT ssize_t write(int fd, const void* data, size_t count) {
  MustBeOther(fd, "write");
  return Call(SYS_write, fd, data, count);
}

EXPORT ssize_t writev(int fd, const iovec* parts, int count) {
  MustBeOther(fd, "writev");
  return Call(SYS_writev, fd, parts, count);
}

EXPORT ssize_t sendfile(int out, int in, off_t* offset, size_t count) noexcept {
  MustBeOther(out, "sendfile");
  return Call(SYS_sendfile, out, in, offset, count);
}

EXPORT ssize_t splice(int in, off64_t* in_offset, int out, off64_t* out_offset, size_t length,
                      unsigned flags) {
  MustBeOther(out, "splice");
  return Call(SYS_splice, in, in_offset, out, out_offset, length, flags);
}

// The second names that the same functions have where off_t has 64 bits
// anyway. Elsewhere the first ones are macros for these.
#ifdef __LP64__
EXPORT ssize_t pwrite64(int fd, const void* data, size_t count, off64_t offset) {
  return pwrite(fd, data, count, offset);
}
EXPORT ssize_t pwritev64(int fd, const iovec* parts, int count, off64_t offset) {
  return pwritev(fd, parts, count, offset);
}
EXPORT ssize_t pwritev64v2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
  return pwritev2(fd, parts, count, offset, flags);
}
EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
  return Fallocate(fd, mode, offset, length);
}
EXPORT int posix_fallocate64(int fd, off64_t offset, off64_t length) {
  return posix_fallocate(fd, offset, length);
}
EXPORT int ftruncate64(int fd, off64_t size) noexcept { return ftruncate(fd, size); }
EXPORT ssize_t sendfile64(int out, int in, off64_t* offset, size_t count) noexcept {
  return sendfile(out, in, offset, count);
}
EXPORT void* mmap64(void* address, size_t length, int protection, int flags, int fd,
                    off64_t offset) noexcept {
  return Map(address, length, protection, flags, fd, offset);
}
#endif

}  // extern "C"
