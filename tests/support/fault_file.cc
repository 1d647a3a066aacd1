// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See fault_file.h.

#include "tests/support/fault_file.h"

#include <algorithm>

#include "common/base/units.h"

namespace addcow {

void FaultPlan::Set(Fault fault) {
  MutexLock lock(mutex_);
  fault_ = std::move(fault);
  counted_ = 0;
  fired_ = false;
  hit_.clear();
}

uint64_t FaultPlan::counted() const {
  MutexLock lock(mutex_);
  return counted_;
}

bool FaultPlan::fired() const {
  MutexLock lock(mutex_);
  return fired_;
}

std::string FaultPlan::hit() const {
  MutexLock lock(mutex_);
  return hit_;
}

// Whether the operation could fail this way in reality, and so is counted.
bool FaultPlan::Applies(const Fault& fault, const Operation& operation) {
  const bool write =
      operation.kind == OpKind::kWrite || operation.kind == OpKind::kWriteDurably;
  if (fault.effect == Effect::kShort && !write && operation.kind != OpKind::kRead) return false;
  if (fault.effect == Effect::kTorn && !write) return false;
  if (fault.error == EINTR && !IsFileOperation(operation.kind)) return false;
  return fault.where == nullptr || fault.where(operation);
}

Verdict FaultPlan::Before(const Operation& operation) {
  MutexLock lock(mutex_);
  if (!Applies(fault_, operation)) return {};
  counted_++;
  const bool hit =
      fault_.lasting == Lasting::kPersistent ? counted_ >= fault_.at : counted_ == fault_.at;
  if (fault_.at == 0 || !hit) return {};
  if (!fired_) hit_ = ToString(operation);
  fired_ = true;
  switch (fault_.effect) {
    case Effect::kError:
      return {fault_.error, {}};
    case Effect::kShort:
      return {0, std::max<uint64_t>(operation.length / 2, 1)};
    case Effect::kTorn:
      // Of what goes to the disk at once, whole sectors.
      if (operation.kind == OpKind::kWriteDurably) {
        const uint64_t middle = RoundDown(operation.offset + operation.length / 2, kSectorSize);
        return {fault_.error, middle - std::min(middle, operation.offset)};
      }
      return {fault_.error, operation.length / 2};
  }
  return {};
}

}  // namespace addcow
