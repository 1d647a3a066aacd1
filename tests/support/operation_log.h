// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Writes down the operations that cross the seam, in the order in which they
// began, for tests about order ("sync the image file before writing bits") and
// about what must not be done at all ("read only: no change").
//
// Threads: any.

#ifndef ADDCOW_TESTS_SUPPORT_OPERATION_LOG_H
#define ADDCOW_TESTS_SUPPORT_OPERATION_LOG_H

#include <algorithm>
#include <functional>
#include <vector>

#include "common/base/mutex.h"
#include "tests/support/forwarding_file.h"

namespace addcow {

class OperationLog final : public Interceptor {
 public:
  // An operation that owns its data.
  struct Record {
    Operation operation;  // without data
    std::vector<std::byte> data;
  };
  using Filter = std::function<bool(const Operation&)>;

  Verdict Before(const Operation& operation) override {
    Record record{operation, {operation.data.begin(), operation.data.end()}};
    record.operation.data = {};
    MutexLock lock(mutex_);
    records_.push_back(std::move(record));
    return {};
  }

  void Clear() {
    MutexLock lock(mutex_);
    records_.clear();
  }

  std::vector<Record> Records(const Filter& filter) const {
    MutexLock lock(mutex_);
    std::vector<Record> found;
    std::copy_if(records_.begin(), records_.end(), std::back_inserter(found),
                 [&](const Record& record) { return filter(record.operation); });
    return found;
  }

  // As ToString gives them.
  std::vector<std::string> Lines(const Filter& filter) const {
    std::vector<std::string> lines;
    for (const Record& record : Records(filter)) lines.push_back(ToString(record.operation));
    return lines;
  }

  // Writes, punches, syncs and the like: all that is about durability.
  std::vector<std::string> Changes() const {
    return Lines([](const Operation& operation) {
      return IsChange(operation.kind) || IsSync(operation.kind);
    });
  }

  size_t Count(OpKind kind) const {
    return Records([kind](const Operation& operation) { return operation.kind == kind; })
        .size();
  }

 private:
  mutable Mutex mutex_;
  std::vector<Record> records_ ADDCOW_GUARDED_BY(mutex_);
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_OPERATION_LOG_H
