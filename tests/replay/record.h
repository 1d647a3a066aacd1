// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The log that the recorder (preload.cc, filter.cc) writes inside of a real
// nbdkit, and that recording.h reads: what the server did to its files and
// what clients asked of it and were answered, in one order.
//
// Every call has two records. The first is written before the call is made,
// the second (kEnd, with the same id) after it returned, so that the log says
// what was complete when something else began. All of a process go through
// one lock: the order in the file is the order of the moments.
//
// The log is for the machine and the build that wrote it.

#ifndef ADDCOW_TESTS_REPLAY_RECORD_H
#define ADDCOW_TESTS_REPLAY_RECORD_H

#include <cstdint>

namespace addcow {

enum class RecordKind : uint32_t {
  kEnd,
  // A system call on one of the files.
  kFileWrite,
  kFileZero,
  kFileTruncate,  // to `length`
  kFileSync,
  // A client's request, as the plugin gets it; its end is the answer.
  kWrite,
  kZero,  // or trim
  kFlush,
};

// Environment of the recorder.
inline constexpr const char* kRecordLogVariable = "ADDCOW_RECORD_LOG";
// Paths of the files whose system calls are recorded, with ':' between them;
// their numbers in the records are their places in this list.
inline constexpr const char* kRecordFilesVariable = "ADDCOW_RECORD_FILES";
// A file, as a path, that must not be written at all.
inline constexpr const char* kRecordReadOnlyVariable = "ADDCOW_RECORD_READ_ONLY";
// The number of a file whose syncs are left out: a server that forgets them.
inline constexpr const char* kRecordDropSyncVariable = "ADDCOW_RECORD_DROP_SYNC";

struct RecordHeader {
  static constexpr uint32_t kMagic = 0x63657261;

  uint32_t magic = kMagic;
  RecordKind kind = RecordKind::kEnd;
  uint32_t file = 0;  // of a system call
  uint32_t fua = 0;   // of a request
  uint64_t id = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  int64_t result = 0;  // kEnd: what the call returned, negative on error

  // So many bytes of data follow.
  uint64_t data_length() const {
    return kind == RecordKind::kFileWrite || kind == RecordKind::kWrite ? length : 0;
  }
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_REPLAY_RECORD_H
