// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The files of a recorded server as a power cut leaves them: CrashDisk's rules
// for what may be lost (tests/support/crash_disk.h), for a log in which calls
// overlap in time.
//
// - A change may be on the disk from the moment its call begins.
// - A sync that succeeded keeps what had returned before it began. What was
//   under way then, or came later, may still be lost.
// - Each unsynced change is kept or lost by sectors of 512 bytes. A sector
//   that is kept of one change has the earlier changes too: it was written
//   out of the page cache as a whole.
// - Files do not change their size; a log in which one does is refused.
//
// Threads: one at a time.

#ifndef ADDCOW_TESTS_REPLAY_POWER_CUT_H
#define ADDCOW_TESTS_REPLAY_POWER_CUT_H

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/replay/recording.h"
#include "tests/support/random.h"

namespace addcow {

class PowerCut {
 public:
  using Files = std::vector<std::vector<std::byte>>;

  // The files as they were, in the order of their numbers; all durable.
  explicit PowerCut(Files files);

  // The next record of the log; those of requests are passed over. Empty, or
  // why it cannot be replayed.
  std::string Apply(const Record& record);

  // What is kept of the changes that are not synced.
  struct Choice {
    enum class Keep { kNothing, kEverything, kSome } keep = Keep::kNothing;
    uint64_t seed = 0;  // of kSome
  };
  // The files after a power cut now.
  Files Cut(const Choice& choice) const;

  size_t pending() const { return pending_.size(); }
  // The number of changes and syncs so far, of all files.
  uint64_t changes() const { return changes_; }
  uint64_t syncs() const { return syncs_; }

  std::string Describe(const Choice& choice) const;

 private:
  struct Change {
    uint64_t id = 0;
    uint32_t file = 0;
    uint64_t offset = 0;
    std::vector<std::byte> bytes;
    std::optional<uint64_t> new_size = {};  // of a truncation
    bool returned = false;

    uint64_t first_sector() const;
    uint64_t sectors() const;  // that may be torn from each other
  };

  std::string Begin(const Record& record);
  std::string End(uint64_t id, int64_t result);
  // By change, then by sector of it: is it kept?
  std::vector<std::vector<bool>> Kept(const Choice& choice) const;
  bool SizeIsKept(size_t index, const std::vector<std::vector<bool>>& kept) const;

  Files durable_;
  std::vector<uint64_t> sizes_;  // as the server sees them
  std::vector<Change> pending_;  // in the order in which they began
  // Syncs under way: the changes that they will have made durable.
  std::map<uint64_t, std::vector<uint64_t>> syncing_;
  uint64_t changes_ = 0;
  uint64_t syncs_ = 0;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_REPLAY_POWER_CUT_H
