// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The recorder's half that is a filter of nbdkit, between the server and the
// plugin: writes down what clients asked for and when it was answered, in the
// same log and order as the system calls (preload.cc).
//
// A request ends in the log before its answer goes out. So a client knows no
// more than the log says; and a flush that begins in the log after a write
// has ended there must cover it, since the plugin had returned from it.

#include <errno.h>

#include <nbdkit-filter.h>

#include "tests/replay/recorder_log.h"

namespace addcow::recorder {
namespace {

template <typename Function>
int Recorded(RecordKind kind, const void* data, uint32_t count, uint64_t offset, uint32_t flags,
             int* error, Function function) {
  RecordHeader header;
  header.kind = kind;
  header.fua = (flags & NBDKIT_FLAG_FUA) != 0;
  header.offset = offset;
  header.length = count;
  const iovec part{const_cast<void*>(data), count};
  const uint64_t id = Begin(header, {&part, data == nullptr ? size_t{0} : 1});
  const int result = function();
  End(id, result == 0 ? 0 : -*error);
  return result;
}

int FilterWrite(nbdkit_next* next, void*, const void* data, uint32_t count, uint64_t offset,
                uint32_t flags, int* error) {
  return Recorded(RecordKind::kWrite, data, count, offset, flags, error,
                  [&] { return next->pwrite(next, data, count, offset, flags, error); });
}

int FilterTrim(nbdkit_next* next, void*, uint32_t count, uint64_t offset, uint32_t flags,
               int* error) {
  return Recorded(RecordKind::kZero, nullptr, count, offset, flags, error,
                  [&] { return next->trim(next, count, offset, flags, error); });
}

int FilterZero(nbdkit_next* next, void*, uint32_t count, uint64_t offset, uint32_t flags,
               int* error) {
  return Recorded(RecordKind::kZero, nullptr, count, offset, flags, error,
                  [&] { return next->zero(next, count, offset, flags, error); });
}

int FilterFlush(nbdkit_next* next, void*, uint32_t flags, int* error) {
  return Recorded(RecordKind::kFlush, nullptr, 0, 0, 0, error,
                  [&] { return next->flush(next, flags, error); });
}

nbdkit_filter Filter() {
  nbdkit_filter filter = {};
  filter.name = "recorder";
  filter.longname = "addcow's recorder, for its tests";
  filter.pwrite = FilterWrite;
  filter.trim = FilterTrim;
  filter.zero = FilterZero;
  filter.flush = FilterFlush;
  return filter;
}

nbdkit_filter filter = Filter();

}  // namespace
}  // namespace addcow::recorder

NBDKIT_REGISTER_FILTER(addcow::recorder::filter)
