// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See recorder_log.h. System calls are made directly, since preload.cc has
// replaced the functions of the C library in this process.

#include "tests/replay/recorder_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

namespace addcow::recorder {

namespace {

struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const FileId&) const = default;
};

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

FileId IdOf(const std::string& path) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) Die(("cannot find " + path).c_str());
  return {st.st_dev, st.st_ino};
}

// Never destroyed: threads of the server may outlive destructors.
struct State {
  State() {
    const std::string log = Variable(kRecordLogVariable);
    if (log.empty()) return;
    fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd == -1) Die(("cannot write " + log).c_str());
    const std::string names = Variable(kRecordFilesVariable);
    for (size_t start = 0; start < names.size();) {
      const size_t end = std::min(names.find(':', start), names.size());
      recorded.push_back(IdOf(names.substr(start, end - start)));
      start = end + 1;
    }
    const std::string name = Variable(kRecordReadOnlyVariable);
    if (!name.empty()) read_only = IdOf(name);
    const std::string dropped = Variable(kRecordDropSyncVariable);
    if (!dropped.empty()) drop_sync = static_cast<uint32_t>(std::stoul(dropped));
  }

  int fd = -1;
  std::vector<FileId> recorded;
  std::optional<FileId> read_only;
  std::optional<uint32_t> drop_sync;
  std::mutex mutex;  // of the log file and the ids
  uint64_t last_id = 0;
};

State& TheState() {
  static State& state = *new State;
  return state;
}

void Append(State& state, const RecordHeader& header, std::span<const iovec> data) {
  std::vector<iovec> parts = {{const_cast<RecordHeader*>(&header), sizeof header}};
  uint64_t total = sizeof header;
  for (const iovec& part : data) {
    parts.push_back(part);
    total += part.iov_len;
  }
  if (total != sizeof header + header.data_length()) Die("a record and its data do not fit");
  if (parts.size() > IOV_MAX) Die("a write of too many parts");
  const auto written =
      ::syscall(SYS_writev, state.fd, parts.data(), static_cast<int>(parts.size()));
  if (written != static_cast<long>(total)) Die("cannot write the log");
}

}  // namespace

Watched Find(int fd) {
  const State& state = TheState();
  struct stat st;
  if (state.fd == -1 || ::fstat(fd, &st) != 0) return {};
  const FileId id{st.st_dev, st.st_ino};
  if (id == state.read_only) return {Watch::kReadOnly};
  for (uint32_t i = 0; i < state.recorded.size(); i++)
    if (id == state.recorded[i]) return {Watch::kRecorded, i};
  return {};
}

bool DropsSync(uint32_t file) { return TheState().drop_sync == file; }

uint64_t Begin(RecordHeader header, std::span<const iovec> data) {
  State& state = TheState();
  if (state.fd == -1) Die("ADDCOW_RECORD_LOG does not say where to");
  const std::lock_guard lock(state.mutex);
  header.id = ++state.last_id;
  Append(state, header, data);
  return header.id;
}

void End(uint64_t id, int64_t result) {
  State& state = TheState();
  RecordHeader header;
  header.id = id;
  header.result = result;
  const std::lock_guard lock(state.mutex);
  Append(state, header, {});
}

void Die(const char* what) {
  std::fprintf(stderr, "recorder: %s\n", what);
  std::abort();
}

}  // namespace addcow::recorder
