// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a disk may read after a crash, sector by sector.
//
// Each sector of 512 bytes has a list of versions: the last one that a flush
// covered, and all later ones. After a crash any of them is right, each
// sector by itself, and nothing else is. A flush that completed drops the
// versions before the one that was current when it began.
//
// A request that is under way counts as having made its version: that is one
// of those that may be there. Whether it must be is decided by flushes that
// begin after it returned. Where requests are in flight together, none of them
// may share a sector with another, and each is marked by SetUnderWay.
//
// Threads: one at a time.

#ifndef ADDCOW_TESTS_SUPPORT_CRASH_MODEL_H
#define ADDCOW_TESTS_SUPPORT_CRASH_MODEL_H

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/support/test_image.h"

namespace addcow {

class CrashModel {
 public:
  // All of `contents` is durable.
  explicit CrashModel(std::vector<std::byte> contents);

  uint64_t size() const { return contents_.size(); }
  // What must be read while nothing crashes.
  const std::vector<std::byte>& contents() const { return contents_; }

  void Write(std::span<const std::byte> data, uint64_t offset);
  void Zero(uint64_t offset, uint64_t length);

  // Begins and ends the time in which a flush that begins does not cover the
  // newest version of these sectors.
  void SetUnderWay(uint64_t offset, uint64_t length, bool under_way);

  // A version of each sector: the newest whose request has returned, or the
  // newest of all.
  using Moment = std::vector<uint64_t>;
  Moment Now() const;
  Moment Latest() const;
  // A flush that began at `moment` has completed. The second form: only for
  // the sectors that [offset, offset + length) touches (FUA).
  void Flushed(const Moment& moment);
  void Flushed(const Moment& moment, uint64_t offset, uint64_t length);

  // Empty where the disk may read `actual` after a crash, else what is wrong.
  std::string Check(std::span<const std::byte> actual) const;

  // Goes on with what a process found that was started again on the same
  // files, without a crash: nothing of it need be durable.
  void GoOnWith(std::span<const std::byte> actual);
  // The same for what a failed request left in its own range; `actual` is the
  // whole disk.
  void GoOnWith(std::span<const std::byte> actual, uint64_t offset, uint64_t length);

 private:
  struct Sector {
    uint64_t first = 0;              // number of the oldest version
    std::vector<uint64_t> versions;  // hashes
    bool under_way = false;          // of the last one
  };

  uint64_t HashOf(std::span<const std::byte> bytes, uint64_t sector) const;
  // The sectors of the range have new contents.
  void AddVersions(uint64_t offset, uint64_t length);

  std::vector<std::byte> contents_;
  std::vector<Sector> sectors_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_CRASH_MODEL_H
