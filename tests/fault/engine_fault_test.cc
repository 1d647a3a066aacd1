// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation that the engine asks of its files fails once, in every way,
// in a script that uses all of the engine. Whatever fails, then and after the
// process has ended and the files were opened again:
//
// - a request that failed has left, byte by byte, the old or the new content;
// - one that succeeded reads back, and after a flush that succeeded it is in
//   the files;
// - nothing else has changed.

#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/fault_file.h"
#include "tests/support/forwarding_file.h"
#include "tests/support/test_image.h"

namespace addcow {
namespace {

using Effect = FaultPlan::Effect;
using Lasting = FaultPlan::Lasting;

// What one byte may be.
struct Allowed {
  std::byte old_value;
  std::byte new_value;
};

// Runs the script of requests, each on a place of its own, and remembers for
// each whether it succeeded and whether a flush followed that did.
class Script {
 public:
  Script(Image& image, const std::vector<std::byte>& contents)
      : image_(image), contents_(contents) {}

  void Run() {
    Write(1000, 2000);  // in a cluster of data
    Flush();
    Write(1 * kClusterSize, 2 * kClusterSize);  // two whole clusters
    Zero(3 * kClusterSize + 100, 30000, {.may_punch = true});
    Zero(4 * kClusterSize, kClusterSize, {.may_punch = true});
    Write(5 * kClusterSize + 77, 5000, Fua::kYes);
    Zero(6 * kClusterSize + 1, 60000, {.may_punch = false});
    Note(image_.CopyUp({7, 2}));
    Write(10 * kClusterSize + 60000, 20000);  // over the backing file's end
    Flush();
    Write(4000, 1000);  // in a cluster that is allocated by now
    if (image_.Close()) MarkFlushed();
  }

  size_t failures() const { return failures_; }

  // Empty where `actual` is what it may be. `reopened`: only what a flush
  // covered has to be there.
  std::string Check(const std::vector<std::byte>& actual, bool reopened) const {
    std::vector<Allowed> allowed;
    for (const std::byte byte : contents_) allowed.push_back({byte, byte});
    for (const Change& change : changes_) {
      const bool sure = change.succeeded && (change.flushed || !reopened);
      for (uint64_t i = 0; i < change.length; i++) {
        Allowed& byte = allowed[change.offset + i];
        byte.new_value = change.value;
        if (sure) byte.old_value = change.value;
      }
    }
    if (actual.size() != allowed.size()) return "the disk could not be read";
    for (uint64_t i = 0; i < actual.size(); i++)
      if (actual[i] != allowed[i].old_value && actual[i] != allowed[i].new_value)
        return "byte " + std::to_string(i) + " of cluster " + std::to_string(i / kClusterSize) +
               " is neither old nor new";
    return "";
  }

 private:
  struct Change {
    uint64_t offset;
    uint64_t length;
    std::byte value;
    bool succeeded;
    bool flushed;
  };

  void Note(const Status& status) {
    if (!status) failures_++;
  }

  void Write(uint64_t offset, uint64_t length, Fua fua = Fua::kNo) {
    const auto value = static_cast<std::byte>(0xa0 + changes_.size());
    const Status done = image_.Write(std::vector<std::byte>(length, value), offset, fua);
    Record({offset, length, value, bool(done), false}, done, fua);
  }

  void Zero(uint64_t offset, uint64_t length, ZeroOptions options) {
    const Status done = image_.Zero(offset, length, options);
    Record({offset, length, std::byte{0}, bool(done), false}, done, Fua::kNo);
  }

  void Record(const Change& change, const Status& done, Fua fua) {
    Note(done);
    changes_.push_back(change);
    if (done && fua == Fua::kYes) MarkFlushed();
  }

  void Flush() {
    const Status done = image_.Flush();
    Note(done);
    if (done) MarkFlushed();
  }

  void MarkFlushed() {
    for (Change& change : changes_) change.flushed = true;
  }

  Image& image_;
  const std::vector<std::byte>& contents_;
  std::vector<Change> changes_;
  size_t failures_ = 0;
};

struct Sweep {
  const char* name;
  int error;
  Effect effect;
  Lasting lasting;
  bool visible;  // false: no request may notice
};

class EngineFaultTest : public testing::TestWithParam<Sweep> {};

TEST_P(EngineFaultTest, NothingAcknowledgedIsLost) {
  const Sweep& sweep = GetParam();
  uint64_t runs = 0;
  for (uint64_t at = 1;; at++) {
    FakeFileSystem files;
    files.MakeDirectory(kDirectory);
    ASSERT_OK_AND_ASSIGN(const std::vector<std::byte> contents,
                         MakeTestImage(files, kDirectory,
                                       {.size = 12 * kClusterSize + 345,
                                        .backing_size = 10 * kClusterSize + 65000}));
    const std::vector<std::byte> backing =
        files.Find(kBackingPath)->Bytes(0, 12 * kClusterSize);
    FaultPlan plan;
    plan.Set(
        {.at = at,
         .error = sweep.error,
         .effect = sweep.effect,
         .lasting = sweep.lasting,
         .where = [](const Operation& operation) { return IsFileOperation(operation.kind); }});
    ForwardingFileSystem faulty(files, plan);
    auto image = OpenTestImage(faulty);
    if (image) {
      Script script(**image, contents);
      script.Run();
      const bool fired = plan.fired();
      const std::string hit = plan.hit();
      plan.Clear();  // reads are not what fails now
      EXPECT_EQ(script.Check(ReadAll(**image), false), "") << "in process, after " << hit;
      image->reset();
      auto reopened = OpenTestImage(files);
      ASSERT_OK(reopened) << hit;
      EXPECT_EQ(script.Check(ReadAll(**reopened), true), "") << "reopened, after " << hit;
      if (!sweep.visible) {
        EXPECT_EQ(script.failures(), 0u) << hit;
      }
      if (!fired) {
        EXPECT_EQ(script.failures(), 0u);
        break;
      }
    } else {
      EXPECT_TRUE(sweep.visible) << plan.hit();
      EXPECT_TRUE(plan.fired());
    }
    EXPECT_EQ(Difference(files.Find(kBackingPath)->Bytes(0, 12 * kClusterSize), backing), "")
        << "the backing file changed";
    runs++;
    ASSERT_LT(runs, 10000u) << "the sweep does not end";
  }
  EXPECT_GT(runs, 10u) << "hardly an operation was tried";
}

INSTANTIATE_TEST_SUITE_P(
    Faults, EngineFaultTest,
    testing::Values(Sweep{"EioOnce", EIO, Effect::kError, Lasting::kTransient, true},
                    Sweep{"EioForEver", EIO, Effect::kError, Lasting::kPersistent, true},
                    Sweep{"EnospcOnce", ENOSPC, Effect::kError, Lasting::kTransient, true},
                    Sweep{"EnospcForEver", ENOSPC, Effect::kError, Lasting::kPersistent, true},
                    Sweep{"TornOnce", EIO, Effect::kTorn, Lasting::kTransient, true},
                    Sweep{"EintrOnce", EINTR, Effect::kError, Lasting::kTransient, false},
                    Sweep{"ShortForEver", 0, Effect::kShort, Lasting::kPersistent, false}),
    [](const testing::TestParamInfo<Sweep>& sweep) { return std::string(sweep.param.name); });

}  // namespace
}  // namespace addcow
