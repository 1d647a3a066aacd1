// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Runs the engine on a CrashDisk with a CrashModel beside it, and at every
// moment between two operations on the files opens what a crash may leave:
// again with the real engine, which must read for each sector a version that
// the model allows.
//
// Also checked in each state (docs/format.md, "What must hold"): no bit that
// was durable is gone; where ALL_ALLOCATED is set, every bit is, and the disk
// reads right without its backing file; an add-cow file that was created is
// there.
//
// A state is looked at once. At the next moment only those are new that have
// a change in them which was not there before, unless a sync has been since,
// or a flush was answered: then more must hold, and all are looked at again.
//
// Threads: one, but for Race, which has its own.

#ifndef ADDCOW_TESTS_CRASH_CRASH_HARNESS_H
#define ADDCOW_TESTS_CRASH_CRASH_HARNESS_H

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/jobs/fetch.h"
#include "common/jobs/fill.h"
#include "common/ops/convert.h"
#include "common/ops/resize.h"
#include "tests/support/crash_disk.h"
#include "tests/support/crash_model.h"
#include "tests/support/fault_file.h"
#include "tests/support/gated_schedule.h"
#include "tests/support/test_image.h"

namespace addcow {

struct CrashRequest {
  // kRead: with copy-on-read, and what was read is kept when it is done.
  // kFill: some steps of the fill of this process, as many as the offset says; it flushes at
  // its end, and lets the backing file go.
  enum class Kind { kWrite, kZero, kTrim, kCopyUp, kRead, kFlush, kFill };

  Kind kind = Kind::kFlush;
  uint64_t offset = 0;
  uint64_t length = 0;
  Fua fua = Fua::kNo;
};

class CrashHarness {
 public:
  // Where the add-cow file comes from: it is there and durable; or it is
  // created, with a new image file or for the one that is there.
  enum class Origin { kFound, kCreated, kCreatedForImage };

  // `effort` is made at each moment. All random choices come from `seed`. `subclusters`:
  // whether the engine may use them where the file has none.
  CrashHarness(const ImageSpec& spec, const FakeInode::Abilities& abilities, uint64_t seed,
               const CrashDisk::Effort& effort, Origin origin = Origin::kFound,
               bool subclusters = true);

  Image& image() { return *image_; }
  // Whether a power failure now, at its worst, leaves the byte in the image file.
  bool IsDurable(uint64_t offset) const;
  // Whether the file that the process sees has SUBCLUSTERS.
  bool HasSubclusters() const;
  CrashDisk& disk() { return *disk_; }
  Random& random() { return random_; }
  uint64_t size() const { return model_->size(); }
  // As the process that runs has it.
  const Layout& layout() const { return layout_; }

  // Requests, on the engine and the model. They may fail: what they left is
  // then taken over from the engine.
  Status Do(const CrashRequest& request);
  Status Write(uint64_t offset, std::span<const std::byte> data, Fua fua = Fua::kNo);
  Status Write(uint64_t offset, uint64_t length, Fua fua = Fua::kNo);
  Status Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua = Fua::kNo);
  Status CopyUp(ClusterRange range);
  Status Read(uint64_t offset, uint64_t length);
  Status FillSome(uint64_t offset);
  Status Flush();
  Status Close();

  // The tool's verb, in a process of its own after this one was killed. It is
  // killed in turn before its N-th change or sync, if that is not 0. A new
  // process goes on.
  Status Flatten(uint64_t killed_before = 0);

  // The process is killed, and "addcow rebase -u" gives the files other names.
  void Rebase();

  // "addcow upgrade" or "downgrade", killed as Flatten is.
  Status Convert(const ConvertOptions& options, uint64_t killed_before = 0);

  // "addcow commit", and "addcow rebase" onto another file, killed as Flatten is. Nothing
  // happens where there is no backing file.
  Status Commit(uint64_t killed_before = 0);
  Status RebaseData(uint64_t killed_before = 0);

  // "addcow resize", after a flush; where it is killed, it is run again.
  void Resize(uint64_t size, uint64_t killed_before = 0);

  // So many requests by several threads at once, which change places before
  // every operation on a file, as the seed has it. `next` gives the requests;
  // one that shares sectors with a request in flight is left out.
  void Race(uint64_t requests, const std::function<CrashRequest()>& next);

