// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Copies ranges of one file to the same place in another by sharing their
// storage, where the file system can (XFS, btrfs). Where it turned out that it
// cannot it is not tried again.

#ifndef ADDCOW_COMMON_IO_CLONER_H
#define ADDCOW_COMMON_IO_CLONER_H

#include <atomic>
#include <cstdint>

#include "common/io/file.h"

namespace addcow {

class Cloner {
 public:
  // `from` may be null: nothing can be shared. Both must outlive this object.
  Cloner(const File* from, File& to) : from_(from), to_(to), able_(from != nullptr) {}

  // False: the range has to be copied. So also after any other error: copying
  // either does without what failed, or has the better message. The ends must
  // be multiples of File::kCloneAlignment. Any thread.
  bool Clone(uint64_t offset, uint64_t length);

  // False: Clone always says false.
  bool able() const { return able_.load(std::memory_order_relaxed); }

 private:
  const File* const from_;
  File& to_;
  std::atomic<bool> able_;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_CLONER_H
