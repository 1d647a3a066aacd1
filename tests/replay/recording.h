// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Reads a log of the recorder (record.h), and has what a test needs to make
// one: a server with the recorder in it.

#ifndef ADDCOW_TESTS_REPLAY_RECORDING_H
#define ADDCOW_TESTS_REPLAY_RECORDING_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/replay/record.h"

namespace addcow {

struct Record {
  RecordHeader header;
  std::span<const std::byte> data;  // in the recording
};

class Recording {
 public:
  // Reads the log at `path`. Where the process was killed, the last record may
  // be cut short, and is then left out. Throws if it is not a log.
  enum class Ending { kWhole, kMayBeCut };
  static Recording Read(const std::string& path, Ending ending);

  const std::vector<Record>& records() const { return records_; }

 private:
  std::vector<std::byte> bytes_;
  std::vector<Record> records_;
};

// The environment of the recorder in the servers that are started as long as
// this object lives. The paths of files are those of the files to watch; none:
// only requests are recorded, by the filter.
class RecorderEnvironment {
 public:
  explicit RecorderEnvironment(const std::string& log,
                               const std::vector<std::string>& recorded = {},
                               const std::string& read_only = "",
                               std::optional<uint32_t> drop_sync = {});
  ~RecorderEnvironment();
  RecorderEnvironment(const RecorderEnvironment&) = delete;
  RecorderEnvironment& operator=(const RecorderEnvironment&) = delete;

 private:
  void Set(const std::string& name, const std::string& value);

  std::vector<std::string> names_;
};

// The option of nbdkit that puts the recorder between server and plugin.
std::string RecorderFilter();

}  // namespace addcow

#endif  // ADDCOW_TESTS_REPLAY_RECORDING_H