  // Done by another thread while a flush stands before or after one of its
  // steps, where that thread may be. Must not flush.
  void SetMeanwhile(std::function<void()> meanwhile) { meanwhile_ = std::move(meanwhile); }
  // The next sync of `path` fails in the kernel, which loses what it covers.
  void FailNextSync(const std::string& path, int error = EIO) {
    failing_sync_ = path;
    sync_error_ = error;
  }
  // Whether one has failed since the power did: the kernel has lost what it covered,
  // and no process that is started from now on will be told.
  bool sync_failed() const { return sync_failed_; }
  // The N-th change from now on, of that file if one is given, fails for lack
  // of space, perhaps half done.
  void FailChange(uint64_t n, FaultPlan::Effect effect, const std::string& path = "");
  // The N-th operation of that kind on `path` from now on is not made, as if the
  // process were killed before it; Kill must follow.
  void StopBefore(OpKind kind, const std::string& path, uint64_t n = 1);

  // The process ends without a word and a new one opens the files.
  void Kill();
  // The power fails; a new process opens what is left.
  void CrashAndGoOn();

  // Checks all states once more: now, when nothing is under way.
  void CheckStates();

  uint64_t states() const { return checked_; }
  // How often things were done that a search must not leave out.
  using Counts = std::map<std::string, uint64_t>;
  const Counts& counts() const { return counts_; }
  void Count(const std::string& what) { counts_[what]++; }
  // Empty, or the first thing found to be wrong.
  const std::string& wrong() const { return wrong_; }

 private:
  // A request of a race.
  struct Lane {
    CrashRequest request;
    std::vector<std::byte> data;
    CrashModel::Moment moment;
    std::optional<Status> done;
  };

  void Start(const FakeFileSystem& files);
  void Create(const ImageSpec& spec);
  int OnOperation(const Operation& operation);
  // Which bits an add-cow file has: of its clusters, and whether the image file has each
  // subcluster, by either bitmap.
  struct Bits {
    uint64_t cluster_size = 0;
    std::vector<bool> clusters;
    std::vector<bool> subclusters;
  };
  Bits BitsIn(const FakeFileSystem& files) const;
  bool HasBase() const;
  std::string BaseName() const;  // in its directory; there is one
  Status RunVerb(const std::string& name, uint64_t killed_before,
                 const std::function<Status()>& verb);
  // Of the image file that is there, or is still to be made.
  uint64_t SizeIn(const FakeFileSystem& files) const;
  // Where a verb is killed, which runs in a process of its own.
  void KillBefore(uint64_t change);
  std::string CheckState(FakeFileSystem& files, const Bits& durable) const;
  void Wrong(const std::string& what);
  void Begin(std::string request) { requests_.push_back(std::move(request)); }
  template <typename Request>
  Status Run(uint64_t offset, uint64_t length, Fua fua, Request request);
  // A flush of that range which began at `moment` was answered.
  void Flushed(const CrashModel::Moment& moment, uint64_t offset, uint64_t length);
  void CheckContents(const std::string& when);
  void DropImage();

  Status Perform(const Lane& lane);
  void StepFill(uint64_t offset);
  bool StartLane(std::vector<Lane>& lanes, size_t index, const CrashRequest& request);
  void EndLane(Lane& lane, size_t index);

  Random random_;
  const CrashDisk::Effort effort_;
  const bool subclusters_;
  Layout layout_;
  std::optional<CrashModel> model_;
  std::optional<CrashModel> resized_;  // what it may be as well: a resize is under way
  FaultPlan faults_;
  GatedSchedule schedule_{3};
  std::unique_ptr<CrashDisk> disk_;
  std::unique_ptr<ForwardingFileSystem> faulty_;  // over disk_
  std::unique_ptr<ForwardingFileSystem> seam_;    // the schedule, over faulty_
  std::unique_ptr<Image> image_;
  std::unique_ptr<Fetch> fetch_;  // over image_
  std::unique_ptr<Fill> fill_;    // over image_
  bool base_gone_ = false;        // it was let go, and so deleted
  bool bits_may_go_ = false;      // a commit empties the image
  std::function<void()> meanwhile_;
  bool in_meanwhile_ = false;
  std::string failing_sync_;
  int sync_error_ = EIO;
  bool sync_failed_ = false;
  bool created_ = true;                // the add-cow file must be there
  bool wrote_ = false;                 // by this process and not flushed: Close must
  std::vector<std::string> requests_;  // all so far, for messages
  std::string wrong_;
  uint64_t checked_ = 0;
  Counts counts_;

  // What the last look at the states saw, if that still counts.
  struct Look {
    uint64_t retired = 0;
    size_t entries = 0;
  };
  std::optional<Look> look_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_CRASH_CRASH_HARNESS_H
