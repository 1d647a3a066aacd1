// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow check: looks at what is on the disk, not at what the engine makes of
// it, and says what breaks the format. What may be found once the header is
// sound and the files are there:
//
//   corruption  ALL_ALLOCATED is set, but the bit of a cluster is 0
//   leak        the image file has data under a 0 bit (old data, say, or an
//               allocating write that a crash cut off); with SUBCLUSTERS, in an
//               unallocated cluster under the 0 bit of a subcluster
//
// Storage that reads as zeroes is no leak: it was reserved by somebody, or the
// file system has no holes, or took more than it was asked for.
//
// Where ALL_ALLOCATED is set and only the bits from some cluster to the end of the
// disk are 0, the image file has grown since: no corruption.
//
// Neither changes what is read: the flag is honoured, and what is under a 0 bit
// is ignored. So are bits past the end of the disk, in either bitmap, which are only
// counted; and the bits of subclusters in a cluster that is allocated, or with
// ALL_ALLOCATED, which are not even that.

#ifndef ADDCOW_COMMON_OPS_CHECK_H
#define ADDCOW_COMMON_OPS_CHECK_H

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/image/image_files.h"
#include "common/io/file_system.h"

namespace addcow {

enum class Repair { kNone, kLeaks, kAll };

struct CheckReport {
  uint64_t total_clusters = 0;
  uint64_t allocated_clusters = 0;  // as the disk is read: all, with ALL_ALLOCATED
  // Of the others: with subclusters in the image file.
  uint64_t partial_clusters = 0;
  bool subclusters = false;  // SUBCLUSTERS is set: leaks go by subclusters

  // What is wrong, after the repair if there was one.
  uint64_t check_errors = 0;  // things that could not be checked
  uint64_t missing_bits = 0;  // corruptions, one for each cluster
  // Another: the add-cow file ends inside the padding of a bitmap, which must be whole.
  bool unpadded = false;
  // Harm nothing, waste storage: clusters in which something leaks, and, where leaks go
  // by them, the subclusters that do.
  uint64_t leaked_clusters = 0;
  uint64_t leaked_subclusters = 0;
  // Another program was writing, which can only be without locks: what it has
  // not flushed would look like leaks, so none were looked for.
  bool leaks_unknown = false;
  // Not wrong: the format tells readers to ignore bits past the end of the disk,
  // and writers to write 0. They would count if the image file grew.
  uint64_t stray_bits = 0;
  // Not wrong either: clusters at the end of the disk without a bit, though
  // ALL_ALLOCATED is set. The image file has grown.
  uint64_t grown_clusters = 0;
  // What else somebody should know, a line each.
  std::vector<std::string> notes = {};
  // Why nothing, or not all, could be checked. A code of kErrCorrupt is a
  // corruption by itself; any other a check error.
  std::optional<Error> error;

  // The verb was asked to stop. Of what was repaired by then, all is durable;
  // what is wrong was not counted to the end.
  bool interrupted = false;

  // What was repaired.
  uint64_t fixed_bits = 0;
  uint64_t fixed_leaks = 0;

  uint64_t corruptions() const {
    return missing_bits + unpadded + (error && error->code() == kErrCorrupt ? 1 : 0);
  }
};

// Writes nothing unless asked to repair, and then never while another program
// uses the image: what that one has written and not flushed would look like a
// leak. Fails where the files cannot be opened for a reason that is not in
// them (not there, a newer version); what is in them is the report's business.
// The backing file need not be there; one that is there must not be empty or shorter
// than it was. Only a repair is interrupted.
//
// Where no bit is set, or another image file is named than that of the
// header, which is there, data under a 0 bit may be another disk's: then it fails
// rather than repair, unless `force`d to.
Result<CheckReport> CheckImage(FileSystem& file_system, ImageSource source, Repair repair,
                               const Interrupted& interrupted, bool force = false);

// In how many clusters the open image file holds data under a 0 bit; 0 where that
// cannot be told. Who calls holds the locks.
Result<uint64_t> LeakedClusters(const ImageFiles& files);

// With the files where the header says, to the end.
inline Result<CheckReport> CheckImage(FileSystem& file_system, const std::string& add_cow_path,
                                      Repair repair, const AccessOptions& access = {},
                                      bool force = false) {
  return CheckImage(file_system, ImageSource{.add_cow_path = add_cow_path, .access = access},
                    repair, Interrupted(), force);
}

}  // namespace addcow

#endif  // ADDCOW_COMMON_OPS_CHECK_H
