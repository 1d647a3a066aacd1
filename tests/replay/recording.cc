// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See recording.h.

#include "tests/replay/recording.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace addcow {

namespace {

// The recorder's shared object in the build tree.
std::string RecorderPath() {
  const char* build = std::getenv("ADDCOW_BUILDDIR");
  if (build == nullptr)
    throw std::runtime_error("ADDCOW_BUILDDIR is not set (make check sets it)");
  return std::string(build) + "/tests/replay/.libs/recorder.so";
}

}  // namespace

Recording Recording::Read(const std::string& path, Ending ending) {
  Recording recording;
  std::vector<std::byte>& bytes = recording.bytes_;
  bytes.resize(std::filesystem::file_size(path));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw std::runtime_error("cannot read " + path);
  for (size_t position = 0; position < bytes.size();) {
    RecordHeader header;
    const size_t left = bytes.size() - position;
    bool whole = left >= sizeof header;
    if (whole) {
      std::memcpy(&header, bytes.data() + position, sizeof header);
      if (header.magic != RecordHeader::kMagic)
        throw std::runtime_error(fmt::format("{}: no record at {}", path, position));
      whole = left - sizeof header >= header.data_length();
    }
    if (!whole) {
      if (ending == Ending::kMayBeCut) break;
      throw std::runtime_error(path + " ends in a record");
    }
    position += sizeof header;
    recording.records_.push_back(
        {header, std::span(bytes).subspan(position, header.data_length())});
    position += header.data_length();
  }
  return recording;
}

RecorderEnvironment::RecorderEnvironment(const std::string& log,
                                         const std::vector<std::string>& recorded,
                                         const std::string& read_only,
                                         std::optional<uint32_t> drop_sync) {
  Set(kRecordLogVariable, log);
  if (!recorded.empty()) {
    Set(kRecordFilesVariable, fmt::format("{}", fmt::join(recorded, ":")));
    Set("ADDCOW_PRELOAD", RecorderPath());
  }
  if (!read_only.empty()) Set(kRecordReadOnlyVariable, read_only);
  if (drop_sync) Set(kRecordDropSyncVariable, std::to_string(*drop_sync));
}

RecorderEnvironment::~RecorderEnvironment() {
  for (const std::string& name : names_) ::unsetenv(name.c_str());
}

void RecorderEnvironment::Set(const std::string& name, const std::string& value) {
  if (::setenv(name.c_str(), value.c_str(), 1) != 0) throw std::bad_alloc();
  names_.push_back(name);
}

std::string RecorderFilter() { return "--filter=" + RecorderPath(); }

}  // namespace addcow
