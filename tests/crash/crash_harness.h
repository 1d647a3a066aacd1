// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Runs the engine on a CrashDisk with a CrashModel beside it, and at every
// moment between two operations on the files opens what a crash may leave:
// again with the real engine, which must read for each sector a version that
// the model allows.
//
// Also checked in each state (docs/format.md, "What must hold"): no bit that
// was durable is gone; where ALL_ALLOCATED is set, every bit is, and the disk
// reads right without its backing file.

#ifndef ADDCOW_TESTS_CRASH_CRASH_HARNESS_H
#define ADDCOW_TESTS_CRASH_CRASH_HARNESS_H

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/crash_disk.h"
#include "tests/support/crash_model.h"
#include "tests/support/fault_file.h"
#include "tests/support/test_image.h"

namespace addcow {

class CrashHarness {
 public:
  // `states`: how many crashes are tried at each moment, about.
  CrashHarness(const ImageSpec& spec, const FakeInode::Abilities& abilities, uint64_t seed,
               uint64_t states);

  Image& image() { return *image_; }
  CrashDisk& disk() { return *disk_; }
  Random& random() { return random_; }
  uint64_t size() const { return model_->size(); }

  // Requests, on the engine and the model. They may fail: what they left is
  // then taken over from the engine.
  Status Write(uint64_t offset, std::span<const std::byte> data, Fua fua = Fua::kNo);
  Status Write(uint64_t offset, uint64_t length, Fua fua = Fua::kNo);
  Status Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua = Fua::kNo);
  Status CopyUp(ClusterRange range);
  Status Flush();
  Status Close();

  // Done by another thread while a flush stands before or after one of its
  // steps, where that thread may be. Must not flush.
  void SetMeanwhile(std::function<void()> meanwhile) { meanwhile_ = std::move(meanwhile); }
  // The next sync of `path` fails in the kernel, which loses what it covers.
  void FailNextSync(const std::string& path) { failing_sync_ = path; }
  // The next operation of that kind on `path` is not made, as if the process
  // were killed before it; Kill must follow.
  void StopBefore(OpKind kind, const std::string& path);

  // The process ends without a word and a new one opens the files.
  void Kill();
  // The power fails; a new process opens what is left.
  void CrashAndGoOn();

  // Checks all states once more: now, when nothing is under way.
  void CheckStates();

  uint64_t states() const { return checked_; }
  // Empty, or the first thing found to be wrong.
  const std::string& wrong() const { return wrong_; }

 private:
  void Start(const FakeFileSystem& files);
  int OnOperation(const Operation& operation);
  std::string CheckState(FakeFileSystem& files, std::span<const std::byte> durable_bits) const;
  void Wrong(const std::string& what);
  void Begin(std::string request) { requests_.push_back(std::move(request)); }
  template <typename Request>
  Status Do(uint64_t offset, uint64_t length, Fua fua, Request request);

  Random random_;
  const uint64_t states_;
  std::optional<CrashModel> model_;
  FaultPlan faults_;
  std::unique_ptr<CrashDisk> disk_;
  std::unique_ptr<ForwardingFileSystem> seam_;
  std::unique_ptr<Image> image_;
  std::function<void()> meanwhile_;
  bool in_meanwhile_ = false;
  std::string failing_sync_;
  bool wrote_ = false;                 // this process did, or flushed
  std::vector<std::string> requests_;  // all so far, for messages
  std::string wrong_;
  uint64_t checked_ = 0;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_CRASH_CRASH_HARNESS_H
